"""One memory port for the accelerator and the host."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna_hw.axi import AXI4Read, AXI4Write

MAX_BURSTS = 255  # of the accelerator in flight; many more than any configuration has


class MemoryMux(wiring.Component):
    """Hands the memory to the host while the accelerator has no burst in flight.

    Args:
        address_width, data_bytes: Of all three ports.

    Attributes:
        accelerator, host: In AXI4. The accelerator's addresses wait while ``claimed``.
        bus: Out The memory.
        free: Out The accelerator neither has a burst in flight nor offers one.
        claimed: In The memory is the host's; only after ``free`` and while it has work for it.
    """

    def __init__(self, *, address_width: int, data_bytes: int) -> None:
        read, write = AXI4Read(address_width, data_bytes), AXI4Write(address_width, data_bytes)
        signature = wiring.Signature({**dict(read.members), **dict(write.members)})
        super().__init__(
            {
                "accelerator": In(signature),
                "host": In(signature),
                "bus": Out(signature),
                "free": Out(1),
                "claimed": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        accelerator, host, bus = self.accelerator, self.host, self.bus
        for name, member in bus.signature.members.items():
            ours, theirs, out = getattr(accelerator, name), getattr(host, name), getattr(bus, name)
            if member.flow is Out:
                m.d.comb += out.eq(Mux(self.claimed, theirs, ours))
            elif name.endswith(("ready", "valid")):
                m.d.comb += [ours.eq(out & ~self.claimed), theirs.eq(out & self.claimed)]
            else:
                m.d.comb += [ours.eq(out), theirs.eq(out)]
        bursts = Signal(range(MAX_BURSTS + 1))
        begun = [bus.arvalid & bus.arready & ~self.claimed, bus.awvalid & bus.awready & ~self.claimed]
        ended = [bus.rvalid & bus.rready & bus.rlast & ~self.claimed, bus.bvalid & bus.bready & ~self.claimed]
        m.d.sync += bursts.eq(bursts + begun[0] + begun[1] - ended[0] - ended[1])
        m.d.comb += self.free.eq((bursts == 0) & ~accelerator.arvalid & ~accelerator.awvalid)
        return m
