"""Whole tokens through the RTL: every row result equals golden's, on several geometries, builds and memories."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint

from sterna.compiler.image import compile_model
from sterna.emulator.transport import EmulatorTransport
from sterna.engines.accelerator import AcceleratorEngine
from sterna.errors import DeviceError
from sterna.golden.model import GoldenModel, Trace
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.spec.config import HardwareConfig, preset
from sterna.spec.registers import Access, Control, ErrorCause, Status, registers_of
from sterna_sim.cosim import CoSimulation, Mismatch, compare_trace
from sterna_sim.memory import MemoryModel
from sterna_sim.transport import VerilatorTransport

TINY = preset("sim-tiny")
# Wide vectors, no tail blocks, a beat for each quarter of a word: what sim-tiny and sim-small are not.
WIDE = HardwareConfig(
    name="wide-vector",
    beat_bytes=4,
    word_bytes=16,
    vector_width=8,
    tile_rows=128,
    max_rows_per_word=1,
    activation_depth=1024,
    vector_depth=1024,
    param_depth=1024,
    state_depth=512,
    prefetch_words=64,
    burst_beats=16,
    outstanding=2,
    generator=True,
)
GEOMETRIES = {
    "odd": {"hidden": 45, "layers": 2, "inner": 77, "vocab": 97},
    "smallest": {"hidden": 3, "layers": 1, "inner": 5, "vocab": 7},
    "tails": {"hidden": 130, "layers": 3, "inner": 259, "vocab": 211},
    "reservoir": {
        "hidden": 43,
        "layers": 3,
        "inner": 61,
        "vocab": 83,
        "reservoir": {"seed": 6, "shared": True, "fixed": {"f": [0, 1], "i": [2], "gate": [0]}, "mixer_only": [1, 2]},
    },
    "generated": {
        "hidden": 130,
        "layers": 3,
        "inner": 159,
        "vocab": 83,
        "reservoir": {
            "seed": (1 << 32) - 3,
            "shared": False,
            "fixed": {"f": [0, 1], "i": [2], "g": [1], "gate": [0, 2], "o": [2], "down": [0]},
            "mixer_only": [1],
        },
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    found = {}
    for name, geometry in GEOMETRIES.items():
        path = tmp_path_factory.mktemp(name)
        import_checkpoint(write_checkpoint(path / "source", seed=7, **geometry), path / "model")
        found[name] = Model.open(path / "model")
    return found


@pytest.mark.parametrize("config", [TINY, WIDE], ids=lambda c: c.name)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_tokens_are_bit_exact(models, config, geometry):
    model, sizes = models[geometry], models[geometry].geometry
    rng = np.random.default_rng(11)
    with CoSimulation(model, config) as cosim:
        for token in rng.integers(0, sizes.vocab, 4):
            checked = cosim.step(int(token))
            layers = 4 * sizes.layers * sizes.hidden + len(sizes.glu_layers) * (sizes.hidden + 2 * sizes.inner)
            assert checked.integers == sizes.hidden + layers + sizes.vocab


def test_a_build_without_a_generator_reads_all_trits(models):
    """The same integers either way: they are the golden model's. What the generator makes is not read."""
    beats = {}
    for generator in (False, True):
        with CoSimulation(models["generated"], dataclasses.replace(TINY, generator=generator)) as cosim:
            beats[generator] = [cosim.step(token).beats for token in (3, 82)]
            made = cosim.image.generated_bytes // TINY.beat_bytes
            assert bool(made) == generator
    assert beats[True] == [count - made for count in beats[False]]


@pytest.mark.parametrize("model", ["tails", "generated"])
@pytest.mark.parametrize(
    "memory",
    [
        MemoryModel(latency=1),
        MemoryModel(latency=400),
        MemoryModel(stall=0.4, seed=5),
        MemoryModel(beats_numerator=1, beats_denominator=3, refresh_interval=780, refresh_cycles=30),
    ],
    ids=["short-latency", "long-latency", "stalls", "slow-with-refresh"],
)
def test_memory_timing_changes_cycles_only(models, memory, model):
    with CoSimulation(models[model], TINY, memory=memory) as cosim:
        for token in (1, 82, 5):
            cosim.step(token)


def test_clamped_results_are_counted(models):
    """Binary points far too fine make residuals and products clamp; CoSimulation compares the counts."""
    model = models["tails"]
    layers = tuple(
        dataclasses.replace(layer, product_frac=26, glu=dataclasses.replace(layer.glu, glu_frac=26))
        for layer in model.layers
    )
    clamping = dataclasses.replace(model, residual_frac=22, layers=layers)
    trace = Trace()
    GoldenModel(clamping).step([1], trace=trace)
    assert trace.saturations > 50
    with CoSimulation(clamping, TINY) as cosim:
        cosim.step(1)
        cosim.step(210)


