"""Passes of several slots through the RTL: every slot has the golden model's integers, whatever the others do."""

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
from sterna.emulator.transport import EmulatorTransport
from sterna.engines.accelerator import AcceleratorEngine
from sterna.engines.engine import Origin, SlotToken
from sterna.engines.golden import GoldenEngine
from sterna.errors import DeviceError
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.runtime.scheduler import Scheduler
from sterna.spec.config import preset
from sterna.spec.registers import Control, ErrorCause, SlotMode, Status, slot_register, token_register
from sterna_hw.slots import chain_cycles
from sterna_sim.cosim import CoSimulation, Mismatch
from sterna_sim.memory import MemoryModel
from sterna_sim.transport import VerilatorTransport

ONE, FOUR = preset("sim-tiny"), preset("sim-tiny-b4")
TWO = dataclasses.replace(ONE, name="two-slots", slots=2)
VOCABULARY, LAYERS = 83, 3
GEOMETRIES = {
    "odd": {"hidden": 45, "layers": LAYERS, "inner": 77, "vocab": VOCABULARY},
    "generated": {
        "hidden": 90,
        "layers": LAYERS,
        "inner": 61,
        "vocab": VOCABULARY,
        "reservoir": {"seed": 5, "shared": False, "fixed": {"f": [0, 1], "i": [2], "gate": [0]}, "mixer_only": [1]},
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


def random_pass(rng, slots, known):
    """Tokens for some slots: fresh, chained, from their own or any other slot's state."""
    tokens = {}
    for slot in sorted(rng.sample(range(slots), rng.randint(1, slots))):
        origins = [Origin.FRESH, *known] + [slot] * (slot in known) * 3 + [Origin.CHAIN] * (slot - 1 in tokens) * 6
        tokens[slot] = SlotToken(rng.randrange(VOCABULARY), rng.choice(origins), rng.random() < 0.3)
    known |= set(tokens)
    return tokens


@pytest.mark.parametrize(
    ("config", "model", "memory"),
    [
        (TWO, "odd", MemoryModel()),
        (FOUR, "odd", MemoryModel()),
        (FOUR, "generated", MemoryModel(stall=0.3, seed=4)),
        (TWO, "generated", MemoryModel(beats_numerator=1, beats_denominator=3)),
    ],
    ids=["two", "four", "four-generated-stalls", "two-generated-slow"],
)
def test_slots_do_not_disturb_each_other(models, config, model, memory):
    """Slots are idle, join, leave, change places and chain at random; an idle one keeps its state."""
    rng = random.Random(f"{config.slots} {model}")
    known = set()
    with CoSimulation(models[model], config, memory=memory) as cosim:
        for _ in range(12):
            cosim.run(random_pass(rng, config.slots, known), head=rng.random() < 0.7)


def test_a_state_is_compared(models):
    """The comparison above is one: with other states it fails."""
    with CoSimulation(models["odd"], TWO) as cosim:
        cosim.run({0: SlotToken(1, Origin.FRESH), 1: SlotToken(2, Origin.FRESH)})
        cosim._states[0], cosim._states[1] = cosim._states[1], cosim._states[0]
        with pytest.raises(Mismatch, match="layer 0 state"):
            cosim.run({0: SlotToken(1, 0)})


@pytest.mark.parametrize("config", [TWO, FOUR], ids=lambda c: c.name)
def test_the_scheduler_on_the_accelerator(models, config):
    model, rng = models["odd"], random.Random(config.slots)
    golden = GoldenEngine(model)
    with VerilatorTransport(config) as transport:
        scheduler = Scheduler(AcceleratorEngine(transport, compile_model(model, config), model.geometry))
        served = []
        for _ in range(5):
            prompt = [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, 9))]
            served.append(scheduler.submit(prompt, tokens=rng.randint(1, 4)))
            scheduler.step()
        scheduler.run()
    for continuation in served:
        golden.reset()
        for token in (*continuation.prompt, *continuation.ids[:-1]):
            sampled = golden.step(token).sampled
        assert sampled == continuation.ids[-1]
    assert scheduler.read > scheduler.passes * config.slots / 2


def test_the_emulator_makes_the_same_of_every_pass(models):
    model, rng, known = models["odd"], random.Random(6), set()
    image = compile_model(model, FOUR)
    with VerilatorTransport(FOUR) as rtl, EmulatorTransport(FOUR, size=1 << 20) as emulator:
        engines = [AcceleratorEngine(transport, image, model.geometry) for transport in (rtl, emulator)]
        for _ in range(6):
            tokens, head = random_pass(rng, 4, known), rng.random() < 0.7
            ours, theirs = (engine.run(tokens, head=head) for engine in engines)
            assert ours.sampled == theirs.sampled
            assert ours.counters["saturations"] == theirs.counters["saturations"]
            assert ours.counters["read_beats"] == theirs.counters["read_beats"]
            assert ours.logits.keys() == theirs.logits.keys()
            assert all(np.array_equal(ours.logits[slot], theirs.logits[slot]) for slot in ours.logits)
            for slot in range(4):
                assert np.array_equal(rtl.take_trace(slot), emulator.take_trace(slot))


def prefill_cycles(model, config, tokens, *, single=False):
    """Cycles to read a prompt, at once or token by token, and what is sampled after it."""
    with VerilatorTransport(config) as transport:
        engine = AcceleratorEngine(transport, compile_model(model, config), model.geometry)
        if not single:
            found = engine.prefill(tokens, logits=True)
            return found.counters["cycles"], found.logits
        steps = [engine.step(token, logits=token is tokens[-1]) for token in tokens]
        return sum(step.counters["cycles"] for step in steps), steps[-1].logits


