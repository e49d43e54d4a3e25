"""Programs of several clusters through the emulator and the driver: golden's integers, and defined errors."""

import dataclasses
import json
from contextlib import closing

import numpy as np
import pytest
from checkpoints import write_checkpoint
from cluster_models import CLUSTERED, MANY, TINY, random_model

from sterna.cli.main import main
from sterna.compiler.account import account
from sterna.compiler.image import compile_model
from sterna.emulator.exchange import Activations, Scalars, agree, run_in_step
from sterna.emulator.transport import EmulatorTransport
from sterna.engines.accelerator import AcceleratorEngine
from sterna.errors import DeviceError, SternaError
from sterna.golden.model import GoldenModel, Trace
from sterna.importer import import_checkpoint
from sterna.model.integer import IntegerModel
from sterna.model.store import Model
from sterna.spec.packing import ZERO_CODE

SMALL = {"hidden": 48, "layers": 2, "inner": 80, "vocab": 100}
LARGE = {"hidden": 256, "layers": 2, "inner": 512, "vocab": 256}


def stored(path, **geometry) -> Model:
    import_checkpoint(write_checkpoint(path / "source", seed=3, **geometry), path / "model")
    return Model.open(path / "model")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("small"), **SMALL)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("large"), **LARGE)


def engine(model, config):
    return AcceleratorEngine(EmulatorTransport(config), compile_model(model, config), model.geometry)


def of_cluster(trace, cluster, clusters):
    """The results of a golden trace that a cluster makes: its part of each."""
    return np.concatenate([np.split(values[0], clusters)[cluster] for _, values in trace.results])


@pytest.mark.parametrize(("name", "config"), [("small", TINY), ("large", TINY), ("large", MANY)])
def test_clusters_give_the_golden_integers(request, name, config):
    """A text, another one from an empty state, then a prompt of which only the end is sampled."""
    model = request.getfixturevalue(name)
    golden, rng = GoldenModel(model), np.random.default_rng(5)
    with closing(engine(model, config)) as device:
        for _ in range(2):
            golden.reset()
            device.reset()
            for token in rng.integers(0, model.geometry.vocab, 4):
                trace = Trace()
                logits = golden.step([token], trace=trace)[0]
                step = device.step(int(token), logits=True)
                assert np.array_equal(step.logits, logits) and step.sampled == np.argmax(logits)
                assert step.counters["saturations"] == trace.saturations
                for cluster in range(config.clusters):
                    found = device.transport.take_trace(cluster)
                    assert np.array_equal(found, of_cluster(trace, cluster, config.clusters))
        prompt = rng.integers(0, model.geometry.vocab, 3).tolist()
        expected = [golden.step([token])[0] for token in prompt]
        assert np.array_equal(device.prefill(prompt, logits=True).logits, expected[-1])


def test_saturations_of_all_clusters_are_counted(small):
    model = dataclasses.replace(IntegerModel.from_model(small), embed_shift=7)
    trace = Trace()
    logits = GoldenModel(model).step([9], trace=trace)[0]
    at_limit = np.abs(trace.results[0][1][0]) >= (1 << 23) - 1
    assert all(part.any() for part in np.split(at_limit, TINY.clusters))
    with closing(engine(model, TINY)) as device:
        step = device.step(9, logits=True)
    assert step.counters["saturations"] == trace.saturations
    assert np.array_equal(step.logits, logits)


def test_all_logits_equal_sample_the_lowest_token(small):
    integers = IntegerModel.from_model(small)
    head = dataclasses.replace(integers.head, packed=np.full_like(integers.head.packed, ZERO_CODE))
    with closing(engine(dataclasses.replace(integers, head=head), TINY)) as device:
        step = device.step(5, logits=True)
        assert step.sampled == 0 and not step.logits.any()


@pytest.mark.parametrize("memory", ["vector_depth", "param_depth", "state_depth", "activation_depth"])
def test_a_cluster_needs_memory_for_its_part(small, memory):
    """The least that is enough for a quarter of the model, and less than that."""
    enough = {"vector_depth": 32, "param_depth": 36, "state_depth": 24, "activation_depth": 80}[memory]
    compile_model(small, dataclasses.replace(TINY, **{memory: enough}))
    with pytest.raises(SternaError, match=f"needs {memory} {enough}, configuration sim-tiny-c4 has"):
        compile_model(small, dataclasses.replace(TINY, **{memory: enough - 8}))


