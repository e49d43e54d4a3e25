"""Trit packing: every byte, every step of the table walk, and round trips of random shapes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.errors import SternaError
from sterna.spec.packing import CODES, PLACE_VALUES, TRITS_PER_BYTE, ZERO_CODE, code_table, gray_walk, pack, unpack


def test_every_code_is_base_three_with_the_first_trit_lowest():
    seen = set()
    for trits in itertools.product((-1, 0, 1), repeat=TRITS_PER_BYTE):
        code = sum((trit + 1) * 3**place for place, trit in enumerate(trits))
        assert pack(np.array(trits, np.int8)).tolist() == [code]
        assert unpack(np.array([code], np.uint8), 5).tolist() == list(trits)
        assert code_table()[code].tolist() == list(trits)
        seen.add(code)
    assert seen == set(range(CODES))
    assert PLACE_VALUES == (1, 3, 9, 27, 81)
    assert ZERO_CODE == 121


@pytest.mark.parametrize("byte", range(243, 256))
def test_invalid_bytes_are_refused(byte):
    with pytest.raises(SternaError, match=f"byte {byte} is no trit code"):
        unpack(np.array([[0, 242], [byte, 121]], np.uint8), 10)


@pytest.mark.parametrize("value", [-128, -2, 2, 127])
def test_values_that_are_no_trits_are_refused(value):
    with pytest.raises(SternaError, match="not -1, 0 or 1"):
        pack(np.array([0, value, 1], np.int8))


@pytest.mark.parametrize("count", range(1, 12))
def test_last_byte_is_filled_with_zero_trits(count):
    packed = pack(np.ones((3, count), np.int8))
    assert packed.shape == (3, -(-count // 5))
    assert packed.dtype == np.uint8
    whole = unpack(packed, packed.shape[1] * 5)
    assert (whole[:, :count] == 1).all()
    assert (whole[:, count:] == 0).all()


@pytest.mark.parametrize("shape", [(0,), (0, 7), (3, 0), (2, 0, 5), (0, 0)])
def test_empty_axes_stay_empty(shape):
    packed = pack(np.zeros(shape, np.int8))
    assert packed.shape == (*shape[:-1], -(-shape[-1] // 5)) and packed.dtype == np.uint8
    assert unpack(packed, shape[-1]).shape == shape


@settings(max_examples=100, deadline=None)
@given(data=st.data(), shape=st.lists(st.integers(1, 6), max_size=2), columns=st.integers(1, 41))
def test_round_trip(data, shape, columns):
    count = int(np.prod(shape, dtype=int)) * columns
    flat = data.draw(st.lists(st.integers(-1, 1), min_size=count, max_size=count))
    trits = np.array(flat, np.int8).reshape(*shape, columns)
    packed = pack(trits)
    assert packed.shape == (*shape, -(-columns // 5))
    again = unpack(packed, columns)
    assert again.dtype == np.int8
    assert np.array_equal(again, trits)


def test_gray_walk_visits_every_code_by_one_activation_a_step():
    activations = np.array([1, 7, 50, 1000, -128])
    steps = gray_walk()
    assert len(steps) == CODES - 1
    trits, total = np.full(5, -1), -int(activations.sum())
    visited = [0]
    for place, subtract, code in steps:
        change = -1 if subtract else 1
        trits[place] += change
        total += change * int(activations[place])
        assert code_table()[code].tolist() == trits.tolist()
        assert total == int(trits @ activations)
        visited.append(code)
    assert sorted(visited) == list(range(CODES))
