"""Float weights to integers, once, at import: trits and beta, lower bounds, the embedding's binary point.

docs/model-format.md gives each formula.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sterna.model.dtypes import FloatArray
from sterna.spec.numerics import GATE_FRAC, PARAM_WIDTH

BETA_FLOOR = 1e-5
MAX_EMBEDDING_FRAC = 24


def absolute_mean(blocks: Iterable[FloatArray]) -> np.float32:
    """beta = max(mean|W|, 1e-5) of a tensor given as blocks [rows, columns], rounded once to float32.

    Each row is summed in float64 and the row sums are added without any rounding, so the result does not depend on
    how the tensor is cut into blocks.
    """
    sums: list[float] = []
    count = 0
    for block in blocks:
        sums.extend(np.abs(block).sum(axis=-1, dtype=np.float64).tolist())
        count += block.size
    return np.float32(max(math.fsum(sums) / count, BETA_FLOOR))


def ternarise(weights: FloatArray, beta: np.float32) -> npt.NDArray[np.int8]:
    """T = clamp(round_half_even(W / beta), -1, 1) as int8, same shape.

    A quotient rounds to zero exactly when |W| <= beta/2 (the tie goes to the even 0) and every other one clamps to
    its sign, so two comparisons give T without a division; beta/2 is exact.
    """
    half = np.float32(beta) * np.float32(0.5)
    return (weights > half).view(np.int8) - (weights < -half).view(np.int8)


def lower_bounds(parameters: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    """Lower bounds of the forget gates, [layers, hidden] float to [layers, hidden] uint16 with 16 fractional bits.

    cumsum over layers of softmax over layers, minus its first row, in float64; then min(round(lb * 65536), 65535).
    """
    values = parameters.astype(np.float64)
    shares = np.exp(values - values.max(axis=0))
    shares /= shares.sum(axis=0)
    total = np.cumsum(shares, axis=0)
    scaled = np.rint((total - total[0]) * (1 << GATE_FRAC))
    bounds: npt.NDArray[np.uint16] = np.minimum(scaled, (1 << PARAM_WIDTH) - 1).astype(np.uint16)
    return bounds


def embedding_frac(smallest: float, largest: float) -> int:
    """Fractional bits F <= 24, as many as possible, with round(e * 2**F) in int16 for e in smallest..largest."""
    frac = MAX_EMBEDDING_FRAC
    while np.rint(math.ldexp(largest, frac)) > 32767 or np.rint(math.ldexp(smallest, frac)) < -32768:
        frac -= 1
    return frac
