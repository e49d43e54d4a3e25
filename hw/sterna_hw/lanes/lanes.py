"""The ternary lanes: takes packed words, one a cycle, and gives the row sums of a tile."""

from __future__ import annotations

from itertools import pairwise

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from sterna.spec.config import HardwareConfig
from sterna.spec.registers import Stall
from sterna_hw.interfaces import MemoryRead, lanes_job, row_sum, word_shape, word_stream
from sterna_hw.lanes.adder_tree import AdderTree, tree_depth
from sterna_hw.lanes.blocks import BlockBuilder, build_cycles, column_block, ranks
from sterna_hw.lanes.partial_sums import REUSE_DISTANCE, SUM_STAGES, PartialSums, word_tag
from sterna_hw.lanes.select_add import SelectAdd
from sterna_hw.lanes.tables import SumTables

TABLE_STAGES = 3  # word register; then table and its output register, or selection and sum
BAD_TRIT = TABLE_STAGES + 1  # cycles from the transfer of a word that holds a byte that is no code to bad_trit


def first_word(config: HardwareConfig) -> int:
    """Cycles from the transfer of a job to the first cycle with ``words.ready``."""
    return build_cycles(config) + 1


def pipeline_depth(config: HardwareConfig) -> int:
    """Cycles from the transfer of a word of the last block to its row on ``rows`` (nothing stalling)."""
    return TABLE_STAGES + tree_depth(config) + SUM_STAGES + 1


