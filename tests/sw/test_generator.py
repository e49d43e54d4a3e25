"""The generator of fixed trits: published answers, a second implementation from docs/reservoir.md, and statistics."""

from __future__ import annotations

import numpy as np
import pytest

from sterna.model.reservoir import Reservoir
from sterna.spec import generator
from sterna.spec.packing import CODES, code_table, unpack

ONES = 0xFFFFFFFF
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)

# kat_vectors of the Random123 distribution: rounds, counter, key, answer.
KNOWN_ANSWERS = [
    (13, (0, 0), (0, 0), (0x9D1C5EC6, 0x8BD50731)),
    (13, (ONES, ONES), (ONES, ONES), (0xFD36D048, 0x2D17272C)),
    (13, PI[:2], PI[2:], (0xBA3E4725, 0xF27D669E)),
    (20, (0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    (20, (ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
    (20, PI[:2], PI[2:], (0xC4923A9C, 0x483DF7A0)),
]


def second_threefry(key: tuple[int, int], counter: tuple[int, int]) -> int:
    """x0 + 2^32 x1 of Threefry-2x32 with 13 rounds, from the paper's description, in plain integers."""
    schedule = [*key, key[0] ^ key[1] ^ 0x1BD11BDA]
    x0, x1 = (counter[0] + key[0]) % 2**32, (counter[1] + key[1]) % 2**32
    for number, turn in enumerate((13, 15, 26, 6, 17, 29, 16, 24, 13, 15, 26, 6, 17), start=1):
        x0 = (x0 + x1) % 2**32
        x1 = (x1 * 2**turn % 2**32 + x1 // 2 ** (32 - turn)) ^ x0
        if number % 4 == 0:
            x0 = (x0 + schedule[number // 4 % 3]) % 2**32
            x1 = (x1 + schedule[(number // 4 + 1) % 3] + number // 4) % 2**32
    return x0 + 2**32 * x1


def second_trit(seed: int, kind: str, layer: int | None, row: int, column: int) -> int:
    """One weight of a fixed projection as docs/reservoir.md defines it; ``layer`` None where shared."""
    kinds = {"f": 0, "i": 1, "g": 2, "o": 3, "gate": 4, "down": 5}
    stream = kinds[kind] if layer is None else kinds[kind] + 8 * (layer + 1)
    group, place = divmod(column, 5)
    result = second_threefry((seed, stream), (group // 8, row))
    r = result >> 8 * (group % 8) & 255
    code = r if r < 243 else r - 128
    return code // 3**place % 3 - 1


def trits(seed: int, stream: int, rows: int, columns: int) -> np.ndarray:
    return unpack(generator.fixed_rows(seed, stream, range(rows), columns), columns)


@pytest.mark.parametrize(("rounds", "counter", "key", "answer"), KNOWN_ANSWERS)
def test_known_answers(rounds, counter, key, answer):
    words = tuple(np.array([word], np.uint32) for word in counter)
    low, high = generator.threefry(key, words, rounds=rounds)
    assert (int(low[0]), int(high[0])) == answer
    assert low.dtype == high.dtype == np.uint32


def test_known_answers_of_the_second_implementation():
    for rounds, counter, key, (low, high) in KNOWN_ANSWERS:
        assert rounds != 13 or second_threefry(key, counter) == low + 2**32 * high


@pytest.mark.parametrize("columns", [1, 4, 5, 6, 39, 40, 41, 43, 200, 333])
@pytest.mark.parametrize("kind", generator.KINDS)
def test_every_trit_equals_the_second_implementation(kind, columns):
    random = np.random.default_rng(columns)
    seed, layer, rows = int(random.integers(1 << 32)), int(random.integers(64)), int(random.integers(1, 12))
    for shared in (True, False):
        reservoir = Reservoir(seed=seed, shared=shared, fixed={kind: (layer,)})
        packed = reservoir.packed(kind, layer, rows, columns)
        assert packed.shape == (rows, -(-columns // 5)) and packed.dtype == np.uint8
        expected = [
            [second_trit(seed, kind, None if shared else layer, row, column) for column in range(columns)]
            for row in range(rows)
        ]
        assert unpack(packed, columns).tolist() == expected
        filling = unpack(packed, 5 * packed.shape[1])[:, columns:]
        assert not filling.any()


@pytest.mark.parametrize("seed", [0, 1, ONES])
def test_extreme_seeds_equal_the_second_implementation(seed):
    found = trits(seed, generator.stream("down", 3, shared=False), 3, 90)
    assert found.tolist() == [[second_trit(seed, "down", 3, row, column) for column in range(90)] for row in range(3)]


def test_rows_are_the_same_whatever_is_made_with_them():
    columns, rows = 5 * 1021, 700  # more than one chunk
    whole = generator.fixed_rows(9, 5, range(rows), columns)
    assert np.array_equal(generator.fixed_rows(9, 5, range(431, 440), columns), whole[431:440])
    assert np.array_equal(generator.fixed_rows(9, 5, range(3, rows, 100), columns), whole[3::100])
    assert whole[699, :2].tolist() == [
        sum(3**place * (second_trit(9, "down", None, 699, 5 * group + place) + 1) for place in range(5))
        for group in range(2)
    ]


def test_streams_have_the_numbers_of_the_docs():
    assert [generator.stream(kind, 7, shared=True) for kind in generator.KINDS] == [0, 1, 2, 3, 4, 5]
    assert generator.stream("gate", 0, shared=False) == 12
    assert generator.stream("down", 2, shared=False) == 29
    numbers = [generator.stream(kind, layer, shared=False) for kind in generator.KINDS for layer in range(50)]
    shared = [generator.stream(kind, 0, shared=True) for kind in generator.KINDS]
    assert len({*numbers, *shared}) == 306


def test_all_bytes_map_to_codes_whose_mean_is_exactly_zero():
    """The 256 equally likely bytes: each trit and its negative come equally often, at every place."""
    byte = np.arange(256)
    codes = np.where(byte < CODES, byte, byte - 128)
    assert codes.max() < CODES
    drawn = code_table()[codes]
    assert not drawn.sum(axis=0).any()
    negated = np.sort(242 - codes)
    assert np.array_equal(np.sort(codes), negated)
    assert (drawn == 0).sum(axis=0).tolist() == [86, 84, 90, 94, 94]


def test_bytes_that_are_no_code_fall_on_115_to_127():
    """Found in a long stream by its raw bytes, not by the formula."""
    low, high = generator.threefry((3, 4), (np.arange(4096, dtype=np.uint32)[None, :], np.zeros((1, 1), np.uint32)))
    raw = np.stack([low, high], axis=-1).astype("<u4").view(np.uint8).reshape(-1)
    codes = generator.fixed_rows(3, 4, range(1), 5 * raw.size)[0]
    assert np.array_equal(codes[raw < 243], raw[raw < 243])
    assert sorted({(int(r), int(c)) for r, c in zip(raw, codes, strict=True) if r >= 243}) == [
        (243 + k, 115 + k) for k in range(13)
    ]


def test_trits_are_fair_and_independent():
    weights = trits(1, 0, 1024, 1000).astype(np.float64)
    count = weights.size
    for place, zeros in enumerate((86, 84, 90, 94, 94)):  # of the 256 bytes; the others are shared fairly
        drawn = weights[:, place::5]
        for trit, share in ((-1, (256 - zeros) / 512), (0, zeros / 256), (1, (256 - zeros) / 512)):
            assert abs((drawn == trit).mean() - share) < 5 * np.sqrt(2 / 9 / drawn.size)
    assert abs(weights.mean()) < 5 * np.sqrt(2 / 3 / count)
    correlation = np.corrcoef(weights)
    np.fill_diagonal(correlation, 0)
    assert abs(correlation).max() < 6 / np.sqrt(weights.shape[1])
    assert abs(correlation[correlation != 0].std() - 1 / np.sqrt(weights.shape[1])) < 0.002
    neighbours = (weights[:, 1:] * weights[:, :-1]).mean() / (2 / 3)
    assert abs(neighbours) < 5 / np.sqrt(count)
    assert np.linalg.matrix_rank(weights) == 1000


@pytest.mark.parametrize("other", ["seed", "kind", "layer"])
def test_streams_are_unrelated(other):
    size = (256, 400)
    a = trits(1, generator.stream("f", 0, shared=False), *size)
    b = trits(
        2 if other == "seed" else 1,
        generator.stream("i" if other == "kind" else "f", 1 if other == "layer" else 0, shared=False),
        *size,
    )
    assert abs(np.corrcoef(a.reshape(-1), b.reshape(-1))[0, 1]) < 5 / np.sqrt(a.size)


def test_scale_gives_unit_variance():
    random = np.random.default_rng(0)
    for columns in (37, 512, 2560):
        beta = generator.fixed_beta(columns)
        assert beta == float(np.float32(np.sqrt(1.5 / columns)))
        y = beta * trits(1, 3, 512, columns) @ random.standard_normal((columns, 64))
        assert abs(y.std() - 1) < 0.05
