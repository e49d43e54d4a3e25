"""The registers of all clusters as those of one accelerator."""

from __future__ import annotations

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.registers import OFFSET, REGISTER_SPACE_BITS, ErrorCause, Status
from sterna_hw.axi import AXI4Lite
from sterna_hw.sampler import INDEX_WIDTH


class ClusterRegisters(wiring.Component):
    """AXI4-Lite from the host to the register ports of all clusters.

    Writes go to all clusters in the same cycle. Reads do too; their answers are then looked at one after the other, a
    cycle each, and put together: STATUS is busy or in error when a cluster is, and done when all are; ERROR_CAUSE is
    that of the first cluster that has one; SATURATIONS is the sum; SAMPLED counts on over the vocabularies of the
    clusters, lowest id on ties. Every other register is that of cluster 0.

    The clusters are the same gateware and answer in the same cycles; a transfer waits for all of them all the same.
    Latency of a read: as :class:`Registers`, and a cycle a cluster and one more.

    Attributes:
        bus: In The host.
        clusters: Out The register port of each cluster.
        largest, counted: In Of each cluster's sampler.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._count = config.clusters
        port = AXI4Lite(REGISTER_SPACE_BITS)
        super().__init__(
            {
                "bus": In(port),
                "clusters": Out(port).array(config.clusters),
                "largest": In(data.ArrayLayout(signed(numerics.VALUE_WIDTH), config.clusters)),
                "counted": In(data.ArrayLayout(INDEX_WIDTH, config.clusters)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        clusters = [self.clusters[number] for number in range(self._count)]
        self._forward(m, clusters, "aw", ("awaddr",), Const(1))
        self._forward(m, clusters, "w", ("wdata", "wstrb"), Const(1))
        self._join_writes(m, clusters)
        self._join_reads(m, clusters)
        return m

    def _forward(self, m: Module, clusters: list, channel: str, payload: tuple[str, ...], enable: Value) -> Signal:
        """A channel from the host to all clusters; gives its transfer."""
        ready, taken = Signal(name=f"{channel}_ready"), Signal(name=f"{channel}_taken")
        m.d.comb += [
            ready.eq(Cat(getattr(cluster, f"{channel}ready") for cluster in clusters).all() & enable),
            taken.eq(getattr(self.bus, f"{channel}valid") & ready),
            getattr(self.bus, f"{channel}ready").eq(ready),
        ]
        for cluster in clusters:
            m.d.comb += getattr(cluster, f"{channel}valid").eq(taken)
            m.d.comb += [getattr(cluster, name).eq(getattr(self.bus, name)) for name in payload]
        return taken

    def _join_writes(self, m: Module, clusters: list) -> None:
        valid = Signal()
        m.d.comb += [
            valid.eq(Cat(cluster.bvalid for cluster in clusters).all()),
            self.bus.bvalid.eq(valid),
            self.bus.bresp.eq(clusters[0].bresp),
            *(cluster.bready.eq(self.bus.bready & valid) for cluster in clusters),
        ]

    def _join_reads(self, m: Module, clusters: list) -> None:
        """One read at a time."""
        bus, idle = self.bus, Signal()
        taken = self._forward(m, clusters, "ar", ("araddr",), idle)
        offset = Signal(REGISTER_SPACE_BITS)
        number = Signal(range(self._count))  # of the cluster whose answer is looked at
        answer = Array(cluster.rdata for cluster in clusters)[number]
        so_far, value = Signal(32), Signal(32)
        m.d.comb += value.eq(Mux(number == 0, answer, self._merged(m, offset, so_far, answer, number)))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += idle.eq(1)
                m.d.sync += [offset.eq(bus.araddr & ~3), number.eq(0)]
                with m.If(taken):
                    m.next = "MERGE"
            with m.State("MERGE"), m.If(Cat(cluster.rvalid for cluster in clusters).all()):
                m.d.sync += [so_far.eq(value), number.eq(number + 1)]
                with m.If(number == self._count - 1):
                    m.d.comb += [cluster.rready.eq(1) for cluster in clusters]
                    m.d.sync += [bus.rdata.eq(value), bus.rresp.eq(clusters[0].rresp), bus.rvalid.eq(1)]
                    m.next = "ANSWER"
            with m.State("ANSWER"), m.If(bus.rready):
                m.d.sync += bus.rvalid.eq(0)
                m.next = "IDLE"

    def _merged(self, m: Module, offset: Signal, so_far: Signal, answer: Value, number: Signal) -> Value:
        """The register at ``offset`` over the clusters up to ``number``, the first not among them."""
        largest, base = Signal(signed(numerics.VALUE_WIDTH)), Signal(INDEX_WIDTH)
        logit, counted = Array(self.largest)[number], Array(self.counted)[number]
        first, better = number == 0, logit > largest
        m.d.sync += base.eq(Mux(first, 0, base) + counted)
        with m.If(first | better):
            m.d.sync += largest.eq(logit)
        either, both = so_far | answer, so_far & answer
        merged = Signal(32)
        with m.Switch(offset):
            with m.Case(OFFSET["STATUS"]):
                m.d.comb += merged.eq((either & (Status.BUSY | Status.ERROR)) | (both & Status.DONE))
            with m.Case(OFFSET["ERROR_CAUSE"]):
                m.d.comb += merged.eq(Mux(so_far == ErrorCause.NONE, answer, so_far))
            with m.Case(OFFSET["SATURATIONS"]):
                m.d.comb += merged.eq(so_far + answer)
            with m.Case(OFFSET["SAMPLED"]):
                m.d.comb += merged.eq(Mux(better, base + answer, so_far))
            with m.Default():
                m.d.comb += merged.eq(so_far)
        return merged
