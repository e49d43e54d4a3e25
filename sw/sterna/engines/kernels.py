"""Compiled loops of the fast CPU engine: the integers of docs/numerics.md, one sequence at a time.

The ternary product never unpacks a weight. A byte ``b`` holds five trits in base 3 (:mod:`sterna.spec.packing`); its
digits are differences of quotients, ``digit k = b // 3**k - 3 * (b // 3**(k+1))``. So the row sum of five columns

    sum_k (digit_k - 1) * q_k  =  sum_k (b // 3**k) * (q_k - 3 * q_(k-1))  -  sum_k q_k

needs four quotients (a multiplication and a shift each) and five products with coefficients that all rows share, and
it has no gathers: the compiler turns it into wide multiply-add instructions.

Measured on one core with 512-bit vectors (billions of trits a second; 512 x 512, 512 x 1536, 32000 x 2560):

    quotients of the packed byte (this file)     42   54   58
    int8 weights, plain dot product              44   48   33    five times the memory
    table of 243 partial sums per byte            7    8    8
    float32 matrix product of a BLAS, two cores  16   19    5    twenty times the memory
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from sterna.spec import numerics
from sterna.spec.numerics import IntArray
from sterna.spec.packing import TRITS_PER_BYTE

Bytes = npt.NDArray[np.uint8]
Coefficients = npt.NDArray[np.int16]
Flags = npt.NDArray[np.bool_]
F = TypeVar("F", bound=Callable[..., Any])

PADDING = 64  # coefficients are padded with zeros to a multiple of this, so that no row ends in a scalar loop
MAX_THREADS = int(numba.config.NUMBA_NUM_THREADS)
PARALLEL_BYTES = 1 << 20  # a smaller matrix takes less time than waking the other threads

# Rows of ``vectors`` of a layer.
ATTN_NORM, F_NORM, I_NORM, G_NORM, LOWER_BOUND, OUT_NORM, O_NORM, MLP_NORM, GATE_NORM = range(9)
# Rows of ``constants`` of a layer; the columns are the fields of ScaleConstants in order.
F_SCALE, I_SCALE, G_SCALE, O_SCALE, GATE_SCALE, DOWN_SCALE = range(6)

_VALUE_MIN, _VALUE_MAX = numerics.VALUE_MIN, numerics.VALUE_MAX
_GATE_FRAC, _GATE_ONE, _GATE_IN_FRAC, _STATE_FRAC = (
    numerics.GATE_FRAC,
    numerics.GATE_ONE,
    numerics.GATE_IN_FRAC,
    numerics.STATE_FRAC,
)
_SEGMENT_BITS, _SEGMENTS = numerics.SIGMA_SEGMENT_BITS, numerics.SIGMA_SEGMENTS
_SIGMA_SHIFT = numerics.SIGMA_TABLE_FRAC + _SEGMENT_BITS - _GATE_FRAC
_SIGMA_BASE, _SIGMA_SLOPE = numerics.sigma_tables()
_Q_MAX, _NORMALISED_BITS, _RECIPROCAL_FRAC = numerics.Q_MAX, numerics.NORMALISED_BITS, numerics.RECIPROCAL_FRAC
_PARAM_FRAC = numerics.PARAM_WIDTH - 1
_MANTISSA_BITS, _ROOT_BITS, _QUOTIENT_EXTRA = (
    numerics.SCALE_MANTISSA_BITS,
    numerics.ROOT_BITS,
    numerics.QUOTIENT_EXTRA,
)
_MAX_SHIFT = numerics.MAX_SHIFT
_RECUR_ALIGN = _STATE_FRAC - _GATE_IN_FRAC
_TRITS = TRITS_PER_BYTE

_U32, _I32, _U64 = np.uint32, np.int32, np.uint64


def _compile(function: F, *, parallel: bool) -> F:
    """Compile at first call; the machine code is kept for the next process.

    The specification's constants are frozen into that code, but Numba looks only at this file to see whether it is
    stale: so it is kept in a folder named by the specification.
    """
    specification = hashlib.sha256(Path(numerics.__file__).read_bytes()).hexdigest()[:16]
    chosen = numba.config.CACHE_DIR
    beside = Path(__file__).parent
    folder = Path(chosen) if chosen else beside if os.access(beside, os.W_OK) else Path.home() / ".cache" / "sterna"
    numba.config.CACHE_DIR = str(folder / "__pycache__" / f"kernels-{specification}")
    try:
        return cast(F, numba.njit(nogil=True, cache=True, parallel=parallel)(function))
    finally:
        numba.config.CACHE_DIR = chosen


def _compiled(function: F) -> F:
    """A kernel of one thread."""
    return _compile(function, parallel=False)


def _compiled_parallel(function: F) -> F:
    """A kernel that shares its rows among threads."""
    return _compile(function, parallel=True)


# --- scalar functions of the specification ---------------------------------------------------------------------------


@_compiled
def _round_shift(value: int, shift: int) -> int:
    return (value + ((1 << shift) >> 1)) >> shift


@_compiled
def _clamp(value: int) -> int:
    return min(max(value, _VALUE_MIN), _VALUE_MAX)


@_compiled
def _sigma(x: int) -> int:
    magnitude = abs(x)
    upper = _GATE_ONE
    if magnitude < _SEGMENTS << _SEGMENT_BITS:
        segment = magnitude >> _SEGMENT_BITS
        offset = magnitude & ((1 << _SEGMENT_BITS) - 1)
        fine = (_SIGMA_BASE[segment] << _SEGMENT_BITS) + _SIGMA_SLOPE[segment] * offset
        upper = _GATE_ONE // 2 + _round_shift(fine, _SIGMA_SHIFT)
    return _GATE_ONE - upper if x < 0 else upper


@_compiled
def _silu(x: int) -> int:
    return _round_shift(x * _sigma(x), _GATE_FRAC)


@_compiled
def _bit_length(value: np.uint64) -> int:
    length = 0
    while value:
        value = _U64(value >> _U64(1))
        length += 1
    return length


@_compiled
def quantiser_scalars(largest: int, s1: int, s2: int, constants: IntArray) -> tuple[int, int, int, int]:
    """:func:`sterna.spec.numerics.quantiser_scalars` in 64 bits; ``constants`` int64 [5], the sums below 2**63.

    Returns exponent, reciprocal, scale mantissa and scale shift.
    """
    if largest == 0:
        return 0, 0, 0, 0
    eps_mantissa, eps_shift, eps_const = constants[0], constants[1], constants[2]
    mantissa, constant_exponent = constants[3], constants[4]
    exponent = _bit_length(_U64(largest))
    normalised = _round_shift(largest << _NORMALISED_BITS, exponent)
    reciprocal = (_Q_MAX << _RECIPROCAL_FRAC) // normalised

    # (s2 * eps_mantissa) >> eps_shift: the product has up to 79 bits, kept as high * 2**32 + low.
    partial = (s2 & 0xFFFFFFFF) * eps_mantissa
    high, low = (s2 >> 32) * eps_mantissa + (partial >> 32), partial & 0xFFFFFFFF
    full = _U64(0xFFFFFFFFFFFFFFFF)
    if eps_shift >= 32:
        share = _U64(high >> min(eps_shift - 32, 63))
    elif _bit_length(_U64(high)) + 32 - eps_shift > 64:
        share = full
    else:
        share = _U64(_U64(_U64(high) << _U64(32 - eps_shift)) | _U64(low >> eps_shift))
    total = _U64(_U64(s1) + _U64(eps_const))  # below 2**63 + 2**40: no carry
    mean = full if share > _U64(full - total) else _U64(total + share)
    mean = max(mean, _U64(1))

    up = (2 * _ROOT_BITS - _bit_length(mean)) & -2
    scaled = _U64(mean << _U64(up)) if up >= 0 else _U64(mean >> _U64(-up))
    root = int(math.sqrt(float(scaled)))  # exact: 48 bits, and no root of k*k - 1 rounds up to k below 2**24
    quotient = ((normalised * mantissa) << _QUOTIENT_EXTRA) // root
    cut = max(_bit_length(_U64(quotient)) - _MANTISSA_BITS, 0)
    shift = _QUOTIENT_EXTRA - cut + _NORMALISED_BITS - exponent - constant_exponent - (up >> 1)
    return exponent, reciprocal, quotient >> cut, min(max(shift, 0), _MAX_SHIFT)


# --- a projection ----------------------------------------------------------------------------------------------------


@_compiled
def _squares(values: IntArray) -> int:
    total = 0
    for index in range(values.shape[0]):
        total += values[index] * values[index]
    return total


@_compiled
def _normed_squares(values: IntArray, norm: IntArray) -> int:
    total = 0
    for index in range(values.shape[0]):
        scaled = _round_shift(values[index] * norm[index], _PARAM_FRAC)
        total += scaled * scaled
    return total


@_compiled
def _quantise(
    w: IntArray, weights: IntArray, s1: int, s2: int, constants: IntArray, coefficients: Coefficients
) -> tuple[int, int, int, int]:
    """QUANT: fill ``coefficients`` int16 [5, padded]; returns padded, the sum of q, scale mantissa and shift."""
    columns = w.shape[0]
    largest = 0
    for index in range(columns):
        largest = max(largest, abs(w[index] * weights[index]))
    exponent, reciprocal, mantissa, shift = quantiser_scalars(largest, s1, s2, constants)
    groups = (columns + _TRITS - 1) // _TRITS
    padded = (groups + PADDING - 1) // PADDING * PADDING
    total = 0
    for group in range(groups):
        previous = 0
        for place in range(_TRITS):
            index = group * _TRITS + place
            q = 0
            if index < columns:
                normalised = _round_shift((w[index] * weights[index]) << _NORMALISED_BITS, exponent)
                q = _round_shift(normalised * reciprocal, _RECIPROCAL_FRAC)
            coefficients[place, group] = q - 3 * previous
            previous = q
            total += q
    for place in range(_TRITS):
        coefficients[place, groups:padded] = 0
    return padded, total, mantissa, shift


@_compiled
def _rows(
    packed: Bytes,
    groups: int,
    coefficients: Coefficients,
    scale: tuple[int, int, int, int],
    start: int,
    stop: int,
    y: IntArray,
    clamped: Flags,
) -> None:
    """MATMUL of rows start..stop-1 into ``y`` and ``clamped``; ``scale`` is what :func:`_quantise` returned.

    A row is read to the padded length: what follows it in memory meets zero coefficients. Only where nothing follows,
    at the end of the matrix, the loop has the true length.
    """
    padded, total, mantissa, shift = scale
    c0, c1, c2, c3, c4 = coefficients[0], coefficients[1], coefficients[2], coefficients[3], coefficients[4]
    wide = padded // PADDING * PADDING  # tells the compiler that the length is a multiple
    for row in range(start, stop):
        codes = packed[row * groups :]
        length = wide if wide <= codes.shape[0] else groups
        acc = _I32(0)  # wraps in between; the true sum has 25 bits
        for j in range(length):
            b = _U32(codes[j])
            by_3 = _I32(_U32(b * _U32(21846)) >> _U32(16))
            by_9 = _I32(_U32(b * _U32(7282)) >> _U32(16))
            by_27 = _I32(_U32(b * _U32(2428)) >> _U32(16))
            by_81 = _I32(_U32(b * _U32(810)) >> _U32(16))
            acc = _I32(
                acc
                + _I32(_I32(b) * _I32(c0[j]))
                + _I32(by_3 * _I32(c1[j]))
                + _I32(by_9 * _I32(c2[j]))
                + _I32(by_27 * _I32(c3[j]))
                + _I32(by_81 * _I32(c4[j]))
            )
        exact = _round_shift((int(acc) - total) * mantissa, shift)
        y[row] = _clamp(exact)
        clamped[row] = y[row] != exact


@_compiled_parallel
def _rows_parallel(
    packed: Bytes,
    groups: int,
    coefficients: Coefficients,
    scale: tuple[int, int, int, int],
    y: IntArray,
    clamped: Flags,
    chunks: int,
) -> None:
    rows = y.shape[0]
    for chunk in numba.prange(chunks):
        start, stop = rows * chunk // chunks, rows * (chunk + 1) // chunks
        _rows(packed, groups, coefficients, scale, start, stop, y, clamped)


@_compiled
def project(
    w: IntArray,
    weights: IntArray,
    s1: int,
    s2: int,
    constants: IntArray,
    packed: Bytes,
    coefficients: Coefficients,
    y: IntArray,
    clamped: Flags,
    split: tuple[int, int],
) -> None:
    """QUANT, MATMUL and scale of one projection.

    Args:
        w: Input vector, int64 [columns].
        weights: Mantissas of block norm times projection norm, int64 [columns].
        s1: Sum of squares of the normed input.
        s2: Sum of squares of what the block norm normalises.
        constants: int64 [5], the fields of ScaleConstants.
        packed: Trits, uint8 [rows * ceil(columns / 5)].
        coefficients: Scratch, int16 [5, at least ceil(columns / 5) rounded up to PADDING].
        y: Result, int64 [rows].
        clamped: Where the result was clamped, bool [rows].
        split: Threads that share the rows of a large matrix, and the bytes from which a matrix is large.
    """
    scale = _quantise(w, weights, s1, s2, constants, coefficients)
    groups = (w.shape[0] + _TRITS - 1) // _TRITS
    if split[0] > 1 and packed.shape[0] >= split[1]:
        _rows_parallel(packed, groups, coefficients, scale, y, clamped, split[0])
    else:
        _rows(packed, groups, coefficients, scale, 0, y.shape[0], y, clamped)


# --- a token ---------------------------------------------------------------------------------------------------------


@_compiled
def embed(elements: npt.NDArray[np.int16], shift: int, x: IntArray) -> int:
    """EMBED: ``x`` int64 [hidden] from a row of the table; returns how many elements were clamped."""
    count = 0
    for index in range(x.shape[0]):
        exact = _round_shift(int(elements[index]) << numerics.EMBED_MANTISSA_BITS, shift)
        x[index] = _clamp(exact)
        count += x[index] != exact
    return count


@_compiled
def _residual(y: IntArray, x: IntArray, clamped: Flags) -> int:
    count = 0
    for index in range(x.shape[0]):
        exact = x[index] + y[index]
        x[index] = _clamp(exact)
        count += clamped[index] or x[index] != exact
    return count


@_compiled
def layer(
    x: IntArray,
    h: IntArray,
    vectors: IntArray,
    down_norm: IntArray,
    constants: IntArray,
    shifts: tuple[int, int],
    weights: tuple[Bytes, ...],
    coefficients: Coefficients,
    y: IntArray,
    clamped: Flags,
    split: tuple[int, int],
) -> int:
    """One layer of a token; returns how many row results were clamped.

    Args:
        x: Residual, int64 [hidden], updated.
        h: Recurrent state, int64 [hidden], updated.
        vectors: int64 [9, hidden], see ATTN_NORM and the names after it.
        down_norm: Norm weights of down, int64 [inner].
        constants: int64 [6, 5], see F_SCALE and the names after it.
        shifts: Right shifts of the output-gate product and of the gated product.
        weights: Packed trits of f, i, g, o, gate and down.
        coefficients: Scratch of :func:`project`.
        y: Scratch, int64 [at least max(2 * inner, 2 * hidden)].
        clamped: Scratch, bool, as long as ``y``.
        split: See :func:`project`.
    """
    hidden, inner = x.shape[0], down_norm.shape[0]
    count = 0
    y_d, f = y[:hidden], y[hidden : 2 * hidden]
    s1, s2 = _normed_squares(x, vectors[ATTN_NORM]), _squares(x)

    project(x, vectors[F_NORM], s1, s2, constants[F_SCALE], weights[0], coefficients, y_d, clamped, split)
    for n in range(hidden):
        bound = vectors[LOWER_BOUND, n]
        f[n] = bound + _round_shift((_GATE_ONE - bound) * _sigma(y_d[n]), _GATE_FRAC)
        count += clamped[n]
    project(x, vectors[I_NORM], s1, s2, constants[I_SCALE], weights[1], coefficients, y_d, clamped, split)
    for n in range(hidden):
        fresh = _silu(y_d[n]) * (_GATE_ONE - f[n]) << _RECUR_ALIGN
        exact = _round_shift(f[n] * h[n] + fresh, _GATE_FRAC)
        h[n] = _clamp(exact)
        count += clamped[n] or h[n] != exact
    project(x, vectors[G_NORM], s1, s2, constants[G_SCALE], weights[2], coefficients, y_d, clamped, split)
    s2 = _squares(y_d)
    for n in range(hidden):
        swish = _round_shift(h[n] * _sigma(_round_shift(h[n], _STATE_FRAC - _GATE_IN_FRAC)), _GATE_FRAC)
        exact = _round_shift(y_d[n] * swish, shifts[0])
        f[n] = _clamp(exact)
        count += clamped[n] or f[n] != exact
    s1 = _normed_squares(f, vectors[OUT_NORM])
    project(f, vectors[O_NORM], s1, s2, constants[O_SCALE], weights[3], coefficients, y_d, clamped, split)
    count += _residual(y_d, x, clamped)

    s1, s2 = _normed_squares(x, vectors[MLP_NORM]), _squares(x)
    gate_up, gated = y[: 2 * inner], y[:inner]
    project(x, vectors[GATE_NORM], s1, s2, constants[GATE_SCALE], weights[4], coefficients, gate_up, clamped, split)
    for n in range(inner):
        exact = _round_shift(gate_up[inner + n] * _silu(gate_up[n]), shifts[1])
        gated[n] = _clamp(exact)
        count += clamped[n]
        count += clamped[inner + n] or gated[n] != exact
    y_d = y[inner : inner + hidden]
    project(gated, down_norm, _squares(gated), 0, constants[DOWN_SCALE], weights[5], coefficients, y_d, clamped, split)
    count += _residual(y_d, x, clamped)
    return count


@_compiled
def head(
    x: IntArray,
    norm: IntArray,
    head_norm: IntArray,
    constants: IntArray,
    packed: Bytes,
    coefficients: Coefficients,
    logits: IntArray,
    clamped: Flags,
    split: tuple[int, int],
) -> int:
    """Logits int64 [vocab] of the final residual ``x``; returns how many were clamped."""
    project(
        x, head_norm, _normed_squares(x, norm), _squares(x), constants, packed, coefficients, logits, clamped, split
    )
    count = 0
    for n in range(logits.shape[0]):
        count += clamped[n]
    return count
