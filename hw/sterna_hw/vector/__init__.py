"""The vector unit: everything between one row operation and the next projection."""

from sterna_hw.vector.scalar import ScalarUnit
from sterna_hw.vector.unit import VectorUnit, quant_cycles, sumsq_cycles

__all__ = ["ScalarUnit", "VectorUnit", "quant_cycles", "sumsq_cycles"]
