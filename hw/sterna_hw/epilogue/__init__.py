"""The scaling epilogue and its row operations."""

from sterna_hw.epilogue.epilogue import LAST_AGE, Epilogue, epilogue_cycles

__all__ = ["LAST_AGE", "Epilogue", "epilogue_cycles"]
