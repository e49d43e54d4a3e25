"""Row operations: what happens to each row as it leaves the accumulators (docs/numerics.md).

All arrays are ``int64``; a trailing axis of rows and any leading batch axes. Each function returns its result and,
where a value can be clamped, a boolean array that says where it was.
"""

from __future__ import annotations

import numpy as np

from sterna.spec.numerics import (
    GATE_FRAC,
    GATE_IN_FRAC,
    GATE_ONE,
    STATE_FRAC,
    BoolArray,
    IntArray,
    round_shift,
    saturate,
    sigma,
    silu,
)


def forget(y: IntArray, lower_bound: IntArray) -> IntArray:
    """f = lb + (1 - lb) * sigma(y), 0..65536; ``lower_bound`` 0..65535."""
    return lower_bound + round_shift((GATE_ONE - lower_bound) * sigma(y), GATE_FRAC)


def recur(y: IntArray, f: IntArray, h: IntArray) -> tuple[IntArray, BoolArray]:
    """h' = f*h + silu(y)*(1 - f), one rounding; h in 16 fractional bits."""
    align = GATE_FRAC + STATE_FRAC - (GATE_IN_FRAC + GATE_FRAC)
    exact = round_shift(f * h + (silu(y, sigma(y)) * (GATE_ONE - f) << align), GATE_FRAC)
    state = saturate(exact)
    return state, exact != state


def outgate(y: IntArray, h: IntArray, shift: int) -> tuple[IntArray, BoolArray]:
    """w = y * silu(h), shifted right: v without its norm, which the quantiser of o applies."""
    gate = sigma(round_shift(h, STATE_FRAC - GATE_IN_FRAC))
    return multiply(y, silu(h, gate), shift)


def gate_silu(y: IntArray) -> IntArray:
    """silu(y) in the format of y."""
    return silu(y, sigma(y))


def multiply(y: IntArray, other: IntArray, shift: int) -> tuple[IntArray, BoolArray]:
    """y * other, shifted right and clamped."""
    exact = round_shift(y * other, shift)
    value = saturate(exact)
    return value, exact != value


def residual(y: IntArray, x: IntArray) -> tuple[IntArray, BoolArray]:
    """x + y, clamped."""
    value = saturate(x + y)
    return value, value != x + y


def squares(values: IntArray) -> IntArray:
    """Sum of squares over the last axis; below 2**62, so exact in int64 (docs/numerics.md)."""
    total: IntArray = np.sum(values * values, axis=-1)
    return total
