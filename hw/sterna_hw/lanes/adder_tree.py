"""The pipelined adder tree over the table entries of a word, with taps for words that hold several rows."""

from __future__ import annotations

from amaranth import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import exact_log2

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
    covers entries ``p * s`` to ``p * s + s - 1`` with ``s = word_bytes / 2**r``.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {"enable": In(1), "entries": In(entries_shape(config)), "sums": Out(segment_sums(config))},
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        depth = tree_depth(self._config)
        nodes = [self.entries[group] for group in range(self._config.word_bytes)]
        with m.If(self.enable):
            for level in range(depth + 1):
                if level:
                    pairs = zip(nodes[0::2], nodes[1::2], strict=True)
                    nodes = []
                    for number, (left, right) in enumerate(pairs):
                        node = Signal(signed(TABLE_WIDTH + level), name=f"level_{level}_{number}")
                        m.d.sync += node.eq(left + right)
                        nodes.append(node)
                rank = depth - level
                if rank < ranks(self._config):
                    self._tap(m, rank, nodes)
        return m

    def _tap(self, m: Module, rank: int, nodes: list[Signal]) -> None:
        """Delay ``nodes`` by ``rank`` cycles and put them out."""
        for number, node in enumerate(nodes):
            delayed = node
            for age in range(rank):
                previous, delayed = delayed, Signal(node.shape(), name=f"rank_{rank}_{number}_{age}")
                m.d.sync += delayed.eq(previous)
            m.d.comb += getattr(self.sums, f"rank_{rank}")[number].eq(delayed)
