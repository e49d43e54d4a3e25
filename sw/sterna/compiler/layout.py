"""How a matrix of trits becomes words of the stream: column blocks, tail blocks, tiles (docs/program.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sterna.spec.config import HardwareConfig
from sterna.spec.numerics import IntArray
from sterna.spec.packing import TRITS_PER_BYTE, ZERO_CODE, pack


@dataclass(frozen=True)
class ColumnBlocks:
    """How the columns of a projection are cut: ``blocks`` full ones, and tail blocks by the bits of ``tails``."""

    blocks: int
    tails: int

    @classmethod
    def of(cls, columns: int, config: HardwareConfig) -> ColumnBlocks:
        """The cut of ``columns`` with least padding: whole blocks, then halves, quarters ... of one."""
        blocks, rest = divmod(columns, config.lanes)
        most = config.max_rows_per_word
        units = -(-rest * most // config.lanes)  # tail width in the smallest segments
        if units == most or (units and not blocks):
            return cls(blocks + 1, 0)
        order = most.bit_length() - 1
        tails = sum(1 << i for i in range(order) if units >> (order - 1 - i) & 1)
        return cls(blocks, tails)

    def rows_per_word(self) -> list[int]:
        """Rows that share a word, for each tail block in stream order."""
        return [2 << i for i in range(self.tails.bit_length()) if self.tails >> i & 1]

    def columns(self, config: HardwareConfig) -> int:
        """Columns with padding; activation memory must hold as many."""
        return self.blocks * config.lanes + sum(config.lanes // rows for rows in self.rows_per_word())

    def words(self, rows: int) -> int:
        """Words of a tile of ``rows`` rows."""
        return self.blocks * rows + sum(-(-rows // shared) for shared in self.rows_per_word())


def generated_order(columns: int, config: HardwareConfig) -> IntArray:
    """Which column stands at each position for full blocks to be what the generator makes, int64 [columns].

    Byte g of a word holds positions g, L + g, … of its block, but five columns in a row of a generated matrix.
    """
    order = np.arange(columns)
    whole = columns - columns % config.lanes
    groups = order[:whole].reshape(-1, config.word_bytes, TRITS_PER_BYTE)
    order[:whole] = groups.transpose(0, 2, 1).reshape(-1)
    return order


def tile_words(trits: npt.NDArray[np.int8], config: HardwareConfig, *, generated: int = 0) -> npt.NDArray[np.uint8]:
    """The words of one tile in stream order.

    Args:
        trits: int8 [rows, columns], rows at most ``tile_rows``.
        config: The build that will read them.
        generated: Full blocks, from the first on, whose words are left out.

    Returns:
        uint8 [words, word_bytes].
    """
    rows, columns = trits.shape
    cut = ColumnBlocks.of(columns, config)
    padded = np.zeros((rows, cut.columns(config)), np.int8)
    padded[:, :columns] = trits
    parts = []
    base = cut.blocks * config.lanes
    for shared in cut.rows_per_word():
        width = config.lanes // shared
        segment = _bytes(padded[:, base : base + width])
        segment = np.pad(segment, [(0, -rows % shared), (0, 0)], constant_values=ZERO_CODE)
        parts.append(segment.reshape(-1, config.word_bytes))
        base += width
    parts += [_bytes(padded[:, b * config.lanes : (b + 1) * config.lanes]) for b in range(generated, cut.blocks)]
    return np.concatenate(parts) if parts else np.zeros((0, config.word_bytes), np.uint8)


def _bytes(segment: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Byte g of a segment of 5s columns holds columns g, s+g, 2s+g, 3s+g, 4s+g: [rows, 5s] to [rows, s]."""
    rows, columns = segment.shape
    grouped = segment.reshape(rows, TRITS_PER_BYTE, columns // TRITS_PER_BYTE).transpose(0, 2, 1)
    return pack(np.ascontiguousarray(grouped))[..., 0]
