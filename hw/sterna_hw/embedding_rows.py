"""Embedding elements as row sums: stream words in, one element a cycle out."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import row_sum, word_stream


def embedding_cycles(count: int) -> int:
    """Cycles from the transfer of a job of ``count`` rows to its ``done`` (first cycle 0), when nothing stalls."""
    return count + 2 if count else 1


class EmbeddingRows(wiring.Component):
    """Unpacks 16-bit signed little-endian elements into row sums (sign-extended to 24 bits), the same for every slot.

    Takes ``ceil(count / params_per_word)`` words and drops what is left of the last one. One row a cycle, the first
    in the cycle after its word was taken.

    Attributes:
        job: In(stream) Rows to make, ``count``; ready while idle.
        words: In(stream) Words of the memory stream, the first element in the lowest bytes.
        rows: Out(stream) The rows; ``last`` on the final one.
        done: Out One cycle, the cycle after the last row was taken (or after a job of no rows).
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {
                "job": In(stream.Signature(data.StructLayout({"count": 16}))),
                "words": In(word_stream(config)),
                "rows": Out(stream.Signature(row_sum(config))),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width, per_word = numerics.PARAM_WIDTH, self._config.params_per_word
        remaining = Signal(16)  # rows still to make
        held = Signal(range(per_word + 1))  # elements left in the word, the next in its lowest bits
        word = Signal(per_word * width)
        taken, needed = Signal(), Signal()

        m.d.comb += [
            self.rows.valid.eq(held.any()),
            self.rows.payload.last.eq(remaining == 1),
            taken.eq(self.rows.valid & self.rows.ready),
            needed.eq(remaining > held),  # a word more, now or after this one
            self.words.ready.eq(needed & (~held.any() | ((held == 1) & self.rows.ready))),
            self.job.ready.eq(~remaining.any()),
        ]
        for slot in range(self._config.slots):
            m.d.comb += self.rows.payload.sums[slot].eq(word[:width].as_signed())
        m.d.sync += self.done.eq(taken & (remaining == 1))
        with m.If(taken):
            m.d.sync += [remaining.eq(remaining - 1), held.eq(held - 1), word.eq(word >> width)]
        with m.If(self.words.valid & self.words.ready):
            m.d.sync += [word.eq(self.words.payload), held.eq(per_word)]
        with m.If(taken & (remaining == 1)):
            m.d.sync += held.eq(0)
        with m.If(self.job.valid & self.job.ready):
            m.d.sync += [remaining.eq(self.job.payload.count), self.done.eq(~self.job.payload.count.any())]
        return m
