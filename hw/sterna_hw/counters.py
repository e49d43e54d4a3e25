"""What a token cost: cycles, beats, saturations, and a reason for every cycle without a beat."""

from amaranth import Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec.registers import MAX_SLOTS, STALL_BITS, Stall


class TokenCounters(wiring.Component):
    """Counts from ``start`` (cleared) while ``busy``; values stand still after the token.

    Every counted cycle without a beat, that of ``start`` included, has exactly one reason, because the counters of the
    reasons are one memory with one write port::

        cycles == read_beats + sum of all stalls

    ``phase`` is the reason unless a read is under way: then it is STARTUP before the first beat of the token, RESTART
    before the first one after a cycle in which none was under way, else MEMORY. A reason is counted a cycle after the
    cycle that it explains.

    Attributes:
        start: In One cycle, with the accepted START.
        busy: In High while the token runs; each such cycle counts.
        beat: In One event a cycle.
        saturated: In Events of this cycle, one a slot.
        starved: In No beat, though a read is under way.
        phase: In What the core is doing.
        finished: In One cycle when a token ends well.
        cycles: Out(64), read_beats, saturations: Out(32) Of the token.
        tokens: Out(32) Finished since reset.
        stall: In Which reason ``stall_cycles`` shows.
        stall_cycles: Out(32) Cycles of the token with that reason, in the same cycle.
    """

    start: In(1)
    busy: In(1)
    beat: In(1)
    saturated: In(range(MAX_SLOTS + 1))
    starved: In(1)
    phase: In(Stall)
    finished: In(1)
    cycles: Out(64)
    read_beats: Out(32)
    saturations: Out(32)
    tokens: Out(32)
    stall: In(STALL_BITS)
    stall_cycles: Out(32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.tokens.eq(self.tokens + self.finished)
        events = ((self.read_beats, self.beat), (self.saturations, self.saturated))
        with m.If(self.start):
            # The cycle of START itself counts.
            m.d.sync += [self.cycles.eq(1), *(counter.eq(0) for counter, _ in events)]
        with m.Elif(self.busy):
            m.d.sync += self.cycles.eq(self.cycles + 1)
            m.d.sync += [counter.eq(counter + event) for counter, event in events]
        self._count_stalls(m, self._reason(m))
        return m

    def _reason(self, m: Module) -> Signal:
        """Why this cycle has no beat, if it has none."""
        begun = Signal()  # the token has had a beat
        rested = Signal()  # no read was under way, and no beat has come since
        with m.If(self.beat):
            m.d.sync += [begun.eq(1), rested.eq(0)]
        with m.Elif(~self.starved):
            m.d.sync += rested.eq(1)
        with m.If(self.start):
            m.d.sync += begun.eq(0)
        reason = Signal(Stall)
        with m.If(self.start | ~begun):
            m.d.comb += reason.eq(Stall.STARTUP)
        with m.Elif(self.starved):
            m.d.comb += reason.eq(Mux(rested, Stall.RESTART, Stall.MEMORY))
        with m.Else():
            m.d.comb += reason.eq(self.phase)
        return reason

    def _count_stalls(self, m: Module, why: Signal) -> None:
        # Registered: the reason comes late in its cycle, from whatever is stalling.
        reason, first, counts = Signal.like(why), Signal(), Signal()
        m.d.sync += [reason.eq(why), first.eq(self.start), counts.eq(self.start | (self.busy & ~self.beat))]
        m.submodules.stalls = stalls = memory.Memory(shape=32, depth=1 << STALL_BITS, init=[])
        write, counted, shown = stalls.write_port(), stalls.read_port(domain="comb"), stalls.read_port(domain="comb")
        used = Signal(1 << STALL_BITS)  # reasons that this token has had; the others count as zero
        before = Signal(32)
        m.d.comb += [
            counted.addr.eq(reason),
            before.eq(Mux(~first & used.bit_select(reason, 1), counted.data, 0)),
            write.addr.eq(reason),
            write.data.eq(before + 1),
            write.en.eq(counts),
            shown.addr.eq(self.stall),
            self.stall_cycles.eq(Mux(used.bit_select(self.stall, 1), shown.data, 0)),
        ]
        with m.If(first):
            m.d.sync += used.eq(1 << Stall.STARTUP)
        with m.Elif(write.en):
            m.d.sync += used.bit_select(reason, 1).eq(1)
