"""The DDR3 memory models: the real controller before a chip that knows its data sheet, and the model of both."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("litedram", reason="the real controller is generated: pip install 'sterna[bitstream]'")

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint
from standin import Bug

from sterna.compiler.image import compile_model
from sterna.engines.accelerator import AcceleratorEngine
from sterna.errors import DeviceError, SternaError
from sterna.golden.model import GoldenModel
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.spec.config import preset
from sterna.spec.registers import Control, Status
from sterna_boards.dram import dram_core
from sterna_boards.recipe import RECIPES
from sterna_sim import build
from sterna_sim.cosim import CoSimulation
from sterna_sim.memory import MODELS, ControllerModel, Ddr3Model, MemoryModel, memory_model
from sterna_sim.native import memory_config
from sterna_sim.traffic import Bursts, Traffic
from sterna_sim.transport import VerilatorTransport

MODEL, REAL = "ecp5-ddr3", "ecp5-ddr3-litedram"
BEATS = 1 << 15
OTHER_BANKS = 1 << 24


@pytest.fixture(scope="module")
def core():
    return build.controller(ControllerModel())


def both(reads=None, writes=None, *, outstanding=8):
    """The same traffic on the model and on the controller."""
    return [Traffic(name, outstanding=outstanding).run(reads, writes) for name in (MODEL, REAL)]


@pytest.mark.parametrize("outstanding", [1, 2, 8])
@pytest.mark.parametrize("burst", [1, 4, 64])
def test_every_beat_of_a_sequential_read_comes_in_the_same_cycle(burst, outstanding):
    model, real = both(Bursts.sequential(BEATS, burst=burst), outstanding=outstanding)
    np.testing.assert_array_equal(model.reads, real.reads)


@pytest.mark.parametrize("name", [MODEL, REAL])
def test_what_a_sequential_read_loses(name):
    """Two cycles a beat, six more at a new row, 28 more at a refresh; as docs/memory.md says."""
    run = Traffic(name).run(Bursts.sequential(BEATS, burst=64))
    gaps = np.diff(run.reads.astype(np.int64)) - 2
    rows, refreshes = gaps[127::128], np.delete(gaps, np.s_[127::128])
    assert np.count_nonzero(rows == 6) > 0.95 * len(rows)
    assert set(np.unique(refreshes)) == {0, 28}
    assert np.count_nonzero(refreshes) == pytest.approx(run.cycles / 586, abs=10)


@pytest.mark.parametrize("burst", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("span", [1 << 14, 1 << 22], ids=["eight-rows", "many-rows"])
def test_random_reads(burst, span):
    model, real = both(Bursts.random(BEATS // 2, burst=burst, span=span, seed=burst))
    assert model.cycles == pytest.approx(real.cycles, rel=0.002)


@pytest.mark.parametrize("burst", [1, 4, 16, 64])
def test_writes(burst):
    for writes in (Bursts.sequential(BEATS // 4, burst=burst), Bursts.random(BEATS // 4, burst=burst)):
        model, real = both(writes=writes)
        assert model.cycles == pytest.approx(real.cycles, rel=0.002)


@pytest.mark.parametrize(("read", "write"), [(64, 16), (64, 1), (4, 4)])
def test_reads_and_writes_side_by_side(read, write):
    """As logits are written while weights are read, and at random."""
    writes = Bursts.sequential(BEATS // 16, burst=write, start=OTHER_BANKS)
    model, real = both(Bursts.sequential(BEATS, burst=read), writes)
    assert model.cycles == pytest.approx(real.cycles, rel=0.005)
    model, real = both(Bursts.random(BEATS // 8, burst=read), Bursts.random(BEATS // 8, burst=write, seed=2))
    assert model.cycles == pytest.approx(real.cycles, rel=0.01)


def test_stated_rates_are_the_measured_ones():
    for name in (MODEL, REAL):
        shifted = Traffic(name)
        shifted.idle(1)
        assert shifted.run(Bursts.sequential(8 * BEATS, burst=64)).bytes_per_cycle == pytest.approx(7.443, rel=2e-4)
        sequential = Traffic(name).run(Bursts.sequential(8 * BEATS, burst=64)).bytes_per_cycle
        assert sequential == pytest.approx(memory_model(name).peak_bytes(16), rel=2e-4)
        scattered = Traffic(name).run(Bursts.random(8 * BEATS, burst=4)).bytes_per_cycle
        assert scattered == pytest.approx(Ddr3Model().random, rel=2e-3)
    assert Ddr3Model().sequential / 8 == pytest.approx(0.931, abs=5e-4)


def test_times_are_the_controllers(core):
    """What the model is made of, by the settings of the generated controller."""
    model, timing, phy = Ddr3Model(), core.timing, core.phy
    write_end = -(-phy["cwl"] // core.phases) + timing["tCCD"]
    assert (model.trcd, model.trp, model.tras, model.trc) == tuple(timing[n] for n in ("tRCD", "tRP", "tRAS", "tRC"))
    assert model.column_cycles == timing["tCCD"]
    assert model.refresh_interval == timing["tREFI"]
    assert model.refresh_cycles == timing["tRP"] + timing["tRFC"] + 3
    assert model.write_recovery == write_end + timing["tWR"]
    assert model.write_to_read == write_end + timing["tWTR"] + 1
    assert model.read_to_write == phy["read_latency"]
    assert model.read_cycles == phy["read_latency"] + 3
    assert model.row_bytes == (core.data_bytes // 8) << core.column_bits
    assert model.banks == 1 << core.bank_bits
    assert model.size == ControllerModel().size == core.size


def test_refresh_takes_the_chips_time_not_the_generators_default(core):
    """LiteDRAM's own 208 clocks for this chip would be 104 cycles."""
    assert core.timing["tRFC"] == 20
    assert core.timing["tRFC"] * 1e9 / RECIPES["ecpix5-ddr3"].clock >= 260