def test_memory_of_a_channel_that_is_too_small_is_refused(small):
    image = compile_model(small, TINY)
    with pytest.raises(SternaError, match=f"image of {image.size} bytes exceeds the 12-bit memory port"):
        compile_model(small, dataclasses.replace(TINY, address_width=12))
    transport = EmulatorTransport(TINY, size=image.logits_address)
    with pytest.raises(DeviceError, match="behind each of 4 ports and the device has"):
        AcceleratorEngine(transport, image, small.geometry)
    enough = image.logits_address + 4 * SMALL["vocab"] // 4
    with closing(AcceleratorEngine(EmulatorTransport(TINY, size=enough), image, small.geometry)) as device:
        assert len(device.step(1, logits=True).logits) == SMALL["vocab"]


def test_each_memory_has_room_for_the_logits_of_its_cluster():
    image = compile_model(random_model(48, 80, 4096, 1), TINY)
    assert image.size == image.logits_address + 4096 // TINY.clusters * 4


def test_memories_of_the_clusters_are_apart():
    with EmulatorTransport(TINY, size=4096) as transport:
        for cluster in range(4):
            transport.write_memory(cluster * TINY.channel_bytes, bytes([cluster + 1]) * 4096)
        for cluster in range(4):
            assert transport.read_memory(cluster * TINY.channel_bytes, 4096) == bytes([cluster + 1]) * 4096
            with pytest.raises(DeviceError, match="not inside one of the 4 memories of 4096 bytes"):
                transport.read_memory(cluster * TINY.channel_bytes + 4095, 2)
        for outside in (-1, 4 * TINY.channel_bytes):
            with pytest.raises(DeviceError, match=f"bytes {outside}..{outside + 1} are not inside"):
                transport.read_memory(outside, 1)


@pytest.mark.parametrize("cluster", [0, 2])
def test_an_error_in_one_cluster_ends_the_token_and_the_next_is_correct(small, cluster):
    golden = GoldenModel(small)
    with closing(engine(small, TINY)) as device:
        image = compile_model(small, TINY)
        last = cluster * TINY.channel_bytes + image.program_beats * TINY.beat_bytes - TINY.descriptor_words * 8 - 1
        device.transport.write_memory(last, b"\xff")  # the last byte of the head's trits
        with pytest.raises(DeviceError, match="BAD_TRIT"):
            device.step(3)
        device.load()
        device.reset()
        assert np.array_equal(device.step(3, logits=True).logits, golden.step([3])[0])
        device.transport.write_register("VOCABULARY", 7)
        with pytest.raises(DeviceError, match="BAD_TOKEN"):
            device.step(7)


def test_clusters_that_are_not_in_step_are_an_error():
    def ends_early():
        return 1
        yield Scalars()

    def offers(offer):
        yield offer
        return 1

    assert run_in_step([offers(Scalars()), offers(Scalars())], vector_width=2) == [1, 1]
    activations = Activations(np.zeros(4, np.int64))
    for other in (ends_early(), offers(activations)):
        with pytest.raises(DeviceError, match="not in step"):
            run_in_step([offers(Scalars()), other], vector_width=2)
    for lengths in ((4, 2), (3, 3)):  # the second would not fill the lines of activation memory
        with pytest.raises(DeviceError, match="not in step"):
            agree([Activations(np.zeros(length, np.int64)) for length in lengths], vector_width=2)


@pytest.mark.parametrize("config", CLUSTERED, ids=lambda c: c.name)
def test_account_is_that_of_all_clusters(large, config, capsys):
    image = compile_model(large, config)
    found = account(image, config)
    assert found.total == config.clusters * (image.program_beats + image.embed_beats) * config.beat_bytes
    assert found.trits == image.weight_bytes
    assert main(["info", str(large.path), "--config", config.name, "--json"]) == 0
    stream = json.loads(capsys.readouterr().out)["stream"]
    assert (stream["total"], stream["clusters"]) == (found.total, config.clusters)
    assert main(["info", str(large.path), "--config", config.name]) == 0
    assert f"from the memories of {config.clusters} clusters" in capsys.readouterr().out


def test_compiling_counts_every_part(small):
    bars = []

    class Bar:
        def __init__(self, *, total, label, unit):
            self.total, self.done, self.open = total, 0, True
            bars.append(self)

        def update(self, n):
            self.done += n

        def close(self):
            self.open = False

    compile_model(small, TINY, progress=Bar)
    (bar,) = bars
    assert bar.done == bar.total > 4 * 2 * 19 and not bar.open
