"""Several links to one endpoint."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec.link import FLAG

STALL_BITS = 24  # 2**24 cycles, 0.2 s at 75 MHz


class LinkSelect(wiring.Component):
    """The link on which a flag came last while the endpoint listened has its ear; replies go there.

    What comes on the others is dropped up to their next flag. A frame that another link's flag interrupts is lost, as
    one on a bad cable; hosts are expected to take turns. A reply that a link does not take for 2**``stall_bits`` cycles
    is dropped, so that a host that went away does not block the others.

    Attributes:
        received0, received1, …: In Bytes from the links.
        sent0, sent1, …: Out Bytes to the links; an offered byte is withdrawn only when its reply is dropped.
        received, sent, restart, listening: To the ``Endpoint``'s ports of these names.
    """

    def __init__(self, *, links: int, stall_bits: int = STALL_BITS) -> None:
        if links < 2:
            raise ValueError(f"links must be at least 2, not {links!r}")
        self._links, self._stall_bits = links, stall_bits
        super().__init__(
            {
                **{f"received{i}": In(stream.Signature(8)) for i in range(links)},
                **{f"sent{i}": Out(stream.Signature(8)) for i in range(links)},
                "received": Out(stream.Signature(8)),
                "sent": In(stream.Signature(8)),
                "restart": Out(1),
                "listening": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        current = Signal(range(self._links))
        stalled = Signal(self._stall_bits)
        dropping = Signal()
        with m.If(self.listening):
            m.d.sync += dropping.eq(0)
        taken = Signal()  # by the link, if a byte was offered
        m.d.comb += self.sent.ready.eq(dropping | taken)
        m.d.sync += stalled.eq(0)
        with m.If(self.sent.valid & ~dropping & ~taken):
            m.d.sync += stalled.eq(stalled + 1)
            with m.If(stalled.all()):
                m.d.sync += dropping.eq(1)
        m.d.sync += self.restart.eq(0)
        for i in range(self._links):
            received, sent = getattr(self, f"received{i}"), getattr(self, f"sent{i}")
            m.d.comb += sent.payload.eq(self.sent.payload)
            with m.If(current == i):
                m.d.comb += [
                    self.received.payload.eq(received.payload),
                    self.received.valid.eq(received.valid & ~self.restart),
                    received.ready.eq(self.received.ready & ~self.restart),
                    sent.valid.eq(self.sent.valid & ~dropping),
                    taken.eq(sent.ready),
                ]
            with m.Elif(self.listening & received.valid):
                with m.If(received.payload == FLAG):
                    m.d.sync += [current.eq(i), self.restart.eq(1)]
                with m.Else():
                    m.d.comb += received.ready.eq(1)
        return m
