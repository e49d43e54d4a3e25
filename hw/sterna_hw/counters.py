"""What a token cost: cycles, beats, starved cycles, saturations."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class TokenCounters(wiring.Component):
    """Counts from ``start`` (cleared) while ``busy``; values stand still after the token.

    Attributes:
        start: In One cycle, with the accepted START.
        busy: In High while the token runs; each such cycle counts.
        beat, starved, saturated: In One event a cycle each.
        finished: In One cycle when a token ends well.
        cycles: Out(64), read_beats, starved_cycles, saturations: Out(32) Of the token.
        tokens: Out(32) Finished since reset.
    """

    start: In(1)
    busy: In(1)
    beat: In(1)
    starved: In(1)
    saturated: In(1)
    finished: In(1)
    cycles: Out(64)
    read_beats: Out(32)
    starved_cycles: Out(32)
    saturations: Out(32)
    tokens: Out(32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.tokens.eq(self.tokens + self.finished)
        events = (
            (self.read_beats, self.beat),
            (self.starved_cycles, self.starved),
            (self.saturations, self.saturated),
        )
        with m.If(self.start):
            # The cycle of START itself counts.
            m.d.sync += [self.cycles.eq(1), *(counter.eq(0) for counter, _ in events)]
        with m.Elif(self.busy):
            m.d.sync += self.cycles.eq(self.cycles + 1)
            m.d.sync += [counter.eq(counter + event) for counter, event in events]
        return m
