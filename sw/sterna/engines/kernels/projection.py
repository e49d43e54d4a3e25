"""QUANT, MATMUL and scale of one projection, from packed trits.

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

import numba
import numpy as np
import numpy.typing as npt

from sterna.engines.kernels.integers import clamp, quantiser_scalars, round_shift
from sterna.engines.kernels.jit import compiled, compiled_parallel
from sterna.spec import numerics
from sterna.spec.numerics import IntArray
from sterna.spec.packing import TRITS_PER_BYTE

Bytes = npt.NDArray[np.uint8]
Coefficients = npt.NDArray[np.int16]
Flags = npt.NDArray[np.bool_]

PADDING = 64  # coefficients are padded with zeros to a multiple of this, so that no row ends in a scalar loop
MAX_THREADS = int(numba.config.NUMBA_NUM_THREADS)
PARALLEL_BYTES = 1 << 20  # a smaller matrix takes less time than waking the other threads

_NORMALISED_BITS, _RECIPROCAL_FRAC = numerics.NORMALISED_BITS, numerics.RECIPROCAL_FRAC
_PARAM_FRAC = numerics.PARAM_WIDTH - 1
_TRITS = TRITS_PER_BYTE
_U32, _I32 = np.uint32, np.int32


@compiled
def squares(values: IntArray) -> int:
    """Sum of squares."""
    total = 0
    for index in range(values.shape[0]):
        total += values[index] * values[index]
    return total


@compiled
def normed_squares(values: IntArray, norm: IntArray) -> int:
    """SUMSQ: sum of squares of the values times norm weights (mantissas)."""
    total = 0
    for index in range(values.shape[0]):
        scaled = round_shift(values[index] * norm[index], _PARAM_FRAC)
        total += scaled * scaled
    return total


@compiled
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
                normalised = round_shift((w[index] * weights[index]) << _NORMALISED_BITS, exponent)
                q = round_shift(normalised * reciprocal, _RECIPROCAL_FRAC)
            coefficients[place, group] = q - 3 * previous
            previous = q
            total += q
    for place in range(_TRITS):
        coefficients[place, groups:padded] = 0
    return padded, total, mantissa, shift


@compiled
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
        exact = round_shift((int(acc) - total) * mantissa, shift)
        y[row] = clamp(exact)
        clamped[row] = y[row] != exact


@compiled_parallel
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


@compiled
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