def test_reset_is_busy_until_the_memory_has_answered(models):
    model = models["odd"]
    with VerilatorTransport(TINY, memory=MemoryModel(latency=2000)) as transport:
        engine = AcceleratorEngine(transport, compile_model(model, TINY), model.geometry)
        transport.write_register("CONTROL", Control.START | Control.FRESH)
        transport.run(100)
        transport.write_register("CONTROL", Control.RESET)
        assert Status(transport.read_register("STATUS")) == Status.BUSY
        transport.run(2500)
        assert transport.read_register("STATUS") == 0
        assert np.array_equal(engine.step(3, logits=True).logits, GoldenModel(model).step([3])[0])


def test_logits_reach_memory_only_when_asked(models):
    model = models["tails"]
    golden = GoldenModel(model)
    image = compile_model(model, TINY)
    with VerilatorTransport(TINY, memory=MemoryModel(stall=0.3, seed=2)) as transport:
        engine = AcceleratorEngine(transport, image, model.geometry)
        first = engine.step(3, logits=True)
        assert np.array_equal(first.logits, golden.step([3])[0])
        transport.write_memory(image.logits_address, bytes(4 * 211))
        assert engine.step(4).logits is None
        golden.step([4])
        assert transport.read_memory(image.logits_address, 4 * 211) == bytes(4 * 211)
        assert np.array_equal(engine.step(5, logits=True).logits, golden.step([5])[0])


def test_reset_starts_a_new_sequence(models):
    model = models["odd"]
    with VerilatorTransport(TINY) as transport:
        engine = AcceleratorEngine(transport, compile_model(model, TINY), model.geometry)
        first = engine.step(3, logits=True).logits
        assert not np.array_equal(engine.step(3, logits=True).logits, first)
        engine.reset()
        assert np.array_equal(engine.step(3, logits=True).logits, first)


class Broken:
    """An engine whose next token fails; :meth:`check` sees the cause, mends, and sees the right token again."""

    def __init__(self, model, memory=None):
        self.model, self.image = model, compile_model(model, TINY)
        self.transport = VerilatorTransport(TINY, memory=memory)
        self.engine = AcceleratorEngine(self.transport, self.image, model.geometry)
        self.expected = self.engine.step(2, logits=True).logits
        self.engine.reset()

    def check(self, cause):
        with pytest.raises(DeviceError) as caught:
            self.engine.step(2)
        assert cause.name in str(caught.value)
        assert self.transport.read_register("ERROR_CAUSE") == cause
        self.transport.fail_reads(None)
        self.transport.fail_writes(None)
        self.engine.load()
        self.engine.reset()
        assert np.array_equal(self.engine.step(2, logits=True).logits, self.expected)
        self.engine.close()


@pytest.mark.parametrize("place", [0.0, 0.5, 0.99])
def test_read_error_is_reported_and_survived(models, place):
    broken = Broken(models["odd"])
    address = int(broken.image.program_beats * TINY.beat_bytes * place) & -TINY.beat_bytes
    broken.transport.fail_reads(range(address, address + TINY.beat_bytes))
    broken.check(ErrorCause.BUS_READ)


def test_corrupt_weight_is_reported_and_survived(models):
    broken = Broken(models["odd"])
    end = broken.image.program_beats * TINY.beat_bytes
    broken.transport.write_memory(end - 40, b"\xff")  # in the last words of trits: END is the last 32 bytes
    broken.check(ErrorCause.BAD_TRIT)


def test_unknown_descriptor_is_reported_and_survived(models):
    broken = Broken(models["odd"])
    broken.transport.write_memory(0, b"\x0f")
    broken.check(ErrorCause.BAD_OPCODE)


@pytest.mark.parametrize("missing", [4, 5, 300])
def test_program_without_end_is_reported_and_survived(models, missing):
    broken = Broken(models["odd"])
    broken.transport.write_register("PROGRAM_BEATS", broken.image.program_beats - missing)
    broken.check(ErrorCause.STREAM_END)


@pytest.mark.parametrize("latency", [1, 24])
def test_program_that_goes_on_after_its_end_harms_no_token(models, latency):
    """The token is right; what is left of the stream is never taken for the next one's."""
    broken = Broken(models["odd"], MemoryModel(latency=latency))
    transport = broken.transport
    transport.write_register("PROGRAM_BEATS", broken.image.program_beats + 3 * TINY.beats_per_word)
    transport.write_register("TOKEN", 2)
    transport.write_register("CONTROL", Control.START | Control.FRESH)
    transport.wait(Status.DONE | Status.ERROR)
    transport.run(100)
    assert Status(transport.read_register("STATUS")) & Status.ERROR
    broken.check(ErrorCause.STREAM_END)


