"""A board as it is synthesised, behind its serial pins: the unchanged host driver starts it and runs a model."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint

from sterna.compiler.image import compile_model
from sterna.engines.accelerator import AcceleratorEngine
from sterna.engines.transport import open_transport
from sterna.errors import DeviceError, SternaError
from sterna.golden.model import GoldenModel
from sterna.importer import import_checkpoint
from sterna.link.transport import LinkTransport
from sterna.model.store import Model
from sterna.runtime.load import load
from sterna.spec.config import preset
from sterna.spec.registers import Control, Status
from sterna_sim.board.transport import TwinTransport, open_pipe

GEOMETRY = {"hidden": 45, "layers": 2, "inner": 77, "vocab": 97}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("twin")
    import_checkpoint(write_checkpoint(path / "source", seed=7, **GEOMETRY), path / "model")
    return Model.open(path / "model")


@pytest.fixture(scope="module")
def board():
    with TwinTransport(address="ecpix5") as transport:
        yield transport


@pytest.fixture(scope="module")
def engine(board, model):
    board.test_memory(range(0, 512))
    return AcceleratorEngine(board, compile_model(model, board.config), model.geometry)


def test_tokens_through_the_serial_pins_equal_golden(board, engine, model):
    assert board.identity.description.board == "ecpix5" and board.config == preset("ecpix5")
    golden, token = GoldenModel(model), 2
    for _ in range(3):
        step, expected = engine.step(token, logits=True), golden.step([token])[0]
        assert np.array_equal(step.logits, expected)
        assert step.sampled == int(np.argmax(expected))
        token = step.sampled
    assert board.repeats == 0


def test_memory_of_any_alignment(board):
    data = np.random.default_rng(5).bytes(333)
    for address in (1 << 20, (1 << 28) + 7, board.memory_bytes - len(data)):
        board.write_memory(address, data)
    for address in (1 << 20, (1 << 28) + 7, board.memory_bytes - len(data)):
        assert board.read_memory(address, len(data)) == data
    with pytest.raises(DeviceError, match="not inside the board's memory"):
        board.read_memory(board.memory_bytes - 1, 2)


def test_a_board_is_asked_for_its_configuration(model):
    with pytest.raises(SternaError, match="tells its configuration itself"):
        load(model.path, device="twin:ecpix5", config="sim-tiny")


def test_stale_bitstream_is_refused():
    with pytest.raises(DeviceError, match="its bitstream is stale"):
        LinkTransport(open_pipe("ecpix5"), build="c0ffee", memory_test="none")


def test_unknown_boards_are_refused():
    for name, reason in (("ecp9", "no board"), ("ulx3s", "no twin")):
        with pytest.raises(SternaError, match=reason):
            open_transport(f"twin:{name}")


def test_unplugged_in_the_middle_of_a_token(board, engine):
    engine.step(2)
    board.write_register("TOKEN", 3)
    board.write_register("CONTROL", Control.START)
    board.pipe.unplug_after(0)
    with pytest.raises(DeviceError, match="unplugged"):
        board.wait(Status.DONE | Status.ERROR)
    with pytest.raises(DeviceError, match=r"unplugged|closed"):
        engine.step(2)