@pytest.mark.parametrize("config", [TWO, FOUR], ids=lambda c: c.name)
def test_a_prompt_costs_its_share_of_the_passes(models, config):
    rng, model = random.Random(9), models["odd"]
    prompt = [rng.randrange(VOCABULARY) for _ in range(32)]
    chained, logits = prefill_cycles(model, config, prompt)
    token_by_token, expected = prefill_cycles(model, ONE, prompt, single=True)
    without_heads, same = prefill_cycles(model, ONE, prompt)
    assert np.array_equal(logits, expected) and np.array_equal(same, expected)
    assert chained <= token_by_token / config.slots * 1.05
    assert chained <= without_heads / config.slots * 1.05
    assert without_heads < token_by_token


def test_what_slots_and_chains_cost(models):
    """Slots cost the rows of their embeddings, a chain some cycles a layer."""
    apart = {slot: SlotToken(slot, Origin.FRESH) for slot in range(4)}
    chain = {slot: SlotToken(slot, Origin.CHAIN if slot else Origin.FRESH) for slot in range(4)}
    with CoSimulation(models["odd"], ONE) as cosim:
        one = cosim.run({0: apart[0]})
    with CoSimulation(models["odd"], FOUR) as cosim:
        alone, all_four, chained = cosim.run({0: apart[0]}), cosim.run(apart), cosim.run(chain)
    assert alone.cycles == one.cycles
    row = cosim.image.embed_beats
    assert all_four.beats - alone.beats == chained.beats - alone.beats == 3 * row
    elements = models["odd"].geometry.hidden
    assert 0 < all_four.cycles - alone.cycles <= 3 * (row + elements + 40)
    assert 0 < chained.cycles - all_four.cycles <= LAYERS * chain_cycles(4)


class Failing:
    """An engine of four slots whose pass fails, and which then is as new."""

    def __init__(self, model):
        self.model, self.image = model, compile_model(model, FOUR)
        self.transport = VerilatorTransport(FOUR)
        self.engine = AcceleratorEngine(self.transport, self.image, model.geometry)
        self.tokens = {slot: SlotToken(slot + 1, Origin.FRESH, logits=True) for slot in range(4)}

    def check(self, cause):
        with pytest.raises(DeviceError, match=cause.name):
            self.engine.run(self.tokens)
        self.transport.fail_reads(None)
        self.transport.fail_writes(None)
        self.good()

    def good(self):
        self.engine.reset()
        found = self.engine.run(self.tokens)
        golden = GoldenEngine(self.model)
        for slot, entry in self.tokens.items():
            golden.reset()
            assert np.array_equal(found.logits[slot], golden.step(entry.token, logits=True).logits)
        self.engine.close()


@pytest.mark.parametrize("slot", [0, 2, 3])
def test_a_row_that_cannot_be_read(models, slot):
    failing = Failing(models["odd"])
    row = failing.image.embed_beats * FOUR.beat_bytes
    first = failing.image.embed_address + row * failing.tokens[slot].token
    failing.transport.fail_reads(range(first + row - 8, first + row))
    failing.check(ErrorCause.BUS_READ)


def test_logits_that_cannot_be_written(models):
    failing = Failing(models["odd"])
    failing.transport.fail_writes(range(failing.image.logits_address, failing.image.size))
    failing.check(ErrorCause.BUS_WRITE)


@pytest.mark.parametrize("kind", [VerilatorTransport, EmulatorTransport])
def test_a_token_outside_the_vocabulary(models, kind):
    """In a slot that takes part, it stops the pass; in an idle one it does not matter."""
    model = models["odd"]
    with kind(FOUR) as transport:
        engine = AcceleratorEngine(transport, compile_model(model, FOUR), model.geometry)
        for slot in range(4):
            transport.write_register(slot_register(slot), SlotMode.IDLE if slot == 2 else SlotMode(0))
            transport.write_register(token_register(slot), VOCABULARY if slot == 2 else slot)
        transport.write_register("CONTROL", Control.START | Control.FRESH)
        assert transport.wait(Status.DONE | Status.ERROR) == Status.DONE
        compare = GoldenEngine(model)
        assert transport.read_register("SAMPLED_3") == compare.step(3).sampled
        transport.write_register("SLOT_2", 0)
        transport.write_register("CONTROL", Control.START)
        assert transport.wait(Status.DONE | Status.ERROR) == Status.ERROR
        assert transport.read_register("ERROR_CAUSE") == ErrorCause.BAD_TOKEN
        transport.write_register("CONTROL", Control.RESET)
        engine.reset()
        compare.reset()
        engine._recover()
        assert engine.step(7).sampled == compare.step(7).sampled


@pytest.mark.parametrize("cycles", [40, 900, 4000, 11000])
def test_reset_in_the_middle_of_a_chain(models, cycles):
    failing = Failing(models["odd"])
    transport = failing.transport
    for slot in range(4):
        transport.write_register(slot_register(slot), SlotMode.CHAINED if slot else SlotMode.FRESH)
    transport.write_register("CONTROL", Control.START | Control.LOGITS)
    transport.run(cycles)
    transport.write_register("CONTROL", Control.RESET)
    transport.run(2000)
    assert transport.read_register("STATUS") == 0
    failing.engine._recover()
    failing.good()