def test_write_error_is_reported_and_survived(models):
    broken = Broken(models["odd"])
    broken.transport.fail_writes(range(broken.image.logits_address, broken.image.size))
    with pytest.raises(DeviceError, match="BUS_WRITE"):
        broken.engine.step(2, logits=True)
    assert broken.transport.read_register("STATUS") == Status.ERROR  # not DONE, though the last write failed last
    broken.transport.fail_writes(None)
    broken.engine.reset()
    assert np.array_equal(broken.engine.step(2, logits=True).logits, broken.expected)
    broken.engine.close()


def test_token_outside_the_vocabulary_is_reported_by_the_hardware_too(models):
    broken = Broken(models["odd"])
    transport = broken.transport
    transport.write_register("TOKEN", 97)
    transport.write_register("CONTROL", Control.START)
    assert transport.wait(Status.ERROR | Status.DONE) & Status.ERROR
    assert transport.read_register("ERROR_CAUSE") == ErrorCause.BAD_TOKEN
    transport.write_register("CONTROL", Control.START)  # not taken before a reset
    assert transport.read_register("STATUS") == Status.ERROR
    transport.write_register("CONTROL", Control.RESET)
    broken.engine.reset()
    assert np.array_equal(broken.engine.step(2, logits=True).logits, broken.expected)
    broken.engine.close()


@pytest.mark.parametrize("model", ["odd", "generated"])
@pytest.mark.parametrize("cycles", [40, 700, 5000, 12000])
def test_reset_in_the_middle_of_a_token(models, cycles, model):
    broken = Broken(models[model])
    transport = broken.transport
    transport.write_register("TOKEN", 2)
    transport.write_register("CONTROL", Control.START | Control.FRESH | Control.LOGITS)
    transport.run(cycles)
    transport.write_register("CONTROL", Control.RESET)
    transport.run(2000)
    assert transport.read_register("STATUS") == 0
    assert np.array_equal(broken.engine.step(2, logits=True).logits, broken.expected)
    broken.engine.close()


@pytest.mark.parametrize("kind", [VerilatorTransport, EmulatorTransport])
def test_reset_clears_the_reports(models, kind):
    model = models["odd"]
    with kind(TINY) as transport:
        engine = AcceleratorEngine(transport, compile_model(model, TINY), model.geometry)
        engine.step(2)
        engine.step(3)
        assert transport.read_register("TOKENS") == 2 and transport.read_register("READ_BEATS") > 0
        transport.write_register("CONTROL", Control.RESET)
        for _ in range(20):  # register accesses take cycles
            if not transport.read_register("STATUS") & Status.BUSY:
                break
        constants = ("MAGIC", "VERSION", "CONFIG_HASH")
        reports = [r.name for r in registers_of(TINY.slots) if r.access is Access.RO and r.name not in constants]
        assert {name: transport.read_register(name) for name in reports} == dict.fromkeys(reports, 0)


def test_mismatch_names_layer_row_and_values():
    trace = Trace()
    trace.add("embedding", np.array([[1, 2, 3]]))
    trace.add("layer 4 f", np.array([[7, 8]]))
    compare_trace(trace, [np.array([1, 2, 3, 7, 8], np.int32)])
    with pytest.raises(Mismatch, match=r"layer 4 f, row 1: the RTL has 9, the golden model 8"):
        compare_trace(trace, [np.array([1, 2, 3, 7, 9], np.int32)])
    with pytest.raises(Mismatch, match="made 1 of 2"):
        compare_trace(trace, [np.array([1, 2, 3, 7], np.int32)])
    with pytest.raises(Mismatch, match="made 6 row results"):
        compare_trace(trace, [np.array([1, 2, 3, 7, 8, 0], np.int32)])


def test_clusters_make_a_part_of_each_result():
    trace = Trace()
    trace.add("embedding", np.array([[1, 2, 3, 4]]))
    trace.add("layer 4 f", np.array([[7, 8]]))

    def compare(*clusters):
        compare_trace(trace, [np.array(part, np.int32) for part in clusters])

    compare([1, 2, 7], [3, 4, 8])
    with pytest.raises(Mismatch, match=r"embedding, row 2: the RTL has 5, the golden model 3 \(1 of 4 rows differ\)"):
        compare([1, 2, 7], [5, 4, 8])
    with pytest.raises(Mismatch, match=r"layer 4 f: the RTL made 1 of 2"):
        compare([1, 2, 7], [3, 4])
    with pytest.raises(Mismatch, match=r"made 7 row results, the golden model 6"):
        compare([1, 2, 7, 0], [3, 4, 8])