@pytest.mark.parametrize("name", [MODEL, REAL])
def test_data_is_what_memory_holds(name):
    """Reads and writes at random, side by side, then back from memory and through the port."""
    rng = np.random.default_rng(3)
    traffic = Traffic(name)
    half = 1 << 20
    traffic.contents[: 2 * half] = rng.integers(0, 256, 2 * half)
    expected = traffic.contents[: 2 * half].reshape(-1, 16).copy()
    reads = Bursts.random(4096, burst=4, span=half)
    places = half + Bursts.random(4096, burst=8, span=half, seed=4).addresses
    writes = Bursts(np.unique(places).astype(np.uint32), np.full(len(np.unique(places)), 8, np.uint16))
    data = rng.integers(0, 256, (8 * len(writes.beats), 16), dtype=np.uint8)

    def beats(bursts):
        return (bursts.addresses[:, None] // 16 + np.arange(bursts.beats[0])).ravel()

    run = traffic.run(reads, writes, data=data)
    np.testing.assert_array_equal(run.data, expected[beats(reads)])
    expected[beats(writes)] = data
    np.testing.assert_array_equal(traffic.contents[: 2 * half].reshape(-1, 16), expected)
    np.testing.assert_array_equal(traffic.run(writes).data, data)


CLOCK = 1e9 / 150e6  # of the DRAM, nanoseconds


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("trcd", 3, "RD or WR before tRCD"),
        ("trp", 3, "ACT before tRP"),
        ("tras", 9, "ACT before tRP"),  # after a precharge with the read
        ("trc", 12, "ACT before tRC"),
        ("trrd", 12, "ACT before tRRD"),
        ("tfaw", 50, "ACT before tFAW"),
        ("tccd", 4, "RD or WR before tCCD"),
        ("trtp", 4, "ACT before tRP"),
        ("twr", 5, "ACT before tRP"),
        ("twtr", 6, "RD before tWTR"),
        ("trfc", 45, "a command during a refresh"),
    ],
)
def test_rules_of_the_chip(name, given, text):
    """A chip may want what the controller gives, in clocks; a clock more is a fault."""

    def traffic(clocks):
        times = {f"{name}_clocks": clocks} if name in ("trrd", "tccd") else {name: clocks * CLOCK - 0.1}
        tested = Traffic(ControllerModel(**times))
        for burst in (1, 4):
            tested.run(Bursts.random(4096, burst=burst), Bursts.random(4096, burst=burst, seed=2))

    traffic(given)
    with pytest.raises(DeviceError, match=rf"cycle \d+: DRAM bank \d: {text}"):
        traffic(given + 1)


def test_refreshes_may_not_be_put_off():
    Traffic(ControllerModel(trefi=890)).run(Bursts.random(4096, burst=4))
    with pytest.raises(DeviceError, match=r"DRAM bank \d: no refresh for 9 tREFI"):
        Traffic(ControllerModel(trefi=850)).run(Bursts.random(4096, burst=4))
    Traffic(ControllerModel(trefi=890)).idle(3000)
    with pytest.raises(DeviceError, match=r"DRAM bank \d: no refresh for 9 tREFI"):
        Traffic(ControllerModel(trefi=850)).idle(3000)


