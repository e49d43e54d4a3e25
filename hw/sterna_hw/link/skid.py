"""A register in a stream, in both of its directions."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Skid(wiring.Component):
    """Cuts the paths through a stream: a queue of two places in registers.

    A transfer leaves a cycle after it was taken at the earliest, and one can be taken in every cycle. ``o.ready``,
    which may come late, has only the three bits of the queue's state to reach.

    Args:
        shape: Of the payload.

    Attributes:
        i: In
        o: Out Once valid, a payload stays until it is taken.
    """

    def __init__(self, shape: object) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i, o = self.i, self.o
        even, odd = Signal.like(i.payload, name="even"), Signal.like(i.payload, name="odd")
        write, read = Signal(), Signal()  # which of the two is next
        level = Signal(range(3))
        push, pop = Signal(), Signal()
        m.d.comb += [
            i.ready.eq(level != 2),
            o.valid.eq(level != 0),
            o.payload.eq(Mux(read, odd, even)),
            push.eq(i.valid & i.ready),
            pop.eq(o.valid & o.ready),
        ]
        with m.If(push & ~write):
            m.d.sync += even.eq(i.payload)
        with m.If(push & write):
            m.d.sync += odd.eq(i.payload)
        m.d.sync += [write.eq(write ^ push), read.eq(read ^ pop), level.eq(level + push - pop)]
        return m
