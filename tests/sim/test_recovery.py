"""What a device may meet: slow and failing memory, resets at any cycle, models that do not fit; and no wrong token."""

from __future__ import annotations

import dataclasses
import random
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint

from sterna.compiler.image import compile_model
from sterna.engines.accelerator import AcceleratorEngine
from sterna.errors import DeviceError, SternaError
from sterna.golden.model import GoldenModel
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.spec.config import preset
from sterna.spec.registers import Control, ErrorCause, Status
from sterna_sim.memory import MemoryModel
from sterna_sim.transport import VerilatorTransport

TINY = preset("sim-tiny")
IDS = (2, 96, 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("recovery")
    source = write_checkpoint(path / "source", hidden=45, layers=2, inner=77, vocab=97, seed=7)
    import_checkpoint(source, path / "model")
    return Model.open(path / "model")


@pytest.fixture(scope="module")
def expected(model: Model) -> list[np.ndarray]:
    """Logits of IDS in a row."""
    golden = GoldenModel(model)
    return [golden.step([token])[0] for token in IDS]


def open_engine(model: Model, memory: MemoryModel | None = None, **options: int) -> AcceleratorEngine:
    transport = VerilatorTransport(TINY, memory=memory, **options)
    return AcceleratorEngine(transport, compile_model(model, TINY), model.geometry)


def check(engine: AcceleratorEngine, expected: list[np.ndarray]) -> None:
    for token, logits in zip(IDS, expected, strict=True):
        assert np.array_equal(engine.step(token, logits=True).logits, logits)


# --- stalls ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "memory",
    [
        MemoryModel(stall=0.97, seed=3),
        MemoryModel(latency=5000),
        MemoryModel(refresh_interval=6000, refresh_cycles=5900),
        MemoryModel(beats_numerator=1, beats_denominator=97, stall=0.5, seed=4),
    ],
    ids=["every-channel", "answers", "all-at-once", "trickle"],
)
def test_stalls_of_thousands_of_cycles_change_no_integer(
    model: Model, expected: list[np.ndarray], memory: MemoryModel
) -> None:
    engine = open_engine(model, memory)
    check(engine, expected)
    engine.close()


def test_an_answer_that_comes_after_the_time_out_is_not_taken_for_the_next_tokens(
    model: Model, expected: list[np.ndarray]
) -> None:
    engine = open_engine(model, MemoryModel(latency=5000), quiet_limit=3000)
    with pytest.raises(DeviceError, match=r"time-out.*nothing passed the memory port for 3000 cycles"):
        engine.step(7)
    with pytest.raises(DeviceError, match="reset"):
        engine.step(7)
    engine.transport._quiet_limit = 500_000
    engine.reset()
    check(engine, expected)
    engine.close()


# --- error responses -------------------------------------------------------------------------------------------------
def fails_and_recovers(engine: AcceleratorEngine, cause: ErrorCause, expected: list[np.ndarray]) -> None:
    with pytest.raises(DeviceError, match=rf"the accelerator stopped at token 7: .* \({cause.name}\)$"):
        engine.step(7, logits=True)
    engine.transport.fail_reads(None)
    engine.transport.fail_writes(None)
    engine.reset()
    check(engine, expected)
    engine.close()


@pytest.mark.parametrize("stall", [0.0, 0.5])
@pytest.mark.parametrize("part", ["embedding", "first", "last"])
def test_a_read_error_anywhere(model: Model, expected: list[np.ndarray], part: str, stall: float) -> None:
    engine = open_engine(model, MemoryModel(stall=stall, seed=6))
    image = compile_model(model, TINY)
    beat = TINY.beat_bytes
    address = {
        "embedding": image.embed_address + 7 * image.embed_beats * beat,
        "first": image.program_address,
        "last": image.program_address + (image.program_beats - 1) * beat,
    }[part]
    engine.transport.fail_reads(range(address, address + 1))
    fails_and_recovers(engine, ErrorCause.BUS_READ, expected)


@pytest.mark.parametrize("row", [0, 50, 96])
def test_a_write_error_anywhere(model: Model, expected: list[np.ndarray], row: int) -> None:
    engine = open_engine(model, MemoryModel(stall=0.5, seed=8))
    address = compile_model(model, TINY).logits_address + 4 * row
    engine.transport.fail_writes(range(address, address + 4))
    fails_and_recovers(engine, ErrorCause.BUS_WRITE, expected)


