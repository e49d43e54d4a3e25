"""The read DMA: segments of memory become one stream of words."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from sterna.spec.config import HardwareConfig
from sterna_hw.axi import BOUNDARY_BYTES, AXI4Read, Burst, burst_size
from sterna_hw.interfaces import segment, word_stream


class WeightStream(wiring.Component):
    """Reads segments over AXI4 ahead of the consumers and hands on their words in order.

    A segment is cut into INCR bursts of full beats, each as long as ``burst_beats``, the 4 KiB boundary and the end of
    the segment allow. A burst is asked for once the buffer has room for all of it (and of everything asked for
    before), with at most ``outstanding`` in flight, so ``rready`` is always high. Every two cycles a burst can be
    issued and a segment costs one cycle more: with bursts and segments of 4 beats and more, R can carry a beat a cycle
    without a gap, also across bursts and segments.

    Latency: ``arvalid`` rises 3 cycles after the cycle in which a segment is taken; ``words`` offers a word 2 cycles
    after the cycle of its last R beat (3 when a word has more than one beat).

    Args:
        config: Gives ``beat_bytes``, ``word_bytes``, ``address_width``, ``burst_beats``, ``outstanding`` and the depth
            of the buffer, ``prefetch_words``.

    Attributes:
        segment: In What to read next: whole words from the start of a beat; 0 beats are ignored. Ready when all bursts
            of the segment before have been issued, and not during a flush.
        bus: Out The memory.
        words: Out The words; the lowest beat is in the lowest bytes. An offered word is withdrawn only by ``flush``.
        flush: In Abandon everything: buffered words, the segment, beats in flight (swallowed as they arrive). Hold it
            until ``idle``.
        idle: Out No segment in progress and no beat outstanding; words may still be buffered.
        error: Out A beat came with an error response. Stays high until ``flush``; the data is passed on as it came.
        beat: Out High in each cycle in which an R beat is taken.
        starved: Out High in each cycle in which beats are outstanding, or the next burst is planned and has room, and
            no R beat arrives. So no beat arrives either because ``starved``, or because the buffer is full or all
            segments are read.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {
                "segment": In(stream.Signature(segment(config))),
                "bus": Out(AXI4Read(config.address_width, config.beat_bytes)),
                "words": Out(word_stream(config)),
                "flush": In(1),
                "idle": Out(1),
                "error": Out(1),
                "beat": Out(1),
                "starved": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Bursts are planned by one state machine; beats flow through the upsizer into the buffer unhindered."""
        m = Module()
        drop = Signal()  # everything that arrives is forgotten
        self._elaborate_bursts(m, drop)
        self._elaborate_words(m, drop)
        return m

    def _elaborate_bursts(self, m: Module, drop: Signal) -> None:
        config, bus = self._config, self.bus
        beat_bits = exact_log2(config.beat_bytes)
        boundary_beats = BOUNDARY_BYTES // config.beat_bytes
        capacity = config.prefetch_words * config.beats_per_word

        address = Signal(config.address_width - beat_bits)  # of the next burst, in beats
        remaining = Signal(32)  # beats of the segment not asked for yet
        burst = Signal(range(config.burst_beats + 1))  # beats of the next burst
        room = Signal(range(capacity + 1), init=capacity)  # beats of the buffer that nothing has a claim to
        beats = Signal(range(capacity + 1))  # asked for and not arrived
        bursts = Signal(range(config.outstanding + 1))  # of which the last beat has not arrived

        fits = Signal()
        issue = Signal()  # the next burst goes to AR
        word_left = Signal()
        last_beat = Signal()
        m.d.comb += [
            fits.eq((room >= burst) & (bursts != config.outstanding)),
            word_left.eq(self.words.valid & self.words.ready),
            last_beat.eq(bus.rvalid & bus.rlast),
            bus.arsize.eq(burst_size(config.beat_bytes)),
            bus.arburst.eq(Burst.INCR),
            bus.rready.eq(1),
            self.beat.eq(bus.rvalid),
        ]

        boundary = Signal(range(boundary_beats + 1))  # beats up to the 4 KiB boundary
        m.d.comb += boundary.eq(boundary_beats - address[: exact_log2(boundary_beats)])

        with m.If(bus.arready):
            m.d.sync += bus.arvalid.eq(0)

        with m.FSM(name="bursts") as fsm:
            with m.State("IDLE"):
                m.d.comb += self.segment.ready.eq(~self.flush)
                m.d.sync += [
                    address.eq(self.segment.payload.address[beat_bits:]),
                    remaining.eq(self.segment.payload.beats),
                ]
                with m.If(self.flush):
                    m.next = "DRAIN"
                with m.Elif(self.segment.valid & (self.segment.payload.beats != 0)):
                    m.next = "PLAN"
            with m.State("PLAN"):
                m.d.sync += burst.eq(config.burst_beats)
                with m.If((boundary < config.burst_beats) & (boundary <= remaining)):
                    m.d.sync += burst.eq(boundary)
                with m.Elif(remaining < config.burst_beats):
                    m.d.sync += burst.eq(remaining)
                m.next = "ISSUE"
                with m.If(self.flush):
                    m.next = "DRAIN"
            with m.State("ISSUE"):
                with m.If(self.flush):
                    m.next = "DRAIN"
                with m.Elif(fits & (~bus.arvalid | bus.arready)):
                    m.d.comb += issue.eq(1)
                    m.d.sync += [
                        bus.araddr.eq(address << beat_bits),
                        bus.arlen.eq(burst - 1),
                        bus.arvalid.eq(1),
                        address.eq(address + burst),
                        remaining.eq(remaining - burst),
                    ]
                    m.next = "PLAN"
                    with m.If(remaining == burst):
                        m.next = "IDLE"
            with m.State("DRAIN"), m.If(~self.flush & (beats == 0)):
                m.next = "IDLE"

        m.d.comb += [
            drop.eq(self.flush | fsm.ongoing("DRAIN")),
            self.idle.eq((beats == 0) & (fsm.ongoing("IDLE") | fsm.ongoing("DRAIN"))),
            self.starved.eq(~bus.rvalid & ~drop & ((beats != 0) | fsm.ongoing("PLAN") | (fsm.ongoing("ISSUE") & fits))),
        ]
        asked = Mux(issue, burst, 0)
        m.d.sync += [
            beats.eq(beats + asked - bus.rvalid),
            bursts.eq(bursts + issue - last_beat),
            room.eq(room - asked + (word_left << exact_log2(config.beats_per_word))),
        ]
        with m.If(drop):
            m.d.sync += [room.eq(capacity), self.error.eq(0)]
        with m.Elif(bus.rvalid & bus.rresp[1]):
            m.d.sync += self.error.eq(1)

    def _elaborate_words(self, m: Module, drop: Signal) -> None:
        config, bus = self._config, self.bus
        # A word more than the claims allow, for the output register; what is written always fits.
        fifo = SyncFIFOBuffered(width=8 * config.word_bytes, depth=config.prefetch_words + 1)
        m.submodules.fifo = ResetInserter(drop)(fifo)

        if config.beats_per_word == 1:
            m.d.comb += [fifo.w_data.eq(bus.rdata), fifo.w_en.eq(bus.rvalid)]
        else:
            index = Signal(range(config.beats_per_word))
            parts = [Signal(8 * config.beat_bytes, name=f"part_{i}") for i in range(config.beats_per_word)]
            complete = Signal()
            m.d.comb += [fifo.w_data.eq(Cat(parts)), fifo.w_en.eq(complete)]
            m.d.sync += complete.eq(bus.rvalid & (index == config.beats_per_word - 1))
            with m.If(bus.rvalid):
                m.d.sync += index.eq(index + 1)
                for i, part in enumerate(parts):
                    with m.If(index == i):
                        m.d.sync += part.eq(bus.rdata)
            with m.If(drop):
                m.d.sync += [index.eq(0), complete.eq(0)]

        m.d.comb += [
            self.words.payload.as_value().eq(fifo.r_data),
            self.words.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.words.ready),
        ]
