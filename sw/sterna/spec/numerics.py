"""Every width, binary point and rounding of a token, and the integer functions on them (docs/numerics.md).

All functions take and return ``int64`` arrays (or Python integers where said) and are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# --- widths (bits) and binary points (fractional bits) --------------------------------------------------------------
Q_WIDTH = 8  # quantised activation, signed, -127..127
ACC_WIDTH = 24  # row sum of trits times activations, signed: |sum| <= 128 * 65535
VALUE_WIDTH = 24  # residual, gate input, state, product, logit: one element of vector memory, signed
PARAM_WIDTH = 16  # norm weight mantissa (signed) or lower bound (unsigned)
PRODUCT_BITS = VALUE_WIDTH + PARAM_WIDTH - 1  # |w*c|: 38 bits, and one for the corner 2**38
GATE_IN_FRAC = 14  # gate input, i.e. the output of f, i, g, gate and up projections
GATE_FRAC = 16  # sigma and the forget gate, unsigned 0..65536
STATE_FRAC = 16  # recurrent state h
LOGIT_FRAC = 14
LOGIT_BYTES = 4  # a logit in memory: little-endian, sign-extended
EMBED_MANTISSA_BITS = 17  # an embedding element counts as a row sum with the scale mantissa 2**17
SQUARES_WIDTH = 64  # sums of squares, unsigned
MAX_SHIFT = 47  # largest right shift of the scaling epilogue: (24-bit sum) * (18-bit mantissa) is 0 beyond it

VALUE_MIN, VALUE_MAX = -(1 << (VALUE_WIDTH - 1)), (1 << (VALUE_WIDTH - 1)) - 1
GATE_ONE = 1 << GATE_FRAC

# --- quantiser -------------------------------------------------------------------------------------------------------
Q_MAX = 127
NORMALISED_BITS = 17  # |w*c| is brought to at most 2**17 before it meets the reciprocal
RECIPROCAL_FRAC = 27
RECIPROCAL_WIDTH = 18
SCALE_MANTISSA_BITS = 18  # mantissa of the per-token scale, in [2**17, 2**18) or 0
CONSTANT_BITS = 24  # mantissa of the per-projection constant, in [2**23, 2**24)
ROOT_BITS = 24
EPS_BITS = 16
EPS_CONST_BITS = 40
QUOTIENT_EXTRA = 2  # extra quotient bits before the scale mantissa is cut to 18

# --- sigma table -----------------------------------------------------------------------------------------------------
SIGMA_SEGMENT_BITS = 8  # a segment spans 2**8 steps of a gate input: 1/64
SIGMA_SEGMENTS = 1024  # covers |x| < 16
SIGMA_TABLE_FRAC = 18
SIGMA_BASE_WIDTH = 18
SIGMA_SLOPE_WIDTH = 11


def round_shift(value: IntArray, shift: int | IntArray) -> IntArray:
    """``value / 2**shift`` to nearest, halves towards +infinity; ``shift`` 0..62, and 0 leaves the value.

    The caller keeps ``|value| + 2**(shift - 1)`` below 2**63; all shifts of a token are at most MAX_SHIFT.
    """
    shift = np.asarray(shift, np.int64)
    half = (np.int64(1) << shift) >> 1
    return (value + half) >> shift


def saturate(value: IntArray, width: int = VALUE_WIDTH) -> IntArray:
    """Clamp to the range of a signed ``width``-bit integer."""
    return np.clip(value, -(1 << (width - 1)), (1 << (width - 1)) - 1)


def sigma_tables() -> tuple[IntArray, IntArray]:
    """(base, slope) of sigma(x) - 1/2 for x = i/64, i in 0..1023, with 18 fractional bits.

    ``slope[i] = base[i+1] - base[i]``; both fit their widths (18 and 11 bits, unsigned).
    """
    exact = [round((1 / (1 + math.exp(-i / 64)) - 0.5) * (1 << SIGMA_TABLE_FRAC)) for i in range(SIGMA_SEGMENTS + 1)]
    base = np.array(exact, np.int64)
    return base[:-1], np.diff(base)


_SIGMA_BASE, _SIGMA_SLOPE = sigma_tables()


def sigma(x: IntArray) -> IntArray:
    """Logistic function of a gate input (14 fractional bits) as 0..65536 (16 fractional bits), within one unit.

    Linear interpolation between table points 1/64 apart; sigma(-x) = 1 - sigma(x) exactly; |x| >= 16 gives 0 or 1.
    """
    magnitude = np.abs(x)
    segment = np.minimum(magnitude >> SIGMA_SEGMENT_BITS, SIGMA_SEGMENTS - 1)
    offset = magnitude & ((1 << SIGMA_SEGMENT_BITS) - 1)
    fine = (_SIGMA_BASE[segment] << SIGMA_SEGMENT_BITS) + _SIGMA_SLOPE[segment] * offset
    shift = SIGMA_TABLE_FRAC + SIGMA_SEGMENT_BITS - GATE_FRAC
    upper = GATE_ONE // 2 + round_shift(fine, shift)
    upper = np.where(magnitude >= SIGMA_SEGMENTS << SIGMA_SEGMENT_BITS, GATE_ONE, upper)
    return np.where(x < 0, GATE_ONE - upper, upper)


def silu(x: IntArray, gate: IntArray) -> IntArray:
    """``x * sigma`` in the format of ``x``; never larger in magnitude than ``x``."""
    return round_shift(x * gate, GATE_FRAC)


@dataclass(frozen=True)
class ScaleConstants:
    """Per-projection constants of the quantiser (docs/numerics.md, "The scale"); all integers, made at load time.

    The divisor is ``M = S1 + ((S2 * eps_mantissa) >> eps_shift) + eps_const`` and the factor is
    ``mantissa * 2**exponent``.
    """

    eps_mantissa: int
    eps_shift: int
    eps_const: int
    mantissa: int
    exponent: int


@dataclass(frozen=True)
class QuantiserScalars:
    """What one token and projection need: normalising shift, reciprocal, and the scale of the row sums."""

    exponent: int  # bit length of the largest |w*c|
    reciprocal: int  # 18 bits
    scale_mantissa: int  # 18 bits
    scale_shift: int  # 0..MAX_SHIFT


def quantiser_scalars(largest: int, s1: int, s2: int, constants: ScaleConstants) -> QuantiserScalars:
    """Reciprocal and scale of one token from Python integers (exact; truncations as written).

    ``largest`` = max |w*c| (39 bits), ``s1`` and ``s2`` sums of squares (64 bits). All-zero input gives all zeros.
    """
    if largest == 0:
        return QuantiserScalars(0, 0, 0, 0)
    exponent = largest.bit_length()
    normalised = ((largest << NORMALISED_BITS) + ((1 << exponent) >> 1)) >> exponent
    reciprocal = (Q_MAX << RECIPROCAL_FRAC) // normalised

    mean = s1 + ((s2 * constants.eps_mantissa) >> constants.eps_shift) + constants.eps_const
    mean = min(max(mean, 1), (1 << SQUARES_WIDTH) - 1)
    # An even shift brings the sum to 47 or 48 bits, so that its root has exactly 24.
    up = (2 * ROOT_BITS - mean.bit_length()) & ~1
    root = math.isqrt(mean << up if up >= 0 else mean >> -up)
    quotient = ((normalised * constants.mantissa) << QUOTIENT_EXTRA) // root
    cut = max(quotient.bit_length() - SCALE_MANTISSA_BITS, 0)
    shift = QUOTIENT_EXTRA - cut + NORMALISED_BITS - exponent - constants.exponent - up // 2
    return QuantiserScalars(exponent, reciprocal, quotient >> cut, min(max(shift, 0), MAX_SHIFT))


def quantise(product: IntArray, exponent: int | IntArray, reciprocal: int | IntArray) -> IntArray:
    """8-bit activations from ``product = w*c``: normalise to 17 bits and sign, multiply by the reciprocal, round."""
    normalised = round_shift(product << NORMALISED_BITS, exponent)
    return round_shift(normalised * reciprocal, RECIPROCAL_FRAC)


def scale_rows(row_sum: IntArray, mantissa: int | IntArray, shift: int | IntArray) -> tuple[IntArray, BoolArray]:
    """Row sums times the scale, rounded and saturated to 24 bits; second result: where it saturated."""
    exact = round_shift(row_sum * mantissa, shift)
    value = saturate(exact)
    return value, exact != value
