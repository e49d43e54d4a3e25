"""Programs of several clusters through the emulator and the driver: golden's integers, each trit in one cluster."""

import dataclasses
from contextlib import closing

import numpy as np
import pytest
from checkpoints import write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.compiler.account import account
from sterna.compiler.arrangement import Arrangement
from sterna.compiler.image import compile_model
from sterna.compiler.layout import ColumnBlocks
from sterna.emulator.exchange import Activations, Scalars, agree, run_in_step
from sterna.emulator.transport import EmulatorTransport
from sterna.engines.accelerator import AcceleratorEngine
from sterna.errors import DeviceError, SternaError
from sterna.golden.model import GoldenModel, Trace
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.spec import isa
from sterna.spec.config import PRESETS, preset
from sterna.spec.packing import TRITS_PER_BYTE, unpack
from sterna.spec.registers import Status

TINY, MANY = preset("sim-tiny-c4"), preset("u280")
SMALL = {"hidden": 48, "layers": 2, "inner": 80, "vocab": 100}
LARGE = {"hidden": 256, "layers": 2, "inner": 512, "vocab": 256}
CLUSTERED = [config for config in PRESETS.values() if config.clusters > 1]


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