def job_cycles(config: HardwareConfig, rows: int, blocks: int, tails: int) -> int:
    """Cycles from the transfer of a job to ``done``, when neither words nor rows ever stall; exact.

    The first build takes :func:`build_cycles`. Each block but the last then takes one cycle a word and the gap that few
    words need (see :class:`TernaryLanes`), or :func:`build_cycles` if the next one is not built by then. The last block
    takes a cycle a row, the pipeline and one cycle for ``done``.
    """
    build = build_cycles(config)
    sizes = [-(-rows // (2 << bit)) for bit in range(ranks(config) - 1) if tails >> bit & 1] + [rows] * blocks
    cycles = build + rows + pipeline_depth(config) + 1
    for size, following in pairwise(sizes):
        apart = REUSE_DISTANCE - 1 if min(size, following) < REUSE_DISTANCE else 0
        cycles += max(build, size + apart)
    return cycles


class TernaryLanes(wiring.Component):
    """Row sums of a tile: ``sum over columns of trit * activation``, without a multiplier (docs/gateware.md).

    Ports:
        job: rows (1 to ``tile_rows``), full blocks (at least 1), tail blocks; ready while idle.
        words: packed trits in stream order; ready only in a cycle in which a word of the running job is taken, and
            from registers alone, so there is no path from ``rows.ready``.
        activations: rows of ``word_bytes`` activations a slot, read while blocks are built. They must not change
            until the last block is built, so not before ``done``.
        rows: the sums of rows 0, 1, … of the tile, ``last`` on the final one; 24 bits (see ``PartialSums``).
        bad_trit: a word of a job held a byte that is no trit code; rises BAD_TRIT = 4 cycles after the
            word's transfer, nothing stalling, and stays until reset.
        done: high for one cycle, the one after the transfer of the last row; ``job.ready`` is high again in that cycle.
        full: the words that are taken are those of a full block, not of a tail block.
        stall: what the lanes are doing: TABLES from the offer of a job until its first word may come and wherever words
            wait for a build, LANES while they may come, DRAIN after the last word.

    Timing: the first word is taken :func:`first_word` cycles after the job, further words one a cycle. Blocks start at
    least :func:`build_cycles` apart, since the next one is built meanwhile. There is no other gap between blocks, but
    where a row would be read before it was written. With tables of sums a job of fewer than about ``REUSE_DISTANCE *
    max_rows_per_word`` rows lets the pipeline drain between blocks (the build takes longer anyway); without them, two
    blocks of which one has fewer than REUSE_DISTANCE words are three cycles apart. A row is out
    :func:`pipeline_depth` = 6 + log2(word_bytes) cycles after its word; :func:`job_cycles` is the whole.

    While ``rows`` is stalled, two rows wait at the end of the pipeline; with the second of them there the pipeline
    stands still and ``words.ready`` is low.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        activations = data.ArrayLayout(word_shape(config), config.slots)
        super().__init__(
            {
                "job": In(stream.Signature(lanes_job())),
                "words": In(word_stream(config)),
                "activations": Out(MemoryRead(config.activation_depth // config.word_bytes, activations)),
                "rows": Out(stream.Signature(row_sum(config))),
                "bad_trit": Out(1),
                "done": Out(1),
                "full": Out(1),
                "stall": Out(Stall),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        config = self._config
        m = Module()
        m.submodules.builder = builder = BlockBuilder(config=config)
        advance = Signal()  # the pipeline moves in this cycle
        empty = Signal()  # no word is where its rows are not yet written for the next

        # Control: which block streams, and how many of its words are still to come.
        block = Signal(column_block(config))
        last_row = Signal(range(config.tile_rows))
        left = Signal(last_row.shape())  # words after this one
        short = Signal()  # of two blocks one may be so short that a row comes again too soon
        take = Signal()
        word_taken = Signal()
        following = builder.blocks.payload.rank
        higher = Mux(block.rank > following, block.rank, following)
        fewest_words = exact_log2(config.max_rows_per_word) if config.sum_tables else higher
        m.d.comb += [
            short.eq((last_row >> fewest_words) < REUSE_DISTANCE - 1),
            builder.job.payload.eq(self.job.payload),
            builder.blocks.ready.eq(take),
            word_taken.eq(self.words.valid & self.words.ready),
            self.full.eq(block.rank == 0),
        ]
        m.d.sync += self.done.eq(0)
        m.d.comb += self.stall.eq(Stall.DRAIN)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.job.ready.eq(1), builder.job.valid.eq(self.job.valid)]
                m.d.sync += last_row.eq(self.job.payload.rows - 1)
                with m.If(self.job.valid):
                    m.d.comb += self.stall.eq(Stall.TABLES)
                    m.next = "WAIT"
            with m.State("WAIT"):
                m.d.comb += self.stall.eq(Stall.TABLES)
                m.d.comb += take.eq(builder.blocks.valid & (~short | empty))
                with m.If(take):
                    m.next = "STREAM"
            with m.State("STREAM"):
                m.d.comb += [self.words.ready.eq(advance), self.stall.eq(Stall.LANES)]
                with m.If(word_taken):
                    m.d.sync += left.eq(left - 1)
                    with m.If(left == 0):
                        m.d.comb += take.eq(builder.blocks.valid & ~short)
                        with m.If(block.final):
                            m.next = "FINISH"
                        with m.Elif(~take):
                            m.next = "WAIT"
            with m.State("FINISH"), m.If(self.rows.valid & self.rows.ready & self.rows.payload.last):
                m.d.sync += self.done.eq(1)
                m.next = "IDLE"
        with m.If(take):
            m.d.sync += [block.eq(builder.blocks.payload), left.eq(last_row >> builder.blocks.payload.rank)]

        # The word register, and the tag beside the word down to the row sums.
        word = Signal(word_shape(config))
        half = Signal()
        tags = [Signal(word_tag(config), name=f"tag_{stage}") for stage in range(TABLE_STAGES - 1 + tree_depth(config))]
        with m.If(advance):
            m.d.sync += [
                word.eq(self.words.payload),
                half.eq(block.half),
                tags[0].valid.eq(word_taken),
                tags[0].rank.eq(block.rank),
                tags[0].fresh.eq(block.fresh),
                tags[0].final.eq(block.final),
                tags[0].end.eq(left == 0),
            ]
            m.d.sync += [tag.eq(previous) for previous, tag in pairwise(tags)]

        # The data path, once a slot.
        m.d.comb += [self.activations.address.eq(builder.address), self.activations.enable.eq(builder.enable)]
        sums_of_five = SumTables if config.sum_tables else SelectAdd
        sums = []
        for slot in range(config.slots):
            m.submodules[f"tables_{slot}"] = tables = sums_of_five(config=config)
            m.submodules[f"tree_{slot}"] = tree = AdderTree(config=config)
            m.submodules[f"partial_sums_{slot}"] = partial_sums = PartialSums(config=config)
            m.d.comb += [
                tables.step.eq(builder.step),
                tables.activations.eq(self.activations.data[slot]),
                tables.enable.eq(advance),
                tables.half.eq(half),
                tables.word.eq(word),
                tree.enable.eq(advance),
                tree.rank.eq(tags[-1].rank),
                tree.entries.eq(tables.entries),
                partial_sums.enable.eq(advance),
                partial_sums.tag.eq(tags[-1]),
            ]
            wiring.connect(m, tree.sums, partial_sums.sums)
            sums.append(partial_sums)
            if slot == 0:  # all have the same word
                with m.If(tags[TABLE_STAGES - 1].valid & ~tables.valid):
                    m.d.sync += self.bad_trit.eq(1)
        if config.sum_tables:
            m.d.comb += empty.eq(~(Cat(tag.valid for tag in tags).any() | sums[0].busy))
        else:  # nothing stands still before the last block
            m.d.comb += empty.eq(~Cat(tag.valid for tag in tags[: REUSE_DISTANCE - 2]).any())

        # The end: an output register, and one to hold the row that was under way when the output stalled.
        row, held = Signal(row_sum(config)), Signal(row_sum(config))
        holding = Signal()
        m.d.comb += [row.sums[slot].eq(sums[slot].row.sum) for slot in range(config.slots)]
        m.d.comb += [row.last.eq(sums[0].row.last), advance.eq(~holding)]
        with m.If(self.rows.ready | ~self.rows.valid):
            m.d.sync += [self.rows.valid.eq(holding | sums[0].row.valid), holding.eq(0)]
            with m.If(holding):
                m.d.sync += self.rows.payload.eq(held)
            with m.Else():
                m.d.sync += self.rows.payload.eq(row)
        with m.Elif(~holding):
            m.d.sync += [held.eq(row), holding.eq(sums[0].row.valid)]
        return m
