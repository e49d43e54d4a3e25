"""Where the cycles of whole tokens went: every one has a reason, and the reasons are the right ones."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint
from test_whole_model import TINY, WIDE

from sterna.compiler.image import compile_model
from sterna.engines.accelerator import AcceleratorEngine
from sterna.errors import DeviceError
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.spec.registers import Stall
from sterna_hw.vector import quant_cycles, sumsq_cycles
from sterna_hw.vector.scalar import RECIPROCAL_CYCLES
from sterna_sim.cosim import CoSimulation, Mismatch
from sterna_sim.memory import MemoryModel
from sterna_sim.transport import VerilatorTransport

SIZES = {"hidden": 130, "layers": 3, "inner": 259, "vocab": 211}
UNDER_WAY = (Stall.STARTUP, Stall.MEMORY, Stall.RESTART)
SLOW = MemoryModel(beats_numerator=1, beats_denominator=3, refresh_interval=780, refresh_cycles=30)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    path = tmp_path_factory.mktemp("stalls")
    import_checkpoint(write_checkpoint(path / "source", seed=7, **SIZES), path / "model")
    return Model.open(path / "model")


def measure(model, config, memory):
    with CoSimulation(model, config, memory=memory) as cosim:  # which adds up beats and stalls
        first, second = cosim.step(3), cosim.step(3)
        assert second.beats == cosim.image.embed_beats + cosim.image.program_beats
        assert (second.cycles, second.stalls) == (first.cycles, first.stalls) or memory.refresh_interval
    return second


@pytest.mark.parametrize("config", [TINY, WIDE], ids=lambda c: c.name)
def test_start_up_is_the_latency_and_the_way_to_the_bus(model, config):
    for latency in (1, 24, 400):
        found = measure(model, config, MemoryModel(latency=latency))
        assert found.stalls[Stall.STARTUP] == latency + 5
        assert found.stalls[Stall.END] == 1


def test_a_core_that_is_slower_than_memory_waits_in_its_own_phases(model):
    """One beat a word and a short latency: the buffer is full whenever the core takes nothing for long."""
    found = measure(model, TINY, MemoryModel(latency=1)).stalls
    hidden, inner, layers = (SIZES[name] for name in ("hidden", "inner", "layers"))
    wide, narrow = layers, 5 * layers + 1  # QUANTs of inner, and of hidden, elements
    assert found[Stall.SCALAR] == (wide + narrow) * RECIPROCAL_CYCLES
    quant = wide * (quant_cycles(TINY, inner) + 1) + narrow * (quant_cycles(TINY, hidden) + 1) - found[Stall.SCALAR]
    sumsq = layers * (sumsq_cycles(TINY, inner) + 3 * sumsq_cycles(TINY, hidden) + 4) + sumsq_cycles(TINY, hidden) + 1
    refill = TINY.burst_beats + 10  # beats that still come when such a phase begins
    assert quant - (wide + narrow) * refill < found[Stall.QUANT] <= quant
    assert sumsq - (4 * layers + 1) * refill < found[Stall.SUMSQ] <= sumsq
    assert sum(found[stall] for stall in UNDER_WAY) < 0.01 * sum(found.values())
    assert found[Stall.TABLES] > 0.85 * sum(found.values())  # rows of a few words, 250 cycles for the tables of each


@pytest.mark.parametrize(
    ("memory", "config"),
    [(SLOW, WIDE), (MemoryModel(latency=400), WIDE)],  # a low rate; too few bursts in flight for the latency
    ids=["rate", "latency"],
)
def test_a_memory_that_is_slower_than_the_core_is_blamed(model, memory, config):
    found = measure(model, config, memory).stalls
    assert found[Stall.MEMORY] > 0.97 * sum(found.values())


def test_waiting_for_written_logits_has_a_reason(model):
    with VerilatorTransport(TINY, memory=MemoryModel(latency=100)) as transport:
        engine = AcceleratorEngine(transport, compile_model(model, TINY), model.geometry)
        without = engine.step(3), engine.stalls()
        engine.reset()
        written = engine.step(3, logits=True), engine.stalls()
    longer = written[0].counters["cycles"] - without[0].counters["cycles"]
    assert without[1][Stall.WRITER] == 0
    assert written[1][Stall.WRITER] == longer > 100  # at least the last answer
    assert {s: n for s, n in written[1].items() if s is not Stall.WRITER} == {
        s: n for s, n in without[1].items() if s is not Stall.WRITER
    }


def test_an_account_that_does_not_add_up_stops_the_simulation(model, monkeypatch):
    honest = AcceleratorEngine.stalls
    monkeypatch.setattr(AcceleratorEngine, "stalls", lambda self: honest(self) | {Stall.EMBED: 1})
    with CoSimulation(model, WIDE) as cosim, pytest.raises(Mismatch, match="stalled cycles do not make"):
        cosim.step(3)


def test_a_token_that_fails_adds_up_too(model):
    with VerilatorTransport(TINY) as transport:
        image = compile_model(model, TINY)
        engine = AcceleratorEngine(transport, image, model.geometry)
        transport.write_memory(image.program_beats * TINY.beat_bytes - TINY.word_bytes * 4, b"\x0f")  # instead of END
        with pytest.raises(DeviceError, match="BAD_OPCODE"):
            engine.step(3)
        cycles, beats = transport.read_register("CYCLES"), transport.read_register("READ_BEATS")
        assert cycles == beats + sum(engine.stalls().values()) > beats
