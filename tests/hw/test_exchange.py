"""What clusters exchange, under Verilator: the exchange alone, vector units through it, registers put together."""

from __future__ import annotations

import pytest
from amaranth import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from bench import run_bench

from sterna.spec.config import HardwareConfig, preset
from sterna_hw.cluster_registers import ClusterRegisters
from sterna_hw.exchange import Exchange
from sterna_hw.vector import VectorUnit

CLUSTERS = preset("sim-tiny-c4")


@pytest.mark.parametrize("name", ["sim-tiny-c4", "u280"])
def test_exchange(name: str) -> None:
    run_bench(Exchange(config=preset(name)), "cocotb_exchange", parameters={"STERNA_CONFIG": name})


class VectorUnits(wiring.Component):
    """The vector unit of each cluster, with a reset each, and an exchange; what is written, and S1, are ports."""

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        self._units = [VectorUnit(config=config) for _ in range(config.clusters)]
        ports = dict(self._units[0].signature.members)
        gathered = ports.pop("exchange").signature.members["gathered"].signature
        self._names = tuple(ports)
        unit = wiring.Signature({**ports, "gathered": Out(gathered.flip()), "s1": Out(64)})
        super().__init__({"units": Out(unit).array(config.clusters), "resets": In(config.clusters)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.exchange = exchange = Exchange(config=self._config)
        for number, unit in enumerate(self._units):
            m.submodules[f"unit_{number}"] = ResetInserter(self.resets[number])(unit)
            outside = self.units[number]
            connect(m, unit.exchange, exchange.clusters[number])
            for name in self._names:
                member, inner, outer = unit.signature.members[name], getattr(unit, name), getattr(outside, name)
                if member.is_signature:
                    connect(m, flipped(outer), inner)
                else:
                    m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
            row = unit.exchange.gathered
            m.d.comb += [getattr(outside.gathered, name).eq(getattr(row, name)) for name in row.signature.members]
            m.d.comb += outside.s1.eq(unit.s1)
        return m


def test_vector_units_share_a_vector() -> None:
    run_bench(VectorUnits(config=CLUSTERS), "cocotb_vector_clusters")


def test_registers_of_clusters() -> None:
    run_bench(ClusterRegisters(config=CLUSTERS), "cocotb_cluster_registers")
