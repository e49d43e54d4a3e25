"""Trits: five to a byte, base 3 with digit = trit + 1, first trit in the lowest place (docs/program.md)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError

TRITS_PER_BYTE = 5
CODES = 3**TRITS_PER_BYTE  # 243 valid bytes; 243..255 are invalid
PLACE_VALUES = tuple(3**k for k in range(TRITS_PER_BYTE))
ZERO_CODE = sum(PLACE_VALUES)  # five zero trits: 121


def trit_bytes(count: int) -> int:
    """Bytes of ``count`` trits at five a byte, without any padding: what a token must read of them at least."""
    return -(-count // TRITS_PER_BYTE)


def code_table() -> npt.NDArray[np.int8]:
    """[243, 5] int8: the trits of each valid byte."""
    codes = np.arange(CODES)[:, None]
    table: npt.NDArray[np.int8] = (codes // np.array(PLACE_VALUES) % 3 - 1).astype(np.int8)
    return table


def pack(trits: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Pack ``[..., n]`` trits in -1..1 into ``[..., ceil(n/5)]`` bytes; the last byte is filled with zero trits."""
    if trits.size and (trits.min() < -1 or trits.max() > 1):
        raise SternaError("cannot pack: a weight is not -1, 0 or 1; quantise the tensor to trits first")
    *rows, columns = trits.shape
    groups = -(-columns // TRITS_PER_BYTE)
    padding = groups * TRITS_PER_BYTE - columns
    digits = np.pad(trits, [(0, 0)] * len(rows) + [(0, padding)]).astype(np.uint8) + np.uint8(1)
    grouped = digits.reshape(*rows, groups, TRITS_PER_BYTE)
    packed = grouped[..., 4]
    for place in (3, 2, 1, 0):  # Horner in 8 bits: the result is at most 242
        packed = packed * np.uint8(3) + grouped[..., place]
    return packed


def unpack(packed: npt.NDArray[np.uint8], count: int, dtype: npt.DTypeLike = np.int8) -> npt.NDArray[Any]:
    """Inverse of :func:`pack`: ``[..., ceil(count/5)]`` bytes to ``[..., count]`` trits of type ``dtype``.

    Raises:
        SternaError: a byte is not one of the 243 codes.
    """
    if packed.size and packed.max() >= CODES:
        byte = int(packed.max())
        raise SternaError(f"byte {byte} is no trit code (0..{CODES - 1}): the weights are corrupt, import again")
    *rows, groups = packed.shape
    # take() goes through the bytes three times as fast as indexing with them
    trits: npt.NDArray[Any] = code_table().astype(dtype).take(packed, axis=0)
    return trits.reshape(*rows, groups * TRITS_PER_BYTE)[..., :count]


def gray_walk() -> list[tuple[int, bool, int]]:
    """The order in which a table of sums is built: one addition or subtraction a step visits all 243 codes.

    Returns (place, subtract, code) steps: the first is preceded by the sum of code 0, i.e. minus all five
    activations; each step changes one trit by one, so the running sum changes by one activation.
    Reflected ternary Gray code.
    """
    digits, directions = [0] * TRITS_PER_BYTE, [1] * TRITS_PER_BYTE
    steps: list[tuple[int, bool, int]] = []
    while True:
        place = 0
        while place < TRITS_PER_BYTE and not 0 <= digits[place] + directions[place] <= 2:
            directions[place] = -directions[place]
            place += 1
        if place == TRITS_PER_BYTE:
            return steps
        digits[place] += directions[place]
        steps.append((place, directions[place] < 0, sum(d * v for d, v in zip(digits, PLACE_VALUES, strict=True))))
