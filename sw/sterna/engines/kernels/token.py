"""A token of one sequence, layer by layer: embedding, layers, head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sterna.engines.kernels.integers import GATE_FRAC, GATE_ONE, clamp, round_shift, sigma, silu
from sterna.engines.kernels.jit import compiled
from sterna.engines.kernels.projection import Bytes, Coefficients, Flags, normed_squares, project, squares
from sterna.spec import numerics
from sterna.spec.numerics import IntArray

# Rows of ``vectors`` of a token mixer, and of a GLU.
ATTN_NORM, F_NORM, I_NORM, G_NORM, LOWER_BOUND, OUT_NORM, O_NORM = range(7)
MLP_NORM, GATE_NORM = range(2)
# Rows of ``constants`` of a token mixer, and of a GLU; the columns are the fields of ScaleConstants in order.
F_SCALE, I_SCALE, G_SCALE, O_SCALE = range(4)
GATE_SCALE, DOWN_SCALE = range(2)

_STATE_SHIFT = numerics.STATE_FRAC - numerics.GATE_IN_FRAC  # from a gate input's binary point to the state's


@compiled
def embed(elements: npt.NDArray[np.int16], shift: int, x: IntArray) -> int:
    """EMBED: ``x`` int64 [hidden] from a row of the table; returns how many elements were clamped."""
    count = 0
    for index in range(x.shape[0]):
        exact = round_shift(int(elements[index]) << numerics.EMBED_MANTISSA_BITS, shift)
        x[index] = clamp(exact)
        count += x[index] != exact
    return count


@compiled
def _residual(y: IntArray, x: IntArray, clamped: Flags) -> int:
    count = 0
    for index in range(x.shape[0]):
        exact = x[index] + y[index]
        x[index] = clamp(exact)
        count += clamped[index] or x[index] != exact
    return count


@compiled
def mixer(
    x: IntArray,
    h: IntArray,
    vectors: IntArray,
    constants: IntArray,
    shift: int,
    weights: tuple[Bytes, ...],
    coefficients: Coefficients,
    y: IntArray,
    clamped: Flags,
    split: tuple[int, int],
) -> int:
    """The token mixer of a layer, which is all of a mixer-only one; returns how many row results were clamped.

    Args:
        x: Residual, int64 [hidden], updated.
        h: Recurrent state, int64 [hidden], updated.
        vectors: int64 [7, hidden], see ATTN_NORM and the names after it.
        constants: int64 [4, 5], see F_SCALE and the names after it.
        shift: Right shift of the output-gate product.
        weights: Packed trits of f, i, g and o.
        coefficients: Scratch of :func:`project`.
        y: Scratch, int64 [at least max(2 * hidden, inner + max(inner, hidden))].
        clamped: Scratch, bool, as long as ``y``.
        split: See :func:`project`.
    """
    hidden = x.shape[0]
    count = 0
    y_d, f = y[:hidden], y[hidden : 2 * hidden]
    s1, s2 = normed_squares(x, vectors[ATTN_NORM]), squares(x)

    project(x, vectors[F_NORM], s1, s2, constants[F_SCALE], weights[0], coefficients, y_d, clamped, split)
    for n in range(hidden):
        bound = vectors[LOWER_BOUND, n]
        f[n] = bound + round_shift((GATE_ONE - bound) * sigma(y_d[n]), GATE_FRAC)
        count += clamped[n]
    project(x, vectors[I_NORM], s1, s2, constants[I_SCALE], weights[1], coefficients, y_d, clamped, split)
    for n in range(hidden):
        fresh = silu(y_d[n]) * (GATE_ONE - f[n]) << _STATE_SHIFT
        exact = round_shift(f[n] * h[n] + fresh, GATE_FRAC)
        h[n] = clamp(exact)
        count += clamped[n] or h[n] != exact
    project(x, vectors[G_NORM], s1, s2, constants[G_SCALE], weights[2], coefficients, y_d, clamped, split)
    s2 = squares(y_d)
    for n in range(hidden):
        swish = round_shift(h[n] * sigma(round_shift(h[n], _STATE_SHIFT)), GATE_FRAC)
        exact = round_shift(y_d[n] * swish, shift)
        f[n] = clamp(exact)
        count += clamped[n] or f[n] != exact
    s1 = normed_squares(f, vectors[OUT_NORM])
    project(f, vectors[O_NORM], s1, s2, constants[O_SCALE], weights[3], coefficients, y_d, clamped, split)
    return count + _residual(y_d, x, clamped)


@compiled
def glu(
    x: IntArray,
    vectors: IntArray,
    down_norm: IntArray,
    constants: IntArray,
    shift: int,
    weights: tuple[Bytes, ...],
    coefficients: Coefficients,
    y: IntArray,
    clamped: Flags,
    split: tuple[int, int],
) -> int:
    """The gated linear unit of a layer; returns how many row results were clamped.

    Args:
        x: Residual, int64 [hidden], updated.
        vectors: int64 [2, hidden], see MLP_NORM and GATE_NORM.
        down_norm: Norm weights of down, int64 [inner].
        constants: int64 [2, 5], see GATE_SCALE and DOWN_SCALE.
        shift: Right shift of the gated product.
        weights: Packed trits of gate and down.
        coefficients: Scratch, like what follows, as of :func:`mixer`.
        y: Scratch.
        clamped: Scratch.
        split: See :func:`project`.
    """
    hidden, inner = x.shape[0], down_norm.shape[0]
    count = 0
    s1, s2 = normed_squares(x, vectors[MLP_NORM]), squares(x)
    gate_up, gated = y[: 2 * inner], y[:inner]
    project(x, vectors[GATE_NORM], s1, s2, constants[GATE_SCALE], weights[0], coefficients, gate_up, clamped, split)
    for n in range(inner):
        exact = round_shift(gate_up[inner + n] * silu(gate_up[n]), shift)
        gated[n] = clamp(exact)
        count += clamped[n]
        count += clamped[inner + n] or gated[n] != exact
    y_d = y[inner : inner + hidden]
    project(gated, down_norm, squares(gated), 0, constants[DOWN_SCALE], weights[1], coefficients, y_d, clamped, split)
    return count + _residual(y_d, x, clamped)


@compiled
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
    project(x, head_norm, normed_squares(x, norm), squares(x), constants, packed, coefficients, logits, clamped, split)
    count = 0
    for n in range(logits.shape[0]):
        count += clamped[n]
    return count
