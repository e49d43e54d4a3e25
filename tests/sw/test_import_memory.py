"""What an import with calibration, and the golden model, hold in memory: NumPy reports its arrays to tracemalloc."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint

from sterna.golden.calibrate import calibrate
from sterna.golden.model import GoldenModel
from sterna.importer import import_checkpoint
from sterna.model.store import Model

SIZES = {"hidden": 160, "inner": 240, "vocab": 64, "seed": 7}
LAYER_BYTES = 4 * (4 * 160 * 160 + 3 * 160 * 240)  # trits of a layer as float32: 870 kB
DEEP, SHALLOW = 12, 2


def peak(work: Callable[[], object]) -> int:
    """Bytes allocated at the same time, at most, by ``work``."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    path = tmp_path_factory.mktemp("memory")
    return {n: write_checkpoint(path / f"source-{n}", layers=n, **SIZES) for n in (SHALLOW, DEEP)}


def test_an_import_holds_no_more_for_more_layers(sources: dict[int, Path], tmp_path: Path) -> None:
    import_checkpoint(sources[SHALLOW], tmp_path / "warm")  # what the first import of a process loads and keeps
    peaks = {n: peak(partial(import_checkpoint, source, tmp_path / f"m{n}")) for n, source in sources.items()}
    assert peaks[SHALLOW] > LAYER_BYTES / 4  # the measure sees the trits of a projection
    assert peaks[DEEP] < peaks[SHALLOW] + 2 * LAYER_BYTES


@pytest.fixture(scope="module")
def deep(sources: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("deep") / "model"
    import_checkpoint(sources[DEEP], path, calibrate=False)
    return Model.open(path)


def test_calibration_holds_the_trits_of_one_projection(deep: Model) -> None:
    ids = np.arange(8).reshape(2, 4)
    assert peak(lambda: calibrate(deep, ids=ids)) < 2 * LAYER_BYTES


def test_golden_keeps_what_fits_and_the_same_integers(deep: Model) -> None:
    model = GoldenModel(deep).model  # its constants, made once
    logits = []

    def run(kept_bytes: int) -> int:
        def work() -> None:
            golden = GoldenModel(model, kept_bytes=kept_bytes)
            logits.append([golden.step([token]) for token in (3, 5)])

        return peak(work)

    none, some, every = run(0), run(6 * LAYER_BYTES), run(1 << 30)
    assert none < 2 * LAYER_BYTES
    assert 5 * LAYER_BYTES < some < 7 * LAYER_BYTES
    assert every > DEEP * LAYER_BYTES
    assert np.array_equal(logits[0], logits[1]) and np.array_equal(logits[1], logits[2])
