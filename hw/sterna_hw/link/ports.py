"""From accesses to buses: AXI4 to the memory, AXI4-Lite to the accelerator, Wishbone to the DRAM controller."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna_hw.axi import AXI4Lite, AXI4Read, AXI4Write, Burst, burst_size
from sterna_hw.dram import Wishbone
from sterna_hw.link.access import MemoryAccess, RegisterAccess

MAX_UNANSWERED = 15  # writes


class MemoryPort(wiring.Component):
    """Beats of memory as bursts of one beat: the host's bytes come and go one a cycle, so longer ones gain nothing.

    A write leaves with its address in the cycle after it was accepted; up to ``MAX_UNANSWERED`` are under way.

    Attributes:
        access: In From the transfer.
        bus: Out The memory.
    """

    def __init__(self, *, address_width: int, data_bytes: int) -> None:
        self._data_bytes = data_bytes
        read, write = AXI4Read(address_width, data_bytes), AXI4Write(address_width, data_bytes)
        super().__init__(
            {
                "access": In(MemoryAccess(address_width, data_bytes)),
                "bus": Out(wiring.Signature({**dict(read.members), **dict(write.members)})),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        access, bus = self.access, self.bus
        size = burst_size(self._data_bytes)
        address = Signal.like(access.address)
        reading = Signal()
        unanswered = Signal(range(MAX_UNANSWERED + 1))
        begins = Signal()
        m.d.comb += [
            access.ready.eq(~bus.awvalid & ~bus.wvalid & ~reading & (unanswered != MAX_UNANSWERED)),
            begins.eq(access.valid & access.ready),
            access.idle.eq(~reading & (unanswered == 0)),
            bus.araddr.eq(Cat(Const(0, size), address)),
            bus.awaddr.eq(Cat(Const(0, size), address)),
            bus.arsize.eq(size),
            bus.awsize.eq(size),
            bus.arburst.eq(Burst.INCR),
            bus.awburst.eq(Burst.INCR),
            bus.wlast.eq(1),
            bus.rready.eq(1),
            bus.bready.eq(1),
        ]
        for valid, ready in ((bus.awvalid, bus.awready), (bus.wvalid, bus.wready), (bus.arvalid, bus.arready)):
            with m.If(ready):
                m.d.sync += valid.eq(0)
        m.d.sync += [
            access.done.eq((begins & access.write) | bus.rvalid),
            unanswered.eq(unanswered + (begins & access.write) - bus.bvalid),
        ]
        with m.If(begins):
            m.d.sync += [
                address.eq(access.address),
                bus.awvalid.eq(access.write),
                bus.wvalid.eq(access.write),
                bus.arvalid.eq(~access.write),
                reading.eq(~access.write),
                bus.wdata.eq(access.data),
                bus.wstrb.eq(access.strobes),
            ]
        with m.If(bus.rvalid):
            m.d.sync += [access.result.eq(bus.rdata), reading.eq(0)]
        with m.If(access.start):
            m.d.sync += access.error.eq(0)
        with m.Elif((bus.rvalid & bus.rresp[1]) | (bus.bvalid & bus.bresp[1])):
            m.d.sync += access.error.eq(1)
        return m


class AxiLitePort(wiring.Component):
    """Registers behind AXI4-Lite; an error response of any kind is an error.

    Args:
        address_width: Bits of a byte address on ``bus``; an access above is an error.

    Attributes:
        access: In From the transfer.
        bus: Out The registers.
    """

    def __init__(self, *, address_width: int) -> None:
        self._address_width = address_width
        super().__init__({"access": In(RegisterAccess()), "bus": Out(AXI4Lite(address_width))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        access, bus = self.access, self.bus
        busy = Signal()
        address = Signal(self._address_width - 2)
        outside = access.address[self._address_width - 2 :].any()
        m.d.comb += [
            access.ready.eq(~busy),
            bus.araddr.eq(address << 2),
            bus.awaddr.eq(address << 2),
            bus.wstrb.eq(0b1111),
            bus.rready.eq(1),
            bus.bready.eq(1),
        ]
        for valid, ready in ((bus.awvalid, bus.awready), (bus.wvalid, bus.wready), (bus.arvalid, bus.arready)):
            with m.If(ready):
                m.d.sync += valid.eq(0)
        m.d.sync += access.done.eq(bus.rvalid | bus.bvalid)
        with m.If(access.valid & access.ready):
            with m.If(outside):
                m.d.sync += [access.done.eq(1), access.error.eq(1)]
            with m.Else():
                m.d.sync += [
                    busy.eq(1),
                    address.eq(access.address),
                    bus.wdata.eq(access.data),
                    bus.awvalid.eq(access.write),
                    bus.wvalid.eq(access.write),
                    bus.arvalid.eq(~access.write),
                ]
        with m.If(bus.rvalid):
            m.d.sync += [busy.eq(0), access.result.eq(bus.rdata), access.error.eq(bus.rresp[1])]
        with m.If(bus.bvalid):
            m.d.sync += [busy.eq(0), access.error.eq(bus.bresp[1])]
        return m


class WishbonePort(wiring.Component):
    """Registers behind classic Wishbone, which has no errors here.

    Attributes:
        access: In From the transfer.
        bus: Out The registers.
    """

    def __init__(self) -> None:
        super().__init__({"access": In(RegisterAccess()), "bus": Out(Wishbone())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        access, bus = self.access, self.bus
        m.d.comb += [access.ready.eq(~bus.cyc), bus.stb.eq(bus.cyc)]
        m.d.sync += access.done.eq(bus.cyc & bus.ack)
        with m.If(access.valid & access.ready):
            m.d.sync += [
                bus.cyc.eq(1),
                bus.adr.eq(access.address),
                bus.dat_w.eq(access.data),
                bus.we.eq(access.write),
            ]
        with m.Elif(bus.ack):
            m.d.sync += [bus.cyc.eq(0), access.result.eq(bus.dat_r)]
        return m
