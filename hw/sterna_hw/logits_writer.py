"""Writes the logits of a token to memory as they leave the epilogue."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna_hw.axi import AXI4Write, Burst, burst_size
from sterna_hw.interfaces import logit

MAX_BURST_BEATS = 16  # a power of two; 16 beats of 128 bytes still fit 4 KiB
MAX_UNANSWERED = 7  # bursts


class LogitsWriter(wiring.Component):
    """Sign-extends logits to 32 bits and writes them to consecutive addresses.

    Values gather in beats and beats in INCR bursts of at most 16, cut at multiples of that length (so never across
    4 KiB) and after a value with ``last``; strobes leave out the bytes of a beat that hold no new value. A value after
    ``last`` continues at the next address, also within the same beat, so a vocabulary may come in several jobs.
    A burst goes out when all its beats are there. A value of 32 bits follows the other; those of several slots
    come one after the other from ``LogitsSerialiser``, so this is built for one slot.

    A value is taken every cycle unless the memory falls behind by two bursts, or a burst closes while the address of
    the one before has not been taken. Latency: ``awvalid`` rises 2 cycles after the cycle of the value that closes the
    burst, ``wvalid`` with it or a cycle later.

    Args:
        config: Gives ``beat_bytes`` (at least 4), ``address_width`` and ``burst_beats``.

    Attributes:
        start: In Takes over ``address`` and ``enable`` and clears ``error``; only while ``idle``.
        address: In Byte address of the first logit; a multiple of the beat (lower bits are ignored).
        enable: In Whether values are written. If not they are swallowed, one a cycle; so they are before any ``start``.
        values: In The logits in order.
        flush: In Abandon the token: finish the burst begun, swallow values until the next ``start``. Hold it until
            ``idle``.
        bus: Out The memory.
        idle: Out Every value taken is written and answered.
        error: Out A burst was answered with an error response. Stays high until ``start``.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "address": In(config.address_width),
                "enable": In(1),
                "values": In(stream.Signature(logit(config))),
                "flush": In(1),
                "bus": Out(AXI4Write(config.address_width, config.beat_bytes)),
                "idle": Out(1),
                "error": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Packer, then a buffer of two bursts; addresses and data go out on their own."""
        m = Module()
        config, bus = self._config, self.bus
        beat_bits = exact_log2(config.beat_bytes)
        per_beat = config.beat_bytes // numerics.LOGIT_BYTES
        burst_beats = min(MAX_BURST_BEATS, 1 << (config.burst_beats.bit_length() - 1))

        # Packer: one beat is filled; `full` hands it to the buffer and closes the burst if `last`.
        enabled = Signal()
        index = Signal(range(per_beat))  # where the next value goes
        words = [Signal(8 * numerics.LOGIT_BYTES, name=f"word_{i}") for i in range(per_beat)]
        strobes = Signal(per_beat)  # values in the beat
        full, last = Signal(), Signal()
        push, closes = Signal(), Signal()

        address = Signal(config.address_width - beat_bits)  # of the beat, in beats
        advance = Signal()  # the beat has its last value; the next one is at the next address
        first = Signal.like(address)  # of the burst
        count = Signal(range(burst_beats))  # beats of the burst already in the buffer

        unanswered = Signal(range(MAX_UNANSWERED + 1))
        sendable = Signal(range(2 * burst_beats + 1))  # buffered beats that belong to a closed burst
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=8 * config.beat_bytes + per_beat + 1, depth=2 * burst_beats)

        at_end = (address & (burst_beats - 1)) == burst_beats - 1
        may_close = ~bus.awvalid & (unanswered != MAX_UNANSWERED)
        m.d.comb += [
            closes.eq(last | (advance & at_end)),
            push.eq(full & fifo.w_rdy & (~closes | may_close)),
            self.values.ready.eq(~enabled | ~full | push),
            fifo.w_data.eq(Cat(words, strobes, closes)),
            fifo.w_en.eq(push),
        ]

        with m.If(bus.awready):
            m.d.sync += bus.awvalid.eq(0)
        with m.If(push):
            m.d.sync += [
                full.eq(0),
                strobes.eq(0),
                count.eq(count + 1),
                address.eq(address + advance),
                advance.eq(0),
            ]
            with m.If(closes):
                m.d.sync += [
                    bus.awaddr.eq(first << beat_bits),
                    bus.awlen.eq(count),
                    bus.awvalid.eq(1),
                    first.eq(address + advance),
                    count.eq(0),
                ]

        with m.If(self.flush):
            m.d.sync += enabled.eq(0)
            with m.If(~full & ((count != 0) | (strobes != 0))):
                m.d.sync += [full.eq(1), last.eq(1)]  # a beat without strobes if need be
        with m.Elif(enabled & self.values.valid & self.values.ready):
            value = self.values.payload.values[0]
            for i, word in enumerate(words):
                with m.If(index == i):
                    m.d.sync += [word.eq(value), strobes.eq(Mux(full, 0, strobes) | 1 << i)]
            done = index == per_beat - 1
            m.d.sync += [
                index.eq(index + 1),
                last.eq(self.values.payload.last),
                full.eq(done | self.values.payload.last),
                advance.eq(done),
            ]

        m.d.comb += [
            bus.awsize.eq(burst_size(config.beat_bytes)),
            bus.awburst.eq(Burst.INCR),
            Cat(bus.wdata, strobes_out := Signal(per_beat), bus.wlast).eq(fifo.r_data),
            bus.wstrb.eq(Cat(bit.replicate(numerics.LOGIT_BYTES) for bit in strobes_out)),
            bus.wvalid.eq(fifo.r_rdy & (sendable != 0)),
            fifo.r_en.eq(bus.wready & (sendable != 0)),
            bus.bready.eq(1),
            self.idle.eq(~full & (strobes == 0) & (fifo.level == 0) & (unanswered == 0)),
        ]
        closed = Signal.like(sendable)
        with m.If(push & closes):
            m.d.comb += closed.eq(count + 1)
        m.d.sync += [
            sendable.eq(sendable + closed - (bus.wvalid & bus.wready)),
            unanswered.eq(unanswered + (push & closes) - bus.bvalid),
        ]
        with m.If(bus.bvalid & bus.bresp[1]):
            m.d.sync += self.error.eq(1)
        with m.If(self.start):
            m.d.sync += [
                enabled.eq(self.enable),
                address.eq(self.address[beat_bits:]),
                first.eq(self.address[beat_bits:]),
                index.eq(0),
                self.error.eq(0),
            ]
        return m
