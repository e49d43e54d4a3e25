"""The scaling epilogue and its row operations."""

from sterna_hw.epilogue.epilogue import CARRY_LATENCY, LAST_AGE, Epilogue, epilogue_cycles

__all__ = ["CARRY_LATENCY", "LAST_AGE", "Epilogue", "epilogue_cycles"]
