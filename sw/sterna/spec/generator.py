"""Trits that are computed from their address: the weights of fixed projections (docs/reservoir.md, "The generator")."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sterna.spec.packing import CODES, PLACE_VALUES, TRITS_PER_BYTE

__all__ = [
    "BLOCK_BYTES",
    "KINDS",
    "PARITY",
    "ROTATIONS",
    "ROUNDS",
    "ROUNDS_PER_INJECTION",
    "SURPLUS",
    "fixed_beta",
    "fixed_rows",
    "stream",
    "threefry",
]

ROUNDS = 13  # the fewest that pass every statistical test of the paper
BLOCK_BYTES = 8  # bytes of trits from one counter
KINDS = ("f", "i", "g", "o", "gate", "down")  # the position is the low part of a stream's number
SURPLUS = 128  # taken from the bytes that are no code: 243..255 become 115..127, symmetric about five zeros
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
ROUNDS_PER_INJECTION = 4
_CHUNK = 1 << 17  # bytes made at a time: what is between the rounds stays in the processor's cache

Words = npt.NDArray[np.uint32]


def threefry(key: tuple[int, int], counter: tuple[Words, Words], *, rounds: int = ROUNDS) -> tuple[Words, Words]:
    """Threefry-2x32 (Salmon et al., SC 2011): two words of 32 bits for each pair of counter words.

    Args:
        key: Two words.
        counter: Two uint32 arrays that broadcast.
        rounds: Rotations; the key is injected after every fourth.
    """
    keys = [np.uint32(word) for word in (*key, key[0] ^ key[1] ^ PARITY)]
    low, high = np.broadcast_arrays(*counter)
    low, high = low + keys[0], high + keys[1]
    for index in range(rounds):
        distance = np.uint32(ROTATIONS[index % len(ROTATIONS)])
        low = low + high
        high = ((high << distance) | (high >> np.uint32(32 - int(distance)))) ^ low
        if index % ROUNDS_PER_INJECTION == ROUNDS_PER_INJECTION - 1:
            injection = index // ROUNDS_PER_INJECTION + 1
            low = low + keys[injection % 3]
            high = high + keys[(injection + 1) % 3] + np.uint32(injection)
    return low, high


def stream(kind: str, layer: int, *, shared: bool) -> int:
    """Number of the stream that a projection takes its trits from; shared streams do not depend on the layer."""
    return KINDS.index(kind) + (0 if shared else 8 * (layer + 1))


def fixed_rows(seed: int, stream: int, rows: range, columns: int) -> npt.NDArray[np.uint8]:
    """Packed trits of a fixed projection, uint8 [len(rows), ceil(columns / 5)]."""
    groups = -(-columns // TRITS_PER_BYTE)
    codes = np.empty((len(rows), groups), np.uint8)
    step = max(1, _CHUNK // groups)
    for start in range(0, len(rows), step):
        codes[start : start + step] = _code_bytes(seed, stream, rows[start : start + step], groups)
    surplus = groups * TRITS_PER_BYTE - columns
    if surplus:
        kept = PLACE_VALUES[TRITS_PER_BYTE - surplus]
        codes[:, -1] = codes[:, -1] % kept + sum(PLACE_VALUES[TRITS_PER_BYTE - surplus :])
    return codes


def _code_bytes(seed: int, stream: int, rows: range, groups: int) -> npt.NDArray[np.uint8]:
    """Trit codes of whole groups, uint8 [len(rows), groups]."""
    block = np.arange(-(-groups // BLOCK_BYTES), dtype=np.uint32)[None, :]
    row = np.arange(rows.start, rows.stop, rows.step, dtype=np.uint32)[:, None]
    low, high = threefry((seed, stream), (block, row))
    codes = np.stack([low, high], axis=-1).astype("<u4").view(np.uint8).reshape(len(rows), -1)[:, :groups]
    return np.where(codes < CODES, codes, codes - np.uint8(SURPLUS))


def fixed_beta(columns: int) -> float:
    """Scale of a fixed projection, exactly a float32: unit variance out for unit variance in, a third of trits zero."""
    return float(np.float32(math.sqrt(3 / (2 * columns))))
