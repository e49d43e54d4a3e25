"""Sequences that share passes over the weights: the same ids as alone, whatever joins and leaves beside them."""

from __future__ import annotations

import random

import pytest
from checkpoints import write_checkpoint

from sterna.compiler.image import compile_model
from sterna.emulator.transport import EmulatorTransport
from sterna.engines.accelerator import AcceleratorEngine
from sterna.engines.engine import Engine, Origin, Pass, SlotEngine, SlotToken
from sterna.engines.golden import GoldenEngine
from sterna.errors import DeviceError, SternaError
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.runtime.scheduler import Scheduler
from sterna.spec.config import preset

SIZES = {"hidden": 24, "layers": 2, "inner": 40, "vocab": 61}
FOUR = preset("sim-tiny-b4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("scheduler")
    import_checkpoint(write_checkpoint(path / "checkpoint", seed=3, **SIZES), path / "model")
    return Model.open(path / "model")


@pytest.fixture
def engine(model: Model) -> AcceleratorEngine:
    return AcceleratorEngine(EmulatorTransport(FOUR, size=1 << 20), compile_model(model, FOUR), model.geometry)


def alone(engine: Engine, prompt: list[int], tokens: int, stop: int | None = None) -> list[int]:
    """What the sequence is without company."""
    engine.reset()
    for token in prompt:
        sampled = engine.step(token).sampled
    ids = [sampled]
    while len(ids) < tokens and ids[-1] != stop:
        ids.append(engine.step(ids[-1]).sampled)
    return ids


class Watched:
    """An engine whose passes are noted, and may fail."""

    def __init__(self, engine: SlotEngine) -> None:
        self._engine = engine
        self.passes: list[tuple[dict[int, SlotToken], bool]] = []
        self.fails: set[int] = set()

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def run(self, tokens: dict[int, SlotToken], *, head: bool = True) -> Pass:
        self.passes.append((dict(tokens), head))
        found = self._engine.run(tokens, head=head)
        if len(self.passes) in self.fails:
            raise DeviceError("the cable is gone")
        return found


@pytest.mark.parametrize("seed", range(3))
def test_sequences_join_and_leave(model: Model, engine: AcceleratorEngine, seed: int) -> None:
    rng = random.Random(seed)
    golden, watched = GoldenEngine(model), Watched(engine)
    scheduler = Scheduler(watched)
    wanted = []
    for _ in range(9):
        prompt = [rng.randrange(61) for _ in range(rng.choice([1, 2, 7, 13]))]
        tokens = rng.randint(1, 6)
        expected = alone(golden, prompt, tokens)
        stop = rng.choice([None, rng.choice(expected)])
        wanted.append((scheduler.submit(prompt, tokens=tokens, stop=stop), alone(golden, prompt, tokens, stop)))
        for _ in range(rng.randrange(3)):
            scheduler.step()
    scheduler.run()
    assert [continuation.ids for continuation, _ in wanted] == [expected for _, expected in wanted]
    assert all(continuation.done for continuation, _ in wanted)
    assert scheduler.passes == len(watched.passes)
    # The last id of a sequence is never read, everything else once.
    assert scheduler.read == sum(len(c.prompt) + len(c.ids) - 1 for c, _ in wanted)
    assert {len(tokens) for tokens, _ in watched.passes} >= {1, 4} and {head for _, head in watched.passes} == {
        True,
        False,
    }
    assert scheduler.step() == []


def test_a_prompt_takes_all_slots_that_are_free(model: Model, engine: AcceleratorEngine) -> None:
    watched = Watched(engine)
    scheduler = Scheduler(watched)
    long = scheduler.submit([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], tokens=2)
    scheduler.step()
    short = scheduler.submit([11], tokens=3)
    scheduler.run()
    first, second, third, *_ = watched.passes
    assert first == ({n: SlotToken(n + 1, Origin.CHAIN if n else Origin.FRESH) for n in range(4)}, False)
    chain = {0: SlotToken(5, 3), 1: SlotToken(6, Origin.CHAIN), 2: SlotToken(7, Origin.CHAIN)}
    assert second == (chain | {3: SlotToken(11, Origin.FRESH)}, True)
    chain = {0: SlotToken(8, 2), 1: SlotToken(9, Origin.CHAIN), 2: SlotToken(10, Origin.CHAIN)}
    assert third == (chain | {3: SlotToken(short.ids[0], 3)}, True)
    golden = GoldenEngine(model)
    assert long.ids == alone(golden, list(range(1, 11)), 2)
    assert short.ids == alone(golden, [11], 3)


@pytest.mark.parametrize("fails", [{1}, {3}, {2, 5}])
def test_a_failed_pass_is_made_good(model: Model, engine: AcceleratorEngine, fails: set[int]) -> None:
    watched = Watched(engine)
    watched.fails = fails
    scheduler = Scheduler(watched)
    prompts = [[1, 2, 3, 4, 5, 6], [7], [8, 9]]
    continuations = [scheduler.submit(prompt, tokens=4) for prompt in prompts]
    for _ in fails:
        with pytest.raises(DeviceError, match="cable"):
            scheduler.run()
    scheduler.run()
    golden = GoldenEngine(model)
    assert [c.ids for c in continuations] == [alone(golden, prompt, 4) for prompt in prompts]


def test_what_cannot_be_run_is_refused(engine: AcceleratorEngine) -> None:
    scheduler = Scheduler(engine)
    with pytest.raises(SternaError, match="empty"):
        scheduler.submit([], tokens=1)
    with pytest.raises(SternaError, match="61"):
        scheduler.submit([61], tokens=1)
    with pytest.raises(SternaError, match="positive"):
        scheduler.submit([1], tokens=0)
    assert scheduler.step() == []
    cases = {
        "at least one slot": {},
        "outside the vocabulary": {0: SlotToken(61, 0)},
        "accelerator has slots": {4: SlotToken(1, Origin.FRESH)},
        "from slot 4": {0: SlotToken(1, 4)},
        "no token in this pass": {0: SlotToken(1, 0), 2: SlotToken(1, Origin.CHAIN)},
    }
    for text, tokens in cases.items():
        with pytest.raises(SternaError, match=text):
            engine.run(tokens)
    with pytest.raises(SternaError, match="accelerator has slots"):
        engine.run({-1: SlotToken(1, Origin.FRESH)})
    with pytest.raises(SternaError, match="no tokens"):
        engine.prefill([])
    assert isinstance(engine, SlotEngine)


@pytest.mark.parametrize("length", [1, 2, 4, 5, 11])
def test_prefill_is_a_step_for_each(model: Model, engine: AcceleratorEngine, length: int) -> None:
    rng = random.Random(length)
    golden, counts = GoldenEngine(model), []
    for _ in range(2):  # the second goes on from the first
        tokens = [rng.randrange(61) for _ in range(length)]
        found = engine.prefill(tokens, logits=True, progress=counts.append)
        expected = [golden.step(token, logits=True) for token in tokens][-1]
        assert found.sampled == expected.sampled
        assert (found.logits == expected.logits).all()
    assert sum(counts) == 2 * length and len(counts) == 2 * -(-length // 4)
    again = engine.step(tokens[0], logits=True)
    assert (again.logits == golden.step(tokens[0], logits=True).logits).all()
    engine.reset()
    golden.reset()
    assert engine.prefill([5, 6]).sampled == [golden.step(token) for token in (5, 6)][-1].sampled
