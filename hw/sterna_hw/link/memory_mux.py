"""One memory port for the accelerator and the host."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna_hw.axi import AXI4Read, AXI4Write
from sterna_hw.link.skid import Skid

MAX_BURSTS = 255  # of the accelerator in flight; many more than any configuration has


class MemoryMux(wiring.Component):
    """Hands the memory to the host while the accelerator has no burst in flight.

    Addresses reach the memory a cycle late, through registers in both directions: whether a controller takes one is
    known late in its cycle.

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
        accelerator, host, bus = self.accelerator, self.host, self.bus.signature.create(path=("chosen",))
        self._connect_memory(m, bus)
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

    def _connect_memory(self, m: Module, chosen: wiring.PureInterface) -> None:
        """``chosen`` to the memory."""
        others = set(self.bus.signature.members)
        for channel in ("ar", "aw"):
            valid, ready = f"{channel}valid", f"{channel}ready"
            fields = {
                name: member.shape
                for name, member in self.bus.signature.members.items()
                if name.startswith(channel) and name not in (valid, ready)
            }
            m.submodules[channel] = skid = Skid(data.StructLayout(fields))
            m.d.comb += [
                skid.i.valid.eq(getattr(chosen, valid)),
                getattr(chosen, ready).eq(skid.i.ready),
                getattr(self.bus, valid).eq(skid.o.valid),
                skid.o.ready.eq(getattr(self.bus, ready)),
                *(skid.i.payload[name].eq(getattr(chosen, name)) for name in fields),
                *(getattr(self.bus, name).eq(skid.o.payload[name]) for name in fields),
            ]
            others -= {valid, ready, *fields}
        for name, member in self.bus.signature.members.items():
            if name in others:
                ours, theirs = getattr(self.bus, name), getattr(chosen, name)
                m.d.comb += ours.eq(theirs) if member.flow is Out else theirs.eq(ours)
