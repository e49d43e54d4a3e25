"""The floating-point types of checkpoints and how their bits become float32.

NumPy has no bfloat16: such tensors travel as ``uint16`` bit patterns beside their type's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError

FloatArray = npt.NDArray[np.float32]

# Type names of the safetensors format: the array that holds the bits, and its NumPy type in the file.
CONTAINERS: dict[str, np.dtype[Any]] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
}
FLOATS = ("BF16", "F16", "F32")
LONG_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
SHORT_NAMES = {long: short for short, long in LONG_NAMES.items()}
BLOCK_ELEMENTS = 1 << 20  # elements converted at a time: bounds the memory that streaming takes


def to_float32(bits: npt.NDArray[Any], dtype: str) -> FloatArray:
    """Upcast an array of type ``dtype`` ("BF16" as uint16 bits, "F16", "F32") to float32: exact, any shape."""
    if dtype == "BF16":
        return np.asarray((bits.astype(np.uint32) << 16).view(np.float32))
    if dtype in FLOATS:
        return np.asarray(bits, np.float32)
    raise SternaError(f"{dtype} is not a floating-point type that can be imported; save the tensor as one of {FLOATS}")


def float_blocks(bits: npt.NDArray[Any], dtype: str, name: str) -> Iterator[FloatArray]:
    """Upcast ``bits`` [rows, ...] block by block of whole rows, at most about 2**20 elements each.

    Raises:
        SternaError: a value is NaN or infinite; the sentence names the tensor and the place.
    """
    rows = bits.shape[0]
    step = max(1, BLOCK_ELEMENTS // max(1, bits[:1].size))
    for start in range(0, rows, step):
        block = to_float32(bits[start : start + step], dtype)
        finite = np.isfinite(block)
        if not finite.all():
            first = [int(axis[0]) for axis in np.nonzero(~finite)]
            value = block[tuple(first)]
            first[0] += start
            raise SternaError(
                f"tensor {name} holds {value} at {first}: the checkpoint is damaged or its training diverged"
            )
        yield block
