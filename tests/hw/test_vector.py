"""The vector unit and its scalar unit against the specification (cocotb_vector.py, cocotb_scalar.py)."""

from __future__ import annotations

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from bench import run_bench
from cocotb_vector import bench_config

from sterna.spec.config import HardwareConfig
from sterna_hw.vector import ScalarUnit, VectorUnit


class ObservedVectorUnit(wiring.Component):
    """The unit, with S1 as a port."""

    def __init__(self, *, config: HardwareConfig) -> None:
        self._unit = VectorUnit(config=config)
        super().__init__({**dict(self._unit.signature.members), "s1": Out(64)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = unit = self._unit
        for name, member in unit.signature.members.items():
            outer, inner = getattr(self, name), getattr(unit, name)
            if member.is_signature:
                connect(m, flipped(outer), inner)
            elif member.flow == In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)
        m.d.comb += self.s1.eq(unit.s1)
        return m


def test_scalar_unit() -> None:
    run_bench(ScalarUnit(), "cocotb_scalar")


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_vector_unit(width: int) -> None:
    run_bench(ObservedVectorUnit(config=bench_config(width)), "cocotb_vector", parameters={"VECTOR_WIDTH": width})
