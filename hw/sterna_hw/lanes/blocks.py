"""The column blocks of a job in stream order, and the steps that build what one block needs: control, no data."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2, exact_log2

from sterna.spec import packing
from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import lanes_job

CODE_BITS = 8
TABLE_ADDRESS_BITS = CODE_BITS + 1  # the top bit is the half


def build_cycles(config: HardwareConfig) -> int:
    """Fewest cycles from the start of one block to the start of the next: 250 with tables of sums, else 7."""
    steps = len(_walk(config))
    return steps + 3 if config.sum_tables else steps + 2  # a table entry is written a cycle later than a register


def ranks(config: HardwareConfig) -> int:
    """Number of block kinds: a block of rank r has ``2**r`` rows a word; rank 0 is a full block."""
    return exact_log2(config.max_rows_per_word) + 1


def column_block(config: HardwareConfig) -> data.StructLayout:
    """A column block that is built: its tables are, or its activations are in registers."""
    return data.StructLayout(
        {
            "rank": bits_for(ranks(config) - 1),
            "half": 1,  # of what is built; changes from block to block
            "fresh": 1,  # the first of its job: sums start from zero
            "final": 1,  # the last of its job: rows leave
        }
    )


def build_step(config: HardwareConfig) -> data.StructLayout:
    """What every byte's table or registers do with the activation row that is on the memory's output in this cycle.

    A row is cut into ``max_rows_per_word`` units; unit u of the operand is unit ``start | (u & spread)`` of the row.
    That is the row itself for a full block, and one chunk repeated P times for a tail block.
    """
    units = ranks(config) - 1
    return data.StructLayout(
        {
            "valid": 1,  # add; else the running sum returns to zero
            "subtract": 1,
            "write": 1,  # the new running sum is an entry; without tables: a place is stored
            "address": TABLE_ADDRESS_BITS,
            "start": units,
            "spread": units,
        }
    )


_WALK_STEP = data.StructLayout({"code": CODE_BITS, "place": 3, "subtract": 1, "write": 1})


def _walk(config: HardwareConfig) -> list[dict[str, int]]:
    """The contents of the walk ROM: with tables, five subtractions make code 0, then a step a code; else the places."""
    places = range(packing.TRITS_PER_BYTE)
    if not config.sum_tables:
        return [{"code": 0, "place": place, "subtract": False, "write": True} for place in places]
    lead = [(place, True, 0) for place in places]
    return [
        {"code": code, "place": place, "subtract": subtract, "write": number >= len(lead) - 1}
        for number, (place, subtract, code) in enumerate(lead + packing.gray_walk())
    ]


class BlockBuilder(wiring.Component):
    """Goes through the column blocks of a job: tail blocks by rising rank, then full blocks; builds and offers each.

    A job is taken while the builder is idle, and the build starts in the next cycle. A build issues one step of the
    walk a cycle, 247 in all or 5 without tables; the ROM is read a step ahead. The step of cycle c has its activation
    address out in c, ``step`` in c+1 (with the activations), and its table entry is written in c+4, or its place
    stored in c+3. A block is offered on ``blocks`` two cycles before the last table entry is written, or one before
    the last place is stored: the words of the block must not reach the tables, nor ``half`` the registers, earlier than
    two cycles after it is taken. The next build starts the cycle after, in the other half. So blocks start at least
    :func:`build_cycles` apart.

    The activation rows of a block: with U = ``max_rows_per_word`` units in a row and ``stride`` = U / 2**rank, place k
    of a block starts at unit ``base + k * stride``; ``base`` grows by ``5 * stride`` a block and starts at 0 for full
    blocks and at ``5 * U * blocks``, the end of the full blocks, for tail blocks.

    Bits of ``tails`` beyond ``max_rows_per_word`` are ignored: the compiler never sets them. ``blocks`` is at least 1.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {
                "job": In(stream.Signature(lanes_job())),
                "blocks": Out(stream.Signature(column_block(config))),
                "address": Out(ceil_log2(config.activation_depth // config.word_bytes)),
                "enable": Out(1),
                "step": Out(build_step(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        top_rank = ranks(self._config) - 1
        job, offer = self.job.payload, self.blocks.payload

        steps = _walk(self._config)
        m.submodules.walk = walk = memory.Memory(shape=_WALK_STEP, depth=len(steps), init=steps)
        rom = walk.read_port()

        tails = Signal(max(top_rank, 1))  # blocks not yet taken, the current one included
        fulls = Signal(job.blocks.shape())
        base = Signal(len(self.address) + top_rank)
        rank = Signal(offer.rank.shape())
        rest = tails & (tails - 1)[: len(tails)]
        with m.If(tails == 0):
            m.d.comb += rank.eq(0)
        for bit in reversed(range(top_rank)):
            with m.If(tails[bit]):
                m.d.comb += rank.eq(bit + 1)

        place_offset = Signal(range(4 * (1 << top_rank) + 1))
        block_size = Signal(range(5 * (1 << top_rank) + 1))
        spread = Signal(top_rank)
        with m.Switch(rank):
            for value in range(top_rank + 1):
                shift = top_rank - value
                with m.Case(value):
                    m.d.comb += [
                        place_offset.eq(rom.data.place << shift),
                        block_size.eq(packing.TRITS_PER_BYTE << shift),
                        spread.eq((1 << shift) - 1),
                    ]

        index = Signal(range(build_cycles(self._config)))
        half = Signal(init=not self._config.sum_tables)  # without tables a change is what counts: from zero at reset
        fresh = Signal()
        stepping = Signal()
        m.d.comb += [
            rom.addr.eq(Mux(stepping, index + 1, 0)),
            offer.rank.eq(rank),
            offer.half.eq(half),
            offer.fresh.eq(fresh),
            offer.final.eq((tails == 0) & (fulls == 1)),
        ]
        with m.FSM():
            with m.State("IDLE"):
                tails_of_job = job.tails[:top_rank]
                end_of_fulls = (job.blocks + (job.blocks << 2)) << top_rank
                m.d.comb += self.job.ready.eq(1)
                m.d.sync += [
                    tails.eq(tails_of_job),
                    fulls.eq(job.blocks),
                    base.eq(Mux(tails_of_job == 0, 0, end_of_fulls)),
                    fresh.eq(1),
                ]
                with m.If(self.job.valid):
                    m.next = "BUILD"
            with m.State("BUILD"):
                m.d.comb += stepping.eq(index < len(steps))
                m.d.sync += index.eq(index + 1)
                with m.If(index == build_cycles(self._config) - 2):
                    m.next = "BUILT"
            with m.State("BUILT"):
                m.d.comb += self.blocks.valid.eq(1)
                m.d.sync += index.eq(0)
                with m.If(self.blocks.ready):
                    m.d.sync += [fresh.eq(0), half.eq(~half), base.eq(base + block_size)]
                    m.next = "BUILD"
                    with m.If(tails != 0):
                        m.d.sync += tails.eq(rest)
                        with m.If(rest == 0):
                            m.d.sync += base.eq(0)
                    with m.Else():
                        m.d.sync += fulls.eq(fulls - 1)
                        with m.If(fulls == 1):
                            m.next = "IDLE"

        start = Signal(len(base))
        m.d.comb += [start.eq(base + place_offset), self.address.eq(start >> top_rank), self.enable.eq(stepping)]
        m.d.sync += [
            self.step.valid.eq(stepping),
            self.step.subtract.eq(rom.data.subtract),
            self.step.write.eq(stepping & rom.data.write),
            self.step.address.eq(Cat(rom.data.code, half)),
            self.step.start.eq(start[:top_rank]),
            self.step.spread.eq(spread),
        ]
        return m
