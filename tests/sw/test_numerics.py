"""The integer functions of the specification against exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.spec import numerics
from sterna.spec.numerics import ScaleConstants


@given(st.integers(-(1 << 55), 1 << 55), st.integers(0, 47))
def test_round_shift_is_nearest_with_halves_upwards(value, shift):
    rounded = int(numerics.round_shift(np.int64(value), shift))
    assert rounded == math.floor(Fraction(value, 1 << shift) + Fraction(1, 2)) if shift else rounded == value


def test_sigma_stays_within_one_unit_of_the_exact_function():
    x = np.arange(-(17 << 12), 17 << 12)
    exact = 1 / (1 + np.exp(-x / (1 << numerics.GATE_IN_FRAC)))
    assert np.max(np.abs(numerics.sigma(x) - exact * numerics.GATE_ONE)) < 1


def test_sigma_is_symmetric_monotonic_and_ends_at_0_and_1():
    x = np.array([numerics.VALUE_MIN, *range(-(17 << 12), 17 << 12), numerics.VALUE_MAX])
    values = numerics.sigma(x)
    assert values[0] == 0 and values[-1] == numerics.GATE_ONE
    assert np.all(np.diff(values) >= 0)
    assert np.all(numerics.sigma(-x[1:]) == numerics.GATE_ONE - values[1:])


def test_sigma_tables_fit_their_memory():
    base, slope = numerics.sigma_tables()
    assert base.min() >= 0 and base.max() < 1 << numerics.SIGMA_BASE_WIDTH
    assert slope.min() >= 0 and slope.max() < 1 << numerics.SIGMA_SLOPE_WIDTH


@given(
    st.integers(1, 1 << 38),
    st.integers(1, (1 << 62) - 1),
    st.integers(-40, 10),
    st.integers(1 << 23, (1 << 24) - 1),
)
def test_scale_is_the_real_scale_to_sixteen_bits(largest, s1, exponent, mantissa):
    constants = ScaleConstants(0, 0, 0, mantissa, exponent)
    scalars = numerics.quantiser_scalars(largest, s1, 0, constants)
    exact = largest / math.sqrt(s1) * math.ldexp(mantissa, exponent)
    if 0 < scalars.scale_shift < numerics.MAX_SHIFT:
        assert math.ldexp(scalars.scale_mantissa, -scalars.scale_shift) == pytest.approx(exact, rel=2**-15)
    assert scalars.scale_mantissa < 1 << numerics.SCALE_MANTISSA_BITS
    assert scalars.reciprocal < 1 << numerics.RECIPROCAL_WIDTH


def test_epsilon_terms_enter_the_divisor():
    plain = numerics.quantiser_scalars(1 << 20, 1 << 30, 1 << 30, ScaleConstants(0, 0, 0, 1 << 23, -23))
    doubled = numerics.quantiser_scalars(1 << 20, 1 << 30, 1 << 30, ScaleConstants(1 << 15, 15, 0, 1 << 23, -23))
    constant = numerics.quantiser_scalars(1 << 20, 1 << 30, 0, ScaleConstants(0, 0, 3 << 30, 1 << 23, -23))

    def real(scalars):
        return math.ldexp(scalars.scale_mantissa, -scalars.scale_shift)

    assert real(plain) / real(doubled) == pytest.approx(math.sqrt(2), rel=1e-4)
    assert real(plain) / real(constant) == pytest.approx(2, rel=1e-4)


def test_all_zero_vector_quantises_to_zero():
    scalars = numerics.quantiser_scalars(0, 0, 0, ScaleConstants(0, 0, 0, 1 << 23, 0))
    assert (scalars.reciprocal, scalars.scale_mantissa) == (0, 0)


@given(st.lists(st.integers(-(1 << 38), 1 << 38), min_size=1, max_size=40).filter(any))
def test_quantise_is_127_times_the_share_of_the_largest(products):
    product = np.array(products, np.int64)
    largest = int(np.max(np.abs(product)))
    scalars = numerics.quantiser_scalars(largest, 1, 0, ScaleConstants(0, 0, 0, 1 << 23, 0))
    q = numerics.quantise(product, scalars.exponent, scalars.reciprocal)
    assert np.max(np.abs(q)) == numerics.Q_MAX
    assert np.max(np.abs(q - product * (numerics.Q_MAX / largest))) < 0.51
