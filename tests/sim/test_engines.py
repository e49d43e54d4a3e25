"""One suite for every device that ``sterna.load`` opens: the same model, the same integers, the same manners."""

from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint

import sterna
from sterna.emulator.board import SoftwareBoard
from sterna.emulator.pipes import PtyBoard
from sterna.errors import SternaError
from sterna.golden.model import GoldenModel
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.runtime.load import devices
from sterna.spec.config import PRESETS

NEEDS_GPU = pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="needs an NVIDIA GPU")
VOCAB = 61
OPTIONS = {"verilator": {"config": "sim-tiny"}, "emulator": {"config": PRESETS["sim-tiny"]}}


RESERVOIR = {"seed": 4, "shared": False, "fixed": {"f": [0, 1], "o": [1], "down": [0]}, "mixer_only": [1]}


@pytest.fixture(scope="module", params=[None, RESERVOIR], ids=["ordinary", "reservoir"])
def path(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    sizes = {"hidden": 45, "layers": 2, "inner": 47, "vocab": VOCAB}
    source = write_checkpoint(folder / "source", **sizes, seed=9, tokenizer=False, reservoir=request.param)
    import_checkpoint(source, folder / "model")
    return folder / "model"


@pytest.fixture
def port():
    """Of a board in software behind a pseudo-terminal."""
    pytest.importorskip("serial", reason="needs pip install 'sterna[board]'")
    with PtyBoard(SoftwareBoard()) as plugged:
        yield plugged.port


@pytest.fixture
def socket(monkeypatch):
    """A board in software in the only USB socket."""
    core = pytest.importorskip("usb.core", reason="needs pip install 'sterna[board]'")
    from usb_backend import FakeBackend, Plugged

    backend = FakeBackend(Plugged(SoftwareBoard(), serial="1"))
    monkeypatch.setattr(core, "find", functools.partial(core.find, backend=backend))


DEVICES = ["golden", "cpu", pytest.param("cuda", marks=NEEDS_GPU), "emulator", "verilator", "serial", "usb"]


@pytest.fixture(params=DEVICES)
def session(request, path):
    device, options = request.param, OPTIONS.get(request.param, {})
    if device == "serial":
        device = f"serial:{request.getfixturevalue('port')}?baud=3000000"
    elif device == "usb":
        request.getfixturevalue("socket")
    with sterna.load(path, device=device, **options) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(path):
    golden = GoldenModel(Model.open(path))
    return np.stack([golden.step([token])[0] for token in (3, 60, 0, 7)])


def test_the_suite_covers_every_device():
    covered = {"golden", "cpu", "cuda", "emulator", "verilator", "serial", "usb"}
    elsewhere = {"twin", "mapped"}  # test_board_twin.py: minutes for a token; test_mapped_device.py
    assert set(devices()) == covered | elsewhere


def test_logits_are_the_golden_integers(session, expected):
    assert np.array_equal(session.forward_integers([3, 60, 0, 7]), expected)


def test_state_is_carried_between_calls_and_forgotten_at_reset(session, expected):
    session.forward_integers([3, 60])
    assert np.array_equal(session.forward_integers([0, 7]), expected[2:])
    session.reset()
    assert np.array_equal(session.forward_integers([3]), expected[:1])


def test_greedy_generation_follows_the_logits(session, path):
    golden, ids = GoldenModel(Model.open(path)), []
    logits = [golden.step([token]) for token in (5, 6)][-1]
    for _ in range(5):
        ids.append(int(np.argmax(logits)))
        logits = golden.step([ids[-1]])
    generation = session.generate([5, 6], tokens=5, stop_at_eos=False)
    for _ in generation:
        pass
    assert generation.ids == ids


def test_a_token_outside_the_vocabulary_is_refused_and_harms_nothing(session, expected):
    with pytest.raises(SternaError, match="vocabulary"):
        session.forward_integers([VOCAB])
    session.reset()
    assert np.array_equal(session.forward_integers([3]), expected[:1])


def test_a_closed_session_refuses(session):
    session.close()
    with pytest.raises(SternaError):
        session.forward_integers([1])
