"""The pipelined adder tree over the table entries of a word, with taps for words that hold several rows."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import bits_for, exact_log2

from sterna.spec.config import HardwareConfig
from sterna_hw.lanes.blocks import ranks
from sterna_hw.lanes.tables import TABLE_WIDTH, entries_shape


def tree_depth(config: HardwareConfig) -> int:
    """Levels, and cycles, of the adder tree."""
    return exact_log2(config.word_bytes)


def segment_sums(config: HardwareConfig) -> Signature:
    """The sums of a word of each kind: ``rank_r`` has ``2**r`` sums, of ``word_bytes / 2**r`` table entries each."""
    depth = tree_depth(config)
    return Signature(
        {
            f"rank_{rank}": Out(data.ArrayLayout(signed(TABLE_WIDTH + depth - rank), 1 << rank))
            for rank in range(ranks(config))
        }
    )


class AdderTree(wiring.Component):
    """Sums neighbours level by level, one register a level; a level is one bit wider than the one before, so exact.

    ``sums`` belong to the ``entries`` of :func:`tree_depth` cycles with ``enable`` before; all ranks come out
    together (the taps of rank r leave the tree r levels early and are delayed by as much). Segment p of rank r
    covers entries ``p * s`` to ``p * s + s - 1`` with ``s = word_bytes / 2**r``. Only the sums of the word's own rank
    come out, the others are zero: ``rank`` is that of the word whose sums come in the next cycle with ``enable``.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {
                "enable": In(1),
                "rank": In(bits_for(ranks(config) - 1)),
                "entries": In(entries_shape(config)),
                "sums": Out(segment_sums(config)),
            },
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        depth = tree_depth(self._config)
        nodes = [self.entries[group] for group in range(self._config.word_bytes)]
        for level in range(depth + 1):
            rank = depth - level
            if level:
                pairs = enumerate(zip(nodes[0::2], nodes[1::2], strict=True))
                nodes = [
                    self._register(m, left + right, f"level_{level}_{n}", None if rank else 0)
                    for n, (left, right) in pairs
                ]
            if rank < ranks(self._config):
                self._tap(m, rank, nodes)
        return m

    def _tap(self, m: Module, rank: int, nodes: list[Signal]) -> None:
        """Put ``nodes`` out, delayed by ``rank`` cycles."""
        for number, node in enumerate(nodes):
            delayed = node
            for age in range(rank):
                delayed = self._register(m, delayed, f"rank_{rank}_{number}_{age}", rank if age == rank - 1 else None)
            m.d.comb += getattr(self.sums, f"rank_{rank}")[number].eq(delayed)

    def _register(self, m: Module, value: Value, name: str, rank: int | None) -> Signal:
        """``value`` a cycle later, or zero unless the word is of ``rank``."""
        register = Signal(value.shape(), name=name, reset_less=True)
        with m.If(self.enable):
            m.d.sync += register.eq(value if rank is None else Mux(self.rank == rank, value, 0))
        return register
