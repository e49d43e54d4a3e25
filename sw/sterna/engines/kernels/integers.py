"""The scalar functions of docs/numerics.md as compiled kernels."""

from __future__ import annotations

import math

import numpy as np

from sterna.engines.kernels.jit import compiled
from sterna.spec import numerics
from sterna.spec.numerics import IntArray

_VALUE_MIN, _VALUE_MAX = numerics.VALUE_MIN, numerics.VALUE_MAX
GATE_FRAC, GATE_ONE = numerics.GATE_FRAC, numerics.GATE_ONE
_SEGMENT_BITS, _SEGMENTS = numerics.SIGMA_SEGMENT_BITS, numerics.SIGMA_SEGMENTS
_SIGMA_SHIFT = numerics.SIGMA_TABLE_FRAC + _SEGMENT_BITS - GATE_FRAC
_SIGMA_BASE, _SIGMA_SLOPE = numerics.sigma_tables()
_Q_MAX, _NORMALISED_BITS, _RECIPROCAL_FRAC = numerics.Q_MAX, numerics.NORMALISED_BITS, numerics.RECIPROCAL_FRAC
_MANTISSA_BITS, _ROOT_BITS, _QUOTIENT_EXTRA = (
    numerics.SCALE_MANTISSA_BITS,
    numerics.ROOT_BITS,
    numerics.QUOTIENT_EXTRA,
)
_MAX_SHIFT = numerics.MAX_SHIFT

_U64 = np.uint64


@compiled
def round_shift(value: int, shift: int) -> int:
    """See :func:`sterna.spec.numerics.round_shift`."""
    return (value + ((1 << shift) >> 1)) >> shift


@compiled
def clamp(value: int) -> int:
    """Saturate to a 24-bit value."""
    return min(max(value, _VALUE_MIN), _VALUE_MAX)


@compiled
def sigma(x: int) -> int:
    """See :func:`sterna.spec.numerics.sigma`."""
    magnitude = abs(x)
    upper = GATE_ONE
    if magnitude < _SEGMENTS << _SEGMENT_BITS:
        segment = magnitude >> _SEGMENT_BITS
        offset = magnitude & ((1 << _SEGMENT_BITS) - 1)
        fine = (_SIGMA_BASE[segment] << _SEGMENT_BITS) + _SIGMA_SLOPE[segment] * offset
        upper = GATE_ONE // 2 + round_shift(fine, _SIGMA_SHIFT)
    return GATE_ONE - upper if x < 0 else upper


@compiled
def silu(x: int) -> int:
    """x * sigma(x) in the format of x."""
    return round_shift(x * sigma(x), GATE_FRAC)


@compiled
def bit_length(value: np.uint64) -> int:
    """Bits that the value needs."""
    length = 0
    while value:
        value = _U64(value >> _U64(1))
        length += 1
    return length


@compiled
def quantiser_scalars(largest: int, s1: int, s2: int, constants: IntArray) -> tuple[int, int, int, int]:
    """:func:`sterna.spec.numerics.quantiser_scalars` in 64 bits; ``constants`` int64 [5], the sums below 2**63.

    Returns exponent, reciprocal, scale mantissa and scale shift.
    """
    if largest == 0:
        return 0, 0, 0, 0
    eps_mantissa, eps_shift, eps_const = constants[0], constants[1], constants[2]
    mantissa, constant_exponent = constants[3], constants[4]
    exponent = bit_length(_U64(largest))
    normalised = round_shift(largest << _NORMALISED_BITS, exponent)
    reciprocal = (_Q_MAX << _RECIPROCAL_FRAC) // normalised

    # (s2 * eps_mantissa) >> eps_shift: the product has up to 79 bits, kept as high * 2**32 + low.
    partial = (s2 & 0xFFFFFFFF) * eps_mantissa
    high, low = (s2 >> 32) * eps_mantissa + (partial >> 32), partial & 0xFFFFFFFF
    full = _U64(0xFFFFFFFFFFFFFFFF)
    if eps_shift >= 32:
        share = _U64(high >> min(eps_shift - 32, 63))
    elif bit_length(_U64(high)) + 32 - eps_shift > 64:
        share = full
    else:
        share = _U64(_U64(_U64(high) << _U64(32 - eps_shift)) | _U64(low >> eps_shift))
    total = _U64(_U64(s1) + _U64(eps_const))  # below 2**63 + 2**40: no carry
    mean = full if share > _U64(full - total) else _U64(total + share)
    mean = max(mean, _U64(1))

    up = (2 * _ROOT_BITS - bit_length(mean)) & -2
    scaled = _U64(mean << _U64(up)) if up >= 0 else _U64(mean >> _U64(-up))
    root = int(math.sqrt(float(scaled)))  # exact: 48 bits, and no root of k*k - 1 rounds up to k below 2**24
    quotient = ((normalised * mantissa) << _QUOTIENT_EXTRA) // root
    cut = max(bit_length(_U64(quotient)) - _MANTISSA_BITS, 0)
    shift = _QUOTIENT_EXTRA - cut + _NORMALISED_BITS - exponent - constant_exponent - (up >> 1)
    return exponent, reciprocal, quotient >> cut, min(max(shift, 0), _MAX_SHIFT)
