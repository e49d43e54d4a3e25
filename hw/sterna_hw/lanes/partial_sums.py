"""Row partial sums of a tile: each column block adds to them, the last one lets the rows leave."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna_hw.lanes.adder_tree import segment_sums
from sterna_hw.lanes.blocks import ranks

SUM_STAGES = 2  # from the segment sums of a word to its row
REUSE_DISTANCE = 4  # a row may be added to again this many cycles later


def word_tag(config: HardwareConfig) -> data.StructLayout:
    """What travels beside a word through the pipeline."""
    return data.StructLayout(
        {
            "valid": 1,
            "rank": bits_for(ranks(config) - 1),
            "fresh": 1,  # its block is the first of the job
            "final": 1,  # its block is the last of the job
            "end": 1,  # the last word of its block
        }
    )


def finished_row() -> data.StructLayout:
    """A row that leaves."""
    return data.StructLayout({"valid": 1, "sum": signed(numerics.ACC_WIDTH), "last": 1})


class PartialSums(wiring.Component):
    """``tile_rows`` sums of 24 bits for one slot, in ``max_rows_per_word`` banks: row r in bank r mod banks.

    Word w of a block of rank r adds its ``2**r`` segment sums to rows ``w * 2**r`` and up, each in a bank of its own;
    rows are counted here. 24 bits hold any row: at most 65535 columns of at most 128 each make less than ``2**23``.

    Timing, in cycles with ``enable`` (all is held while it is low): ``tag`` comes one cycle before the ``sums`` of its
    word and starts the read; the sums of the banks are chosen and registered in the cycle of ``sums``, added in
    the next, and in the one after (:data:`SUM_STAGES` after ``sums``) written back, or on ``row`` when the block is
    ``final``. A row is thus read three cycles before it is written, so it may come again no sooner than
    :data:`REUSE_DISTANCE` cycles later. ``busy`` is high while a tag is anywhere in here.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {
                "enable": In(1),
                "tag": In(word_tag(config)),
                "sums": In(segment_sums(config)),
                "row": Out(finished_row()),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        top_rank = ranks(self._config) - 1
        banks = 1 << top_rank
        depth = -(-self._config.tile_rows // banks)

        # Read.
        rows = Signal(ceil_log2(depth) + top_rank)
        step = Signal(range(banks + 1))
        m.d.comb += step.eq(1 << self.tag.rank)
        with m.If(self.enable & self.tag.valid):
            m.d.sync += rows.eq(Mux(self.tag.end, 0, rows + step))

        # Choose, add, write: a tag and a row number each.
        tags = [Signal(word_tag(self._config), name=f"tag_{stage}") for stage in ("choose", "add", "write")]
        numbers = [Signal(rows.shape(), name=f"row_{stage}") for stage in ("choose", "add", "write")]
        with m.If(self.enable):
            for stage, (tag, number) in enumerate(zip(tags, numbers, strict=True)):
                m.d.sync += tag.eq(tags[stage - 1] if stage else self.tag)
                m.d.sync += number.eq(numbers[stage - 1] if stage else rows)
        m.d.comb += self.busy.eq(self.tag.valid | tags[0].valid | tags[1].valid | tags[2].valid)

        written = tags[2]
        totals = []
        for bank in range(banks):
            store = memory.Memory(shape=signed(numerics.ACC_WIDTH), depth=depth, init=[])
            m.submodules[f"bank_{bank}"] = store
            write, read = store.write_port(), store.read_port()
            chosen = Signal(signed(len(self.sums.rank_0[0])), name=f"chosen_{bank}", reset_less=True)
            partial = Signal(signed(numerics.ACC_WIDTH), name=f"partial_{bank}", reset_less=True)
            total = Signal(signed(numerics.ACC_WIDTH), name=f"total_{bank}", reset_less=True)
            here = Signal(name=f"here_{bank}")  # the word in "choose" has a row of this bank
            mine = [Signal(name=f"mine_{bank}_{stage}") for stage in ("add", "write")]
            m.d.comb += [
                read.en.eq(self.enable),
                read.addr.eq(rows >> top_rank),
                write.en.eq(self.enable & written.valid & ~written.final & mine[1]),
                write.addr.eq(numbers[2] >> top_rank),
                write.data.eq(total),
            ]
            with m.Switch(tags[0].rank):
                for rank in range(top_rank + 1):
                    with m.Case(rank):
                        m.d.comb += here.eq(numbers[0][rank:top_rank] == bank >> rank)
            segments = [getattr(self.sums, f"rank_{rank}")[bank & ((1 << rank) - 1)] for rank in range(top_rank + 1)]
            with m.If(self.enable):
                m.d.sync += [
                    chosen.eq(reduce(or_, segments)),  # those of other ranks are zero
                    partial.eq(Mux(tags[0].fresh, 0, read.data)),
                    mine[0].eq(here),
                    mine[1].eq(mine[0]),
                    total.eq(Mux(mine[0], partial + chosen, 0)),
                ]
            totals.append(total)

        m.d.comb += [
            self.row.valid.eq(written.valid & written.final),
            self.row.sum.eq(reduce(or_, totals)),  # a final block has a row a word; the other banks are zero
            self.row.last.eq(written.end),
        ]
        return m
