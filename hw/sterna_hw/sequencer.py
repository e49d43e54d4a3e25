"""The sequencer: runs a token's descriptors one at a time, straight from the memory stream."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import isa
from sterna.spec.config import HardwareConfig
from sterna.spec.isa import Opcode, RowOp
from sterna.spec.registers import ErrorCause, Stall
from sterna_hw.interfaces import (
    MemoryWrite,
    generator_job,
    lanes_job,
    row_job,
    segment,
    slot_mode,
    token_request,
    vector_job,
    word_shape,
    word_stream,
)
from sterna_hw.segments import TokenSegments

DRY_CYCLES = 4  # of an idle stream without a word, after which none is on its way; WeightStream takes 3 at most


def descriptor_layout() -> data.StructLayout:
    """The fields of a descriptor, as the specification lays them out."""
    return data.StructLayout({f.name: signed(f.width) if f.signed else unsigned(f.width) for f in isa.FIELDS})


class Sequencer(wiring.Component):
    """Decodes descriptors, steers payload words, starts the units' jobs and waits for them.

    A descriptor costs ``descriptor_words`` cycles to fetch, one to decode, and its unit's time. END waits until the
    logits are written. Words left in the stream are an error, found now or in the next cycles, while idle. A prefix of
    a program ends as by END when the stream is dry after a descriptor.

    The first cause of an error stays until reset, and no token is taken any more. An illegal descriptor or token stops
    at once; what a unit reports lets it run on, but the token does not end.

    Attributes:
        request: In(stream) Run a token; ready while idle, never after an error.
        words: In The memory stream: descriptors and payloads.
        segment: Out What the weight stream reads: the embedding rows, then the program.
        modes: Out What each slot does in the token.
        load: Out Parameter memory, a word at a time.
        embed_words, embed_job: Out To ``EmbeddingRows``.
        lanes_words, lanes_job: Out To ``TernaryLanes``; ``lanes_full`` says that it takes words of a full block.
        generator_job: Out To ``WeightGenerator``, if the build has one.
        generated_words: In Its words, which the lanes take instead of the stream's while they take full blocks and
            ``generating`` says that words of the job are left.
        rows_job: Out To the slots' epilogues, ``fresh`` left to them; ``rows_done`` its end.
        vector_job: Out To ``VectorUnit``; ``vector_done`` its end.
        embedding: Out High while rows come from the embedding, not from the lanes.
        embed_slots: Out Whose rows these are: those of the first EMBED of a token are the first slot's that is not
            idle, and so on; if there are more of them, all slots'.
        scores_start: Out One cycle before the first logit: clears the sampler, when the descriptor says ``first``.
        stream_idle, stream_error, writer_idle, writer_error, bad_trit: In Reports of the units.
        done: Out One cycle when a token has ended well.
        error: Out The cause, 0 while all is well; sticky until reset.
        busy: Out From the accepted request until ``done`` or an error.
        vector_stall, lanes_stall: In What these units are doing.
        writer_stall: In A logit waits to be taken.
        stall: Out What the core is doing, should the memory have nothing to do in this cycle.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {
                "request": In(stream.Signature(token_request(config))),
                "words": In(word_stream(config)),
                "segment": Out(stream.Signature(segment(config))),
                "modes": Out(data.ArrayLayout(slot_mode(config), config.slots)),
                "load": Out(MemoryWrite(config.param_depth // config.params_per_word, word_shape(config))),
                "embed_words": Out(word_stream(config)),
                "embed_job": Out(stream.Signature(data.StructLayout({"count": 16}))),
                "lanes_words": Out(word_stream(config)),
                "lanes_job": Out(stream.Signature(lanes_job())),
                "lanes_full": In(1),
                "generator_job": Out(stream.Signature(generator_job())),
                "generated_words": In(word_stream(config)),
                "generating": In(1),
                "rows_job": Out(stream.Signature(row_job())),
                "rows_done": In(1),
                "vector_job": Out(stream.Signature(vector_job())),
                "vector_done": In(1),
                "embedding": Out(1),
                "embed_slots": Out(config.slots),
                "scores_start": Out(1),
                "stream_idle": In(1),
                "stream_error": In(1),
                "writer_idle": In(1),
                "writer_error": In(1),
                "bad_trit": In(1),
                "done": Out(1),
                "error": Out(ErrorCause),
                "busy": Out(1),
                "vector_stall": In(Stall),
                "lanes_stall": In(Stall),
                "writer_stall": In(1),
                "stall": Out(Stall),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        descriptor = Signal(descriptor_layout())
        collected = Signal(config.descriptor_words * config.word_bytes * 8)
        fetched = Signal(range(config.descriptor_words))
        remaining = Signal(16)
        request = Signal(token_request(config))
        m.d.comb += descriptor.as_value().eq(collected)
        m.d.comb += [
            self.embed_words.payload.eq(self.words.payload),
            self.load.data.eq(self.words.payload),
        ]
        self._connect_jobs(m, descriptor)
        m.submodules.segments = segments = TokenSegments(config=config)
        wiring.connect(m, segments.segment, wiring.flipped(self.segment))
        active = Cat(~mode.idle for mode in self.request.payload.modes)
        m.d.comb += [segments.request.eq(request), segments.slots.eq(active), self.modes.eq(request.modes)]

        waits_for_word = Signal()
        dry = Signal(range(DRY_CYCLES + 1))  # cycles for which a word was waited for and none can be on its way
        reported = Signal(ErrorCause)  # by a unit, in this cycle
        m.d.comb += self.stall.eq(Stall.FETCH)
        generated = Signal()  # the lanes take their words from the generator
        m.d.comb += [
            generated.eq(self.generating & self.lanes_full),
            self.lanes_words.payload.eq(Mux(generated, self.generated_words.payload.as_value(), self.words.payload)),
        ]
        ended = Signal()  # the stream, after a descriptor of a prefix
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += self.request.ready.eq(1)
                with m.If(self.words.valid):
                    self._fail(m, ErrorCause.STREAM_END)
                with m.Elif(self.request.valid):
                    m.d.comb += segments.start.eq(1)
                    m.d.sync += request.eq(self.request.payload)
                    m.next = "FETCH"
            with m.State("FETCH"):
                m.d.comb += [self.words.ready.eq(1), waits_for_word.eq(1)]
                m.d.comb += ended.eq(request.prefix & (fetched == 0) & (dry == DRY_CYCLES))
                with m.If(ended):
                    m.next = "END"
                with m.If(self.words.valid):
                    m.d.sync += collected.eq(Cat(collected, self.words.payload)[config.word_bytes * 8 :])
                    m.d.sync += fetched.eq(fetched + 1)
                    with m.If(fetched == config.descriptor_words - 1):
                        m.d.sync += fetched.eq(0)
                        m.next = "DECODE"
            with m.State("DECODE"):
                m.d.sync += remaining.eq(descriptor.count)
                m.d.sync += self.load.address.eq(descriptor.target >> (config.params_per_word.bit_length() - 1))
                self._decode(m, descriptor)
            with m.State("LOAD"):
                m.d.comb += [self.words.ready.eq(1), waits_for_word.eq(1), self.load.enable.eq(self.words.valid)]
                m.d.comb += self.stall.eq(Stall.LOAD)
                with m.If(self.words.valid):
                    m.d.sync += [remaining.eq(remaining - 1), self.load.address.eq(self.load.address + 1)]
                    with m.If(remaining == 1):
                        m.next = "FETCH"
            with m.State("EMBED"):
                m.d.comb += [
                    waits_for_word.eq(self.embed_words.ready),
                    self.embed_words.valid.eq(self.words.valid),
                    self.words.ready.eq(self.embed_words.ready),
                    self.stall.eq(Stall.EMBED),
                ]
                with m.If(self.rows_done):
                    m.next = "FETCH"
            with m.State("MATMUL"):
                m.d.comb += self.stall.eq(Mux(self.writer_stall, Stall.WRITER, self.lanes_stall))
                with m.If(generated):
                    m.d.comb += [
                        self.lanes_words.valid.eq(self.generated_words.valid),
                        self.generated_words.ready.eq(self.lanes_words.ready),
                    ]
                with m.Else():
                    m.d.comb += [
                        waits_for_word.eq(self.lanes_words.ready),
                        self.lanes_words.valid.eq(self.words.valid),
                        self.words.ready.eq(self.lanes_words.ready),
                    ]
                with m.If(self.rows_done):
                    m.next = "FETCH"
            with m.State("VECTOR"):
                m.d.comb += self.stall.eq(self.vector_stall)
                with m.If(self.vector_done):
                    m.next = "FETCH"
            with m.State("END"):
                m.d.comb += self.stall.eq(Mux(self.writer_idle, Stall.END, Stall.WRITER))
                well = (reported == ErrorCause.NONE) & (self.error == ErrorCause.NONE)
                with m.If(self.words.valid):
                    self._fail(m, ErrorCause.STREAM_END)
                with m.Elif(self.stream_idle & self.writer_idle & well & ~segments.asking):
                    m.d.comb += self.done.eq(1)
                    m.next = "IDLE"
            with m.State("FAILED"):
                pass
        m.d.comb += self.embedding.eq(fsm.ongoing("EMBED"))
        m.d.comb += self.busy.eq(~self.request.ready & (self.error == ErrorCause.NONE))
        with m.If(~waits_for_word | ~self.stream_idle | segments.asking | self.words.valid):
            m.d.sync += dry.eq(0)
        with m.Elif(dry != DRY_CYCLES):
            m.d.sync += dry.eq(dry + 1)
        self._watch(m, reported, segments.bad_token, waits_for_word & (dry == DRY_CYCLES) & ~ended)
        self._choose_slots(m, fsm.ongoing("IDLE"), active)
        return m

    def _choose_slots(self, m: Module, idle: Value, active: Value) -> None:
        """Which slots the EMBED that runs, or comes next, is for."""
        left = Signal(self._config.slots)  # slots that have not had their row
        chosen = Signal(self._config.slots)
        m.d.comb += [chosen.eq(left & -left), self.embed_slots.eq(Mux(left.any(), chosen, ~0))]
        with m.If(idle):
            m.d.sync += left.eq(active)
        with m.Elif(self.embedding & self.rows_done):
            m.d.sync += left.eq(left & ~chosen)

    def _decode(self, m: Module, descriptor: data.View) -> None:
        """DECODE: start the unit of the opcode, unless the descriptor is illegal (``isa.is_legal``)."""
        opcode = descriptor.opcode
        most = descriptor.blocks if self._config.generator else 0
        has_rows = (opcode == Opcode.MATMUL) | (opcode == Opcode.EMBED)
        with m.If((descriptor.count == 0) & (opcode != Opcode.END)):
            self._fail(m, ErrorCause.BAD_OPCODE)
        with m.Elif(has_rows & (descriptor.row_op >= len(RowOp))):
            self._fail(m, ErrorCause.BAD_OPCODE)
        with m.Elif((opcode == Opcode.MATMUL) & ((descriptor.blocks == 0) | (descriptor.generated > most))):
            self._fail(m, ErrorCause.BAD_OPCODE)
        with m.Else():
            self._start(m, descriptor)

    def _start(self, m: Module, descriptor: data.View) -> None:
        with m.Switch(descriptor.opcode):
            with m.Case(Opcode.LOAD):
                m.next = "LOAD"
            with m.Case(Opcode.EMBED):
                m.d.sync += [self.embed_job.valid.eq(1), self.rows_job.valid.eq(1)]
                m.next = "EMBED"
            with m.Case(Opcode.SUMSQ, Opcode.QUANT):
                m.d.sync += self.vector_job.valid.eq(1)
                m.next = "VECTOR"
            with m.Case(Opcode.MATMUL):
                m.d.sync += [self.lanes_job.valid.eq(1), self.rows_job.valid.eq(1)]
                m.d.sync += self.generator_job.valid.eq(descriptor.generated != 0)
                m.d.comb += self.scores_start.eq(descriptor.first & (descriptor.row_op == RowOp.LOGIT))
                m.next = "MATMUL"
            with m.Case(Opcode.END):
                m.next = "END"
            with m.Default():
                self._fail(m, ErrorCause.BAD_OPCODE)

    def _connect_jobs(self, m: Module, descriptor: data.View) -> None:
        """Jobs are the descriptor's fields; ``valid`` is set by DECODE and falls when the unit takes the job."""
        for job in (self.embed_job, self.rows_job, self.lanes_job, self.generator_job, self.vector_job):
            with m.If(job.valid & job.ready):
                m.d.sync += job.valid.eq(0)
        m.d.comb += [
            self.embed_job.payload.count.eq(descriptor.count),
            self.lanes_job.payload.rows.eq(descriptor.count),
            self.lanes_job.payload.blocks.eq(descriptor.blocks),
            self.lanes_job.payload.tails.eq(descriptor.tails),
            self.generator_job.payload.seed.eq(descriptor.eps_const),
            self.generator_job.payload.stream.eq(descriptor.eps_mantissa),
            self.generator_job.payload.row.eq(descriptor.scale_mantissa),
            self.generator_job.payload.rows.eq(descriptor.count),
            self.generator_job.payload.blocks.eq(descriptor.generated),
            self.rows_job.payload.row_op.eq(descriptor.row_op),
            self.vector_job.payload.quantise.eq(descriptor.opcode == Opcode.QUANT),
        ]
        for name in ("first", "source", "target", "param", "state", "shift"):
            m.d.comb += self.rows_job.payload[name].eq(descriptor[name])
        for name in vector_job().members:
            if name != "quantise":
                m.d.comb += self.vector_job.payload[name].eq(descriptor[name])

    def _watch(self, m: Module, reported: Signal, bad_token: Value, starved: Value) -> None:
        """Errors that units report while a token runs."""
        with m.If(bad_token):
            m.d.comb += reported.eq(ErrorCause.BAD_TOKEN)
        with m.Elif(self.stream_error):
            m.d.comb += reported.eq(ErrorCause.BUS_READ)
        with m.Elif(self.writer_error):
            m.d.comb += reported.eq(ErrorCause.BUS_WRITE)
        with m.Elif(self.bad_trit):
            m.d.comb += reported.eq(ErrorCause.BAD_TRIT)
        with m.Elif(starved):
            m.d.comb += reported.eq(ErrorCause.STREAM_END)
        with m.If(self.busy & (reported != ErrorCause.NONE)):
            m.d.sync += self.error.eq(reported)

    def _fail(self, m: Module, cause: ErrorCause) -> None:
        with m.If(self.error == ErrorCause.NONE):  # what a bad read brings may look like a bad descriptor
            m.d.sync += self.error.eq(cause)
        m.next = "FAILED"
