"""Whole tokens on clusters, through the RTL: golden's integers on memories that never agree, and defined errors."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint

from sterna.compiler.image import compile_model
from sterna.engines.accelerator import AcceleratorEngine
from sterna.errors import DeviceError
from sterna.golden.model import GoldenModel
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.spec.config import PRESETS
from sterna.spec.registers import Control, Stall, Status
from sterna_sim.banked import HBM32
from sterna_sim.cosim import CoSimulation
from sterna_sim.memory import MemoryModel
from sterna_sim.transport import VerilatorTransport

CONFIG = PRESETS["sim-tiny-c4"]
SIZES = {"hidden": 64, "layers": 2, "inner": 128, "vocab": 96}
# A channel for each cluster, as narrow as its port.
CHANNELS = dataclasses.replace(
    HBM32, ports=CONFIG.clusters, slice_bytes=8, channel_rate=HBM32.channel_rate // 8, trefi=900, size=1 << 24
)
TOKENS = (3, 17, 95, 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    path = tmp_path_factory.mktemp("clusters")
    import_checkpoint(write_checkpoint(path / "source", seed=7, **SIZES), path / "model")
    return Model.open(path / "model")


@pytest.fixture(scope="module")
def image(model):
    return compile_model(model, CONFIG)


@pytest.fixture
def engine(model, image):
    with closing(AcceleratorEngine(VerilatorTransport(CONFIG), image, model.geometry)) as opened:
        yield opened


@pytest.fixture
def golden(model):
    """Logits of a token that comes first."""
    return lambda token: GoldenModel(model).step([token])[0]


@pytest.mark.parametrize(
    "memory",
    [MemoryModel(), MemoryModel(stall=0.3, seed=5), MemoryModel(stall=0.8, seed=6), CHANNELS],
    ids=["ideal", "stalls", "more stalls", "channels"],
)
def test_every_integer_equals_goldens(model, memory):
    with CoSimulation(model, CONFIG, memory=memory) as cosim:
        checked = [cosim.step(token) for token in TOKENS]
    assert {found.beats for found in checked} == {cosim.image.embed_beats + cosim.image.program_beats}
    assert checked[0].integers == sum(SIZES[name] for name in ("hidden", "vocab")) + SIZES["layers"] * (
        5 * SIZES["hidden"] + 2 * SIZES["inner"]
    )
    if memory == MemoryModel():  # no chance in it: each token takes the same cycles, for the same reasons
        assert len({(found.cycles, *found.stalls.items()) for found in checked}) == 1


def test_words_of_two_beats_and_more_clusters(model):
    """As on u280 a word takes two beats, and rows share words."""
    config = dataclasses.replace(CONFIG, name="eight-clusters", word_bytes=16, clusters=8, max_rows_per_word=4)
    with CoSimulation(model, config, memory=MemoryModel(stall=0.2, seed=8)) as cosim:
        for token in TOKENS:
            cosim.step(token)


def test_logits_and_state_come_from_all_clusters(model, engine):
    golden = GoldenModel(model)
    for token in TOKENS:
        step = engine.step(token, logits=True)
        expected = golden.step([token])[0]
        np.testing.assert_array_equal(step.logits, expected)
        assert step.sampled == np.argmax(expected)
    engine.reset()
    np.testing.assert_array_equal(engine.step(5, logits=True).logits, GoldenModel(model).step([5])[0])


@pytest.mark.parametrize("cluster", [0, 3])
def test_an_error_in_one_cluster_ends_the_token_of_all(engine, image, golden, cluster):
    """The others wait for the one that failed, and come to rest with it."""
    transport = engine.transport
    middle = cluster * CONFIG.channel_bytes + image.program_address + image.program_beats // 2 * CONFIG.beat_bytes
    transport.fail_reads(range(middle, middle + CONFIG.beat_bytes))
    with pytest.raises(DeviceError, match="BUS_READ"):
        engine.step(9)
    assert transport.read_register("STATUS") & Status.ERROR
    transport.fail_reads(None)
    engine.reset()
    np.testing.assert_array_equal(engine.step(9, logits=True).logits, golden(9))


def test_a_code_that_is_no_byte_of_trits_is_found_in_any_cluster(engine, image, golden):
    transport = engine.transport
    last = 2 * CONFIG.channel_bytes + image.program_address + (image.program_beats - 1) * CONFIG.beat_bytes
    words = transport.read_memory(last - 64 * CONFIG.beat_bytes, 64 * CONFIG.beat_bytes)
    transport.write_memory(last - 16 * CONFIG.beat_bytes, b"\xff" * CONFIG.beat_bytes)
    with pytest.raises(DeviceError, match="BAD_TRIT"):
        engine.step(9)
    transport.write_memory(last - 64 * CONFIG.beat_bytes, words)
    engine.reset()
    np.testing.assert_array_equal(engine.step(9, logits=True).logits, golden(9))


@pytest.mark.parametrize("cycles", [40, 700, 1900])
def test_an_abandoned_token_leaves_nothing_behind(engine, golden, cycles):
    """RESET in the middle of a token, some clusters perhaps with an offer made."""
    transport = engine.transport
    engine.step(4)
    transport.write_register("CONTROL", Control.START | Control.FRESH)
    transport.run(cycles)
    transport.write_register("CONTROL", Control.RESET)
    while transport.read_register("STATUS") & Status.BUSY:
        pass
    engine.reset()
    step = engine.step(9, logits=True)
    np.testing.assert_array_equal(step.logits, golden(9))
    assert sum(engine.stalls().values()) + step.counters["read_beats"] == step.counters["cycles"]
    assert engine.stalls()[Stall.STARTUP] > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_start_while_a_cluster_drains_is_no_start(model, image, golden, seed):
    """Memories out of step: some clusters are at rest, and would start, while others still abandon the last token."""
    transport = VerilatorTransport(CONFIG, memory=MemoryModel(latency=30, stall=0.9, seed=seed))
    with closing(AcceleratorEngine(transport, image, model.geometry)) as engine:
        for cycles in (300, 1500, 4000):
            transport.write_register("CONTROL", Control.START | Control.FRESH)
            transport.run(cycles)
            transport.write_register("CONTROL", Control.RESET)
            for _ in range(150):
                transport.write_register("CONTROL", Control.START)
            for _ in range(1000):  # the last one may have been one, for all of them
                transport.run(100)
                if not transport.read_register("STATUS") & Status.BUSY:
                    break
            else:
                pytest.fail("some clusters started, and wait for the others")
            engine.reset()
            np.testing.assert_array_equal(engine.step(9, logits=True).logits, golden(9))


def test_cycles_are_those_until_the_last_cluster_has_ended(model, image):
    """Cluster 0 answers for all, and is rarely the last where memories stall."""
    transport = VerilatorTransport(CONFIG, memory=MemoryModel(latency=30, stall=0.9, seed=4))
    with closing(AcceleratorEngine(transport, image, model.geometry)):
        for token in range(6):
            transport.write_register("TOKEN", token)
            transport.write_register("CONTROL", Control.START | Control.LOGITS)
            started, busy = transport.cycle, True
            while busy:
                asked = transport.cycle
                busy = bool(transport.read_register("STATUS") & Status.BUSY)
            length, read = asked - started, transport.cycle - asked
            assert abs(transport.read_register("CYCLES") - length) <= 2 * read
