"""The fast engine gives the integers of the golden model, in every geometry."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint

from sterna.engines.cpu import CpuEngine
from sterna.engines.golden import GoldenEngine
from sterna.engines.kernels import integers, projection
from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.spec import numerics
from sterna.spec.numerics import ScaleConstants
from sterna.spec.packing import pack


def make_model(path: Path, *, seed: int = 1, **sizes: int) -> Model:
    write_checkpoint(path / "checkpoint", seed=seed, **sizes)
    import_checkpoint(path / "checkpoint", path / "model")
    return Model.open(path / "model")


def assert_equal(model: Model, tokens: list[int], **options: int) -> int:
    """Run both engines; returns how many results were clamped."""
    cpu, golden = CpuEngine(model, **options), GoldenEngine(model)
    clamped = 0
    for position, token in enumerate(tokens):
        ours, expected = cpu.step(token, logits=True), golden.step(token, logits=True)
        np.testing.assert_array_equal(ours.logits, expected.logits, err_msg=f"position {position}")
        assert ours.logits.dtype == expected.logits.dtype == np.int32
        assert (ours.sampled, ours.counters) == (expected.sampled, expected.counters)
        clamped += ours.counters["saturations"]
    np.testing.assert_array_equal(cpu.state, golden.state)
    return clamped


@pytest.mark.parametrize(
    ("hidden", "layers", "inner", "vocab"),
    [
        (1, 1, 1, 2),
        (4, 2, 11, 3),
        (5, 1, 3, 7),
        (37, 2, 53, 61),
        (63, 3, 5, 300),
        (319, 1, 97, 41),  # 64 bytes a row, the last one not full
        (321, 2, 130, 257),  # one byte more
        (131, 1, 701, 83),
    ],
)
def test_equals_golden(tmp_path: Path, hidden: int, layers: int, inner: int, vocab: int) -> None:
    model = make_model(tmp_path, hidden=hidden, layers=layers, inner=inner, vocab=vocab, seed=hidden)
    tokens = np.random.default_rng(hidden).integers(0, vocab, 6).tolist()
    assert_equal(model, [0, vocab - 1, *tokens])


def test_random_geometries_equal_golden(tmp_path: Path) -> None:
    seed = int(np.random.default_rng().integers(1 << 31))
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    for case in range(4):
        hidden, inner, vocab = (int(size) for size in rng.integers(1, 200, 3))
        sizes = {"hidden": hidden, "layers": int(rng.integers(1, 4)), "inner": inner, "vocab": vocab + 1}
        print(sizes)
        model = make_model(tmp_path / str(case), seed=case, **sizes)
        assert_equal(model, rng.integers(0, vocab + 1, 5).tolist())


def test_clamps_like_golden(tmp_path: Path) -> None:
    model = make_model(tmp_path, hidden=45, layers=2, inner=67, vocab=50)
    for change in range(3):
        layers = [
            dataclasses.replace(
                layer,
                product_frac=26 if change == 0 else layer.product_frac,
                glu=dataclasses.replace(layer.glu, glu_frac=24) if change == 1 else layer.glu,
            )
            for layer in model.layers
        ]
        frac = min(model.embedding.frac + numerics.EMBED_MANTISSA_BITS, 23) if change == 2 else model.residual_frac
        changed = dataclasses.replace(model, layers=tuple(layers), residual_frac=frac)
        assert assert_equal(changed, [1, 2, 3, 49, 7]) > 0


def test_threads_change_nothing(tmp_path: Path) -> None:
    model = make_model(tmp_path, hidden=70, layers=1, inner=33, vocab=120)
    assert_equal(model, [3, 5, 119], threads=2, parallel_bytes=0)


def test_reset_forgets(tmp_path: Path) -> None:
    engine = CpuEngine(make_model(tmp_path, hidden=20, layers=1, inner=30, vocab=40))
    first = engine.step(5, logits=True).logits
    assert not np.array_equal(engine.step(5, logits=True).logits, first)
    engine.reset()
    np.testing.assert_array_equal(engine.step(5, logits=True).logits, first)
    assert engine.step(5).logits is None


def test_errors(tmp_path: Path) -> None:
    model = make_model(tmp_path, hidden=20, layers=1, inner=30, vocab=40)
    with pytest.raises(SternaError, match="threads must be"):
        CpuEngine(model, threads=0)
    engine = CpuEngine(model)
    for token in (-1, 40):
        with pytest.raises(SternaError, match=f"token id {token} is outside the vocabulary of 40"):
            engine.step(token)
    packed = np.array(model.head.packed)
    packed[-1, -1] = 243
    broken = dataclasses.replace(model, head=dataclasses.replace(model.head, source=lambda: packed))
    with pytest.raises(SternaError, match=r"head projection .* no trit code"):
        CpuEngine(broken)


def test_scalars_equal_the_specification() -> None:
    rng = np.random.default_rng(5)
    compared = 0
    for _ in range(4000):
        largest = int(rng.integers(1, 1 << int(rng.integers(1, 40))))
        s1, s2 = (int(rng.integers(0, 1 << int(rng.integers(1, 63)))) for _ in range(2))
        constants = ScaleConstants(
            eps_mantissa=int(rng.choice([0, (1 << 16) - 1, rng.integers(1 << 15, 1 << 16)])),
            eps_shift=int(rng.integers(0, 128)),
            eps_const=int(rng.integers(0, 1 << int(rng.integers(1, 41)))),
            mantissa=int(rng.integers(1 << 23, 1 << 24)),
            exponent=int(rng.integers(-70, 20)),
        )
        expected = numerics.quantiser_scalars(largest, s1, s2, constants)
        fields = np.array(dataclasses.astuple(constants), np.int64)
        assert integers.quantiser_scalars(largest, s1, s2, fields) == dataclasses.astuple(expected), (
            largest,
            s1,
            s2,
            constants,
        )
        compared += 0 < expected.scale_shift < numerics.MAX_SHIFT
    assert compared > 500  # not only clamped shifts
    zeros = integers.quantiser_scalars(0, 5, 5, np.array([1, 1, 1, 1 << 23, 0], np.int64))
    assert zeros == dataclasses.astuple(numerics.quantiser_scalars(0, 5, 5, ScaleConstants(1, 1, 1, 1 << 23, 0)))


@pytest.mark.parametrize("columns", [1, 4, 319, 320, 321, 65535])
def test_longest_rows_do_not_overflow(columns: int) -> None:
    """Rows of all -1, all 0, all +1 and mixed, on activations of the largest magnitude."""
    rng = np.random.default_rng(columns)
    trits = np.stack(
        [np.full(columns, value, np.int8) for value in (-1, 0, 1)] + [rng.integers(-1, 2, columns).astype(np.int8)]
    )
    for w in (np.full(columns, 1000), np.full(columns, -1000), rng.integers(-1000, 1001, columns)):
        w = w.astype(np.int64)
        weights = np.full(columns, 1 << 14, np.int64)
        constants = ScaleConstants(0, 0, 0, 1 << 23, -39)
        squares = int(np.sum(w * w))
        scalars = numerics.quantiser_scalars(int(np.abs(w * weights).max()), squares, 0, constants)
        q = numerics.quantise(w * weights, scalars.exponent, scalars.reciprocal)
        expected, clamped = numerics.scale_rows(trits.astype(np.int64) @ q, scalars.scale_mantissa, scalars.scale_shift)

        packed = pack(trits).reshape(-1)
        packed.flags.writeable = False
        scratch = np.zeros((5, -(-columns // 5) + projection.PADDING), np.int16)
        y, flags = np.zeros(len(trits), np.int64), np.zeros(len(trits), np.bool_)
        fields = np.array(dataclasses.astuple(constants), np.int64)
        projection.project(w, weights, squares, 0, fields, packed, scratch, y, flags, (1, 0))
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(flags, clamped)
        assert expected.any()