@pytest.mark.parametrize("register", ["PROGRAM_ADDRESS", "EMBED_ADDRESS", "LOGITS_ADDRESS"])
def test_addresses_outside_the_memory(model: Model, expected: list[np.ndarray], register: str) -> None:
    """The memory answers DECERR."""
    engine = open_engine(model, MemoryModel(size=1 << 20))
    engine.transport.write_register(register, 1 << 20)
    fails_and_recovers(engine, ErrorCause.BUS_WRITE if "LOGITS" in register else ErrorCause.BUS_READ, expected)


# --- resets ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("memory", [MemoryModel(), MemoryModel(latency=150, stall=0.3, seed=9)], ids=["fast", "slow"])
def test_reset_at_any_cycle(model: Model, expected: list[np.ndarray], memory: MemoryModel) -> None:
    engine = open_engine(model, memory)
    transport = engine.transport
    length = engine.step(7, logits=True).counters["cycles"]
    dice = random.Random(12)
    for cycles in [1, length - 1, *(dice.randrange(length) for _ in range(12))]:
        engine.reset()
        transport.write_register("TOKEN", 7)
        transport.write_register("CONTROL", Control.START | Control.LOGITS)
        transport.run(cycles)
        transport.write_register("CONTROL", Control.RESET)
        for _ in range(2000):  # register accesses take cycles
            if not transport.read_register("STATUS") & Status.BUSY:
                break
        assert transport.read_register("STATUS") == 0, cycles
        engine.reset()
        for token, logits in zip(IDS[:2], expected, strict=False):
            assert np.array_equal(engine.step(token, logits=True).logits, logits), cycles
    engine.close()


def test_the_reset_pin_at_any_cycle(model: Model, expected: list[np.ndarray]) -> None:
    """As after a brown-out: the addresses are lost too, and a new driver writes them."""
    engine = open_engine(model)
    transport, image = engine.transport, compile_model(model, TINY)
    for cycles in (1, 500, 4000):
        transport.write_register("CONTROL", Control.START)
        transport.run(cycles)
        transport.reset()
        again = AcceleratorEngine(transport, image, model.geometry)
        check(again, expected)
    engine.close()


@pytest.mark.parametrize("written", [False, True], ids=["reads", "writes"])
def test_reset_is_busy_until_all_is_answered(model: Model, expected: list[np.ndarray], written: bool) -> None:
    """So that the host may use the memory as soon as the accelerator is idle."""
    engine = open_engine(model, MemoryModel(latency=3000))
    transport = engine.transport
    transport.write_register("CONTROL", Control.START | Control.FRESH | Control.LOGITS)
    transport.run(100)
    while written and transport.traffic.write_beats * TINY.beat_bytes < 4 * model.geometry.vocab:
        transport.run(100)  # until the program has been read
    transport.write_register("CONTROL", Control.RESET)
    transport.run(1000)
    assert Status(transport.read_register("STATUS")) == Status.BUSY
    transport.run(2500)
    assert transport.read_register("STATUS") == 0
    check(engine, expected)
    engine.close()


@pytest.mark.parametrize("cycles", [3, 900, 6000])
def test_a_driver_that_finds_a_token_under_way(model: Model, expected: list[np.ndarray], cycles: int) -> None:
    """As when the host's process was killed."""
    engine = open_engine(model, MemoryModel(latency=300))
    engine.transport.write_register("CONTROL", Control.START | Control.LOGITS)
    engine.transport.run(cycles)
    again = AcceleratorEngine(engine.transport, compile_model(model, TINY), model.geometry)
    check(again, expected)
    again.close()


# --- models that do not fit ------------------------------------------------------------------------------------------
def test_a_memory_that_is_too_small_is_refused_before_anything_is_written(model: Model) -> None:
    image = compile_model(model, TINY)
    size = 4096 * (image.size // 4096 - 1)
    transport = VerilatorTransport(TINY, memory=MemoryModel(size=size))
    with pytest.raises(DeviceError, match=rf"the model takes \d+ bytes of memory and the device has {size}: choose"):
        AcceleratorEngine(transport, image, model.geometry)


def test_an_image_beyond_the_memory_port_is_refused(model: Model) -> None:
    size = compile_model(model, TINY).size
    enough = (size - 1).bit_length()
    assert compile_model(model, dataclasses.replace(TINY, address_width=enough)).size == size
    with pytest.raises(SternaError, match=rf"^the image of {size} bytes exceeds the {enough - 1}-bit memory port of"):
        compile_model(model, dataclasses.replace(TINY, address_width=enough - 1))