def test_one_port_width():
    assert memory_model("ideal") == MemoryModel()
    for name in (MODEL, REAL):
        with pytest.raises(SternaError, match="a port of 16 bytes, the accelerator one of 8"):
            MODELS[name].peak_bytes(8)
    with pytest.raises(SternaError, match="no memory model 'tape'; choose one of ideal, ecp5-ddr3"):
        memory_model("tape")


def test_a_model_of_the_controller_needs_the_controller():
    with pytest.raises(TypeError, match="without its controller"):
        memory_config(ControllerModel())


def test_clock_of_the_chip_decides_the_rules(core):
    """Nanoseconds round up to clocks of the DRAM, 6.67 ns here."""
    chip = memory_config(ControllerModel(), core).chip
    assert (chip.trcd, chip.trp, chip.tras, chip.trc, chip.tfaw, chip.trfc) == (3, 3, 6, 8, 6, 39)
    assert (chip.trrd, chip.tccd, chip.trtp, chip.twr, chip.twtr, chip.trefi) == (4, 4, 4, 3, 4, 1170)
    slow = dataclasses.replace(RECIPES["ecpix5-ddr3"], clock=60e6)
    assert dram_core(slow, cache=build.cache_root() / "dram", simulated=True).timing["tRFC"] == 17


# As small as sim-tiny, with the port of the controller.
SMALL = dataclasses.replace(preset("sim-tiny"), name="ddr3-tiny", beat_bytes=16, word_bytes=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    geometry = {"hidden": 130, "layers": 3, "inner": 259, "vocab": 211}
    import_checkpoint(write_checkpoint(path / "source", seed=7, **geometry), path / "model")
    return Model.open(path / "model")


def test_whole_tokens_on_both(model):
    """The accelerator in front of the real controller: every integer is golden's, and the model tells its cycles."""
    cycles = {}
    for name in (MODEL, REAL):
        with CoSimulation(model, SMALL, memory=name) as cosim:
            cycles[name] = sum(cosim.step(token).cycles for token in (1, 210, 5))
    assert cycles[MODEL] == pytest.approx(cycles[REAL], rel=0.002)


def test_logits_are_written_through_both(model):
    """While weights are read; cycles differ by the turns of the data bus at most."""
    golden = GoldenModel(model).step([3])[0]
    cycles = {}
    for name in (MODEL, REAL):
        with VerilatorTransport(SMALL, memory=name) as transport:
            step = AcceleratorEngine(transport, compile_model(model, SMALL), model.geometry).step(3, logits=True)
        np.testing.assert_array_equal(step.logits, golden)
        cycles[name] = step.counters["cycles"]
    assert cycles[MODEL] == pytest.approx(cycles[REAL], rel=0.01)


PROGRAM = 0x4000


def start(transport, beats, *, bug=Bug.NONE):
    values = {"PROGRAM_ADDRESS": PROGRAM, "PROGRAM_BEATS": beats, "EMBED_BEATS": bug, "VOCABULARY": 8, "TOKEN": 0}
    for name, value in values.items():
        transport.write_register(name, value)
    transport.write_register("CONTROL", Control.START | Control.FRESH)


def test_reset_in_the_middle_of_a_burst(open_standin):
    """Controller and chip start anew with the accelerator: nothing of before is answered, no rule is broken."""
    transport = open_standin(memory=REAL)
    words = np.random.default_rng(5).integers(0, 1 << 32, (4096, 4), dtype=np.uint32)
    transport.write_memory(PROGRAM, words.tobytes())
    for cycles in (100, 611, 1733):
        start(transport, 4096)
        transport.run(cycles)
        transport.reset()
    start(transport, 4096)
    assert transport.wait(Status.DONE | Status.ERROR) == Status.DONE
    assert transport.read_register("SAMPLED") == int(words[:, 0].sum(dtype=np.uint32))
    assert transport.traffic.read_beats > 4096


def test_protocol_is_watched_in_front_of_the_controller(open_standin):
    transport = open_standin(memory=REAL)
    with pytest.raises(DeviceError, match=r"cycle \d+: AR address 0x4001 is not aligned to a beat"):
        start(transport, 16, bug=Bug.MISALIGNED)
        transport.wait(Status.DONE | Status.ERROR)


def test_no_error_comes_from_behind_the_controller(open_standin):
    transport = open_standin(memory=REAL)
    transport.fail_reads(None)
    with pytest.raises(DeviceError, match="answers every access as good"):
        transport.fail_reads(range(16))


def test_a_memory_must_fit_the_port():
    with pytest.raises(SternaError, match="a port of 16 bytes, the accelerator one of 8"):
        VerilatorTransport("sim-tiny", memory=MODEL)
    with pytest.raises(SternaError, match="there is no memory model 'flash'"):
        VerilatorTransport("sim-tiny", memory="flash")
