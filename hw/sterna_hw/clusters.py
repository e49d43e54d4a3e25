"""Clusters: accelerators that share every token, each with a memory channel and an equal part of all rows."""

from __future__ import annotations

from amaranth import Cat, ClockSignal, Instance, Module, ResetSignal, signed
from amaranth.back import verilog
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna_hw.accelerator import Accelerator, accelerator_signature
from sterna_hw.cluster_registers import ClusterRegisters
from sterna_hw.exchange import Exchange


class Clusters(wiring.Component):
    """All clusters of a build behind the interface of one accelerator with many memory ports.

    A cluster is an instance of the module ``cluster``, :class:`Accelerator` with the same configuration, which is not
    part of this one: tools then compile it once. :func:`clusters_verilog` gives both.

    Attributes:
        m_axi: Out AXI4 manager of each cluster.
        s_axil: In AXI4-Lite subordinate: the register map.
        busy: Out STATUS.BUSY: a cluster runs a token, or abandons it.
        trace_valid, trace_values: Out Every row result as it is committed, a cluster.
    """

    def __init__(self, *, config: HardwareConfig, cluster: str) -> None:
        if config.clusters < 2:
            raise ValueError(f"a build of clusters has at least 2, not {config.clusters!r}")
        self._config, self._module, self._cluster = config, cluster, accelerator_signature(config)
        members = self._cluster.members
        super().__init__(
            {
                "m_axi": members["m_axi"].array(config.clusters),
                "s_axil": members["s_axil"],
                "busy": Out(1),
                "trace_valid": Out(config.clusters),
                "trace_values": Out(data.ArrayLayout(signed(numerics.VALUE_WIDTH), config.clusters)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.exchange = exchange = Exchange(config=self._config)
        m.submodules.registers = registers = ClusterRegisters(config=self._config)
        wiring.connect(m, wiring.flipped(self.s_axil), registers.bus)

        clusters = [self._instance(m, number) for number in range(self._config.clusters)]
        busy = Cat(cluster.busy for cluster in clusters).any()
        m.d.comb += self.busy.eq(busy)
        for number, cluster in enumerate(clusters):
            wiring.connect(m, cluster.m_axi, wiring.flipped(self.m_axi[number]))
            wiring.connect(m, registers.clusters[number], cluster.s_axil)
            wiring.connect(m, cluster.exchange, exchange.clusters[number])
            m.d.comb += [
                registers.largest[number].eq(cluster.largest),
                registers.counted[number].eq(cluster.counted),
                self.trace_valid[number].eq(cluster.trace_valid),
                self.trace_values[number].eq(cluster.trace_values[0]),
            ]
            m.d.sync += cluster.any_busy.eq(busy)
        return m

    def _instance(self, m: Module, number: int) -> wiring.PureInterface:
        """The ports of a cluster."""
        name = f"cluster_{number}"
        ports = self._cluster.create(path=(name,))
        pins = {
            f"{'o' if member.flow is Out else 'i'}_{'__'.join(map(str, path))}": value
            for path, member, value in self._cluster.flatten(ports)
        }
        m.submodules[name] = Instance(self._module, i_clk=ClockSignal(), i_rst=ResetSignal(), **pins)
        return ports


def clusters_verilog(config: HardwareConfig, *, top: str, cluster: str = "sterna_cluster") -> str:
    """Verilog of :class:`Clusters` as module ``top``, and of a cluster as module ``cluster``."""
    components = {cluster: Accelerator(config=config), top: Clusters(config=config, cluster=cluster)}
    return "".join(verilog.convert(c, name=name, strip_internal_attrs=True) for name, c in components.items())
