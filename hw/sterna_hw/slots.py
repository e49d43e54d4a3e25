"""The slots of a build, in step: the same jobs, the same weights, a sequence each, or a chain of tokens of one."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.hdl import ShapeLike
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.isa import RowOp
from sterna.spec.registers import Stall
from sterna_hw.epilogue import CARRY_LATENCY
from sterna_hw.interfaces import (
    MemoryRead,
    exchange_signature,
    logit,
    row_job,
    row_sum,
    row_values,
    slot_mode,
    vector_job,
    word_shape,
)
from sterna_hw.slot import SlotCore


class Delay(wiring.Component):
    """``o`` is what ``i`` was ``cycles`` cycles ago; a ring in memory. Anything comes out in the first ``cycles``."""

    def __init__(self, shape: ShapeLike, *, cycles: int) -> None:
        if cycles < 2:
            raise ValueError(f"cycles must be at least 2, not {cycles!r}")
        self._shape, self._depth = shape, cycles - 1  # reading takes the last cycle
        super().__init__({"i": In(shape), "o": Out(shape)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ring = ring = memory.Memory(shape=self._shape, depth=self._depth, init=[])
        write, read = ring.write_port(), ring.read_port()
        place = Signal(range(self._depth))
        m.d.sync += place.eq(Mux(place == self._depth - 1, 0, place + 1))
        m.d.comb += [
            write.en.eq(1),
            write.addr.eq(place),
            write.data.eq(self.i),
            read.addr.eq(place),
            self.o.eq(read.data),
        ]
        return m


class Slots(wiring.Component):
    """All slots behind the interface of one.

    Every slot runs every job, idle ones too: nothing takes longer in one than in another, so slot 0 speaks for all
    where it addresses what they share, and state banks. EMBED is the exception: only the slots of ``embed_slots`` run
    it.

    A chained slot goes on from the new state of the slot before, h = f * h_before + ..., which is there
    ``CARRY_LATENCY`` cycles after the rows of both have come to that product. So in a RECUR of a token with a chained
    slot, slot k gets its rows ``k * CARRY_LATENCY`` cycles late, and with them the old state where it is not chained.
    That is all it costs: ``chain_cycles``.

    Old states are read for all slots in the same cycle, of a row before any slot writes it: states may change places in
    any way, and more than one slot may go on from the same.

    Attributes:
        modes: In What each slot does; constant during a token.
        embedding, embed_slots: In Rows come from the embedding, and for which slots.
        rows_job, rows, rows_done: Of the epilogues; ``fresh`` of the job is not used.
        vector_job, vector_done, vector_stall: Of the vector units.
        bounds, params: Out Reads of parameter memory.
        activations: In Reads of activations, all slots side by side.
        logits: Out(stream) Results of LOGIT.
        saturated: Out How many slots' rows of this cycle were clamped.
        trace_valid, trace_values: Out A row result in a slot; idle ones have none.
        exchange: Out Of the vector unit of the only slot, in a build with clusters.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        width, count = config.vector_width, config.slots
        params = data.ArrayLayout(unsigned(numerics.PARAM_WIDTH), width)
        words = data.ArrayLayout(word_shape(config), count)
        super().__init__(
            {
                "modes": In(data.ArrayLayout(slot_mode(config), count)),
                "embedding": In(1),
                "embed_slots": In(count),
                "rows_job": In(stream.Signature(row_job())),
                "rows": In(stream.Signature(row_sum(config))),
                "rows_done": Out(1),
                "vector_job": In(stream.Signature(vector_job())),
                "vector_done": Out(1),
                "vector_stall": Out(Stall),
                "bounds": Out(MemoryRead(config.param_depth, numerics.PARAM_WIDTH)),
                "params": Out(MemoryRead(config.param_depth // width, params)),
                "activations": In(MemoryRead(config.activation_depth // config.word_bytes, words)),
                "logits": Out(stream.Signature(logit(config))),
                "saturated": Out(range(count + 1)),
                "trace_valid": Out(count),
                "trace_values": Out(row_values(config)),
                **({"exchange": Out(exchange_signature(config))} if config.clusters > 1 else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count = self._config.slots
        slots = [SlotCore(config=self._config) for _ in range(count)]
        for number, slot in enumerate(slots):
            m.submodules[f"slot_{number}"] = slot
            self._share(m, slot, number)
        first, last = slots[0], slots[-1]
        recurs = Signal()  # the job is a RECUR
        late = Signal()  # slots get their rows one after the other
        if count > 1:
            with m.If(self.rows_job.valid & self.rows_job.ready):
                m.d.sync += recurs.eq(self.rows_job.payload.row_op == RowOp.RECUR)
            m.d.comb += late.eq(recurs & Cat(mode.chained & ~mode.idle for mode in self.modes).any())
        m.d.comb += [
            self.rows_job.ready.eq(last.rows_job.ready),
            self.rows.ready.eq(Mux(late, first.rows.ready, Cat(slot.rows.ready for slot in slots).any())),
            self.rows_done.eq(Mux(late, last.rows_done, Cat(slot.rows_done for slot in slots).any())),
            self.vector_job.ready.eq(first.vector_job.ready),
            self.vector_done.eq(first.vector_done),
            self.vector_stall.eq(first.vector_stall),
            *(getattr(self, port).address.eq(getattr(first, port).address) for port in ("bounds", "params")),
            *(getattr(self, port).enable.eq(getattr(first, port).enable) for port in ("bounds", "params")),
            self.logits.valid.eq(first.logits.valid),
            self.logits.payload.last.eq(first.logits.payload.last),
            self.saturated.eq(sum(slot.saturated for slot in slots)),
            self.trace_valid.eq(Cat(slot.committed for slot in slots)),
        ]
        if self._config.clusters > 1:
            wiring.connect(m, first.exchange, wiring.flipped(self.exchange))
        self._feed(m, slots, late)
        self._connect_states(m, slots, recurs, late)
        return m

    def _share(self, m: Module, slot: SlotCore, number: int) -> None:
        """What comes from outside, the same for each slot, and what goes there."""
        mode, started = self.modes[number], ~self.embedding | self.embed_slots[number]
        m.d.comb += [
            slot.active.eq(~mode.idle),
            slot.rows_job.valid.eq(self.rows_job.valid & started),
            slot.rows_job.payload.eq(self.rows_job.payload),
            slot.rows_job.payload.fresh.eq(mode.fresh),
            slot.vector_job.valid.eq(self.vector_job.valid),
            slot.vector_job.payload.eq(self.vector_job.payload),
            slot.bounds.data.eq(self.bounds.data),
            slot.params.data.eq(self.params.data),
            slot.activations.address.eq(self.activations.address),
            slot.activations.enable.eq(self.activations.enable),
            self.activations.data[number].eq(slot.activations.data),
            slot.logits.ready.eq(self.logits.ready),
            self.logits.payload["values"][number].eq(slot.logits.payload["values"][0]),
            self.trace_values[number].eq(slot.result[0]),
        ]

    def _feed(self, m: Module, slots: list[SlotCore], late: Signal) -> None:
        """Rows to the slots: at once, or one slot after the other."""
        started = Cat(~self.embedding | chosen for chosen in self.embed_slots)
        accepted = Signal((len(slots) - 1) * CARRY_LATENCY)  # bit n: a row came n + 1 cycles ago, all slots late
        ends = Signal.like(accepted)  # and it was the last
        taken = late & self.rows.valid & self.rows.ready
        m.d.sync += [accepted.eq(Cat(taken, accepted)), ends.eq(Cat(self.rows.payload.last, ends))]
        for number, slot in enumerate(slots):
            rows, total = slot.rows, self.rows.payload.sums[number]
            m.d.comb += [
                rows.valid.eq(self.rows.valid & started[number]),
                rows.payload.last.eq(self.rows.payload.last),
                rows.payload.sums[0].eq(total),
            ]
            if number == 0:
                continue
            cycles = number * CARRY_LATENCY
            m.submodules[f"row_delay_{number}"] = delay = Delay(total.shape(), cycles=cycles)
            m.d.comb += delay.i.eq(total)
            with m.If(late):
                m.d.comb += [
                    rows.valid.eq(accepted[cycles - 1]),
                    rows.payload.last.eq(ends[cycles - 1]),
                    rows.payload.sums[0].eq(delay.o),
                ]

    def _connect_states(self, m: Module, slots: list[SlotCore], recurs: Signal, late: Signal) -> None:
        """The state that each slot goes on from."""
        states = Array(slot.bank.data for slot in slots)
        for number, slot in enumerate(slots):
            mode, state = self.modes[number], slot.bank.data
            m.d.comb += [slot.bank.address.eq(slots[0].state.address), slot.bank.enable.eq(slots[0].state.enable)]
            if len(slots) > 1:
                state = Signal.like(slot.bank.data, name=f"state_{number}")
                # OUTGATE wants the new state, which is in the slot's own bank.
                moved = mode.moved & recurs
                m.d.comb += state.eq(Mux(moved, states[mode.source].as_value(), slot.bank.data.as_value()))
            m.d.comb += slot.state.data.eq(state)
            if number == 0:
                continue
            m.submodules[f"state_delay_{number}"] = delay = Delay(state.shape(), cycles=number * CARRY_LATENCY)
            m.d.comb += [
                delay.i.eq(state),
                slot.carry.eq(slots[number - 1].result),
                slot.chained.eq(mode.chained),
            ]
            with m.If(late):
                m.d.comb += slot.state.data.eq(delay.o)


def chain_cycles(slots: int) -> int:
    """Cycles that a RECUR takes longer in a token with a chained slot."""
    return (slots - 1) * CARRY_LATENCY
