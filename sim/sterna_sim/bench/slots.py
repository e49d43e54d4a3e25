"""What slots make of a pass over the weights: tokens of many sequences, or many of a prompt."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sterna.cli.progress import progress
from sterna.engines.engine import Origin, SlotToken
from sterna_sim.bench.cases import SlotsCase, configuration, memory_of, open_model
from sterna_sim.compile import Progress
from sterna_sim.cosim import CoSimulation


@dataclass(frozen=True, kw_only=True)
class SlotMeasurement:
    """One model on a build with slots; all cycles are exact, and every integer of every pass was golden's."""

    model: str
    config: str
    memory: str
    lanes: int
    slots: int
    one: int  # cycles of a pass with one slot in use
    all: int  # and with a sequence in each
    prompt: int  # tokens
    stepped: int  # cycles of the prompt, token by token
    chained: int  # and as chains of all slots, without logits before its end

    @property
    def case(self) -> SlotsCase:
        """What was measured."""
        return SlotsCase(self.model, self.config, self.memory, self.prompt)

    @property
    def throughput(self) -> float:
        """Tokens a second over all slots, of one slot's."""
        return self.slots * self.one / self.all

    @property
    def prefill(self) -> float:
        """Cycles of the prompt in chains, of those token by token."""
        return self.chained / self.stepped


def measure(case: SlotsCase, *, note: Progress | None = None) -> SlotMeasurement:
    """Run one token, then one in each slot, then the prompt in both ways.

    Raises:
        SternaError: the model does not fit the configuration or the memory, or the RTL differs from golden.
    """
    config, rng = configuration(case.config), random.Random(1)
    with tempfile.TemporaryDirectory(prefix="sterna-bench-") as folder:
        model = open_model(case.model, Path(folder))
        tokens = [rng.randrange(model.geometry.vocab) for _ in range(case.tokens)]
        with (
            CoSimulation(model, config, memory=memory_of(case), progress=note) as cosim,
            progress(total=1 + config.slots + 2 * case.tokens, label=str(case), unit="token") as bar,
        ):
            one = cosim.run({0: SlotToken(0, Origin.FRESH)})
            bar.update(1)
            every = cosim.run({slot: SlotToken(slot, Origin.FRESH) for slot in range(config.slots)})
            bar.update(config.slots)
            stepped = 0
            for position, token in enumerate(tokens):
                stepped += cosim.run({0: SlotToken(token, 0 if position else Origin.FRESH)}).cycles
                bar.update(1)
            chained = 0
            origin: Origin | int = Origin.FRESH
            for start in range(0, len(tokens), config.slots):
                part = tokens[start : start + config.slots]
                chain = {n: SlotToken(token, Origin.CHAIN if n else origin) for n, token in enumerate(part)}
                chained += cosim.run(chain, head=start + len(part) == len(tokens)).cycles
                origin = len(part) - 1
                bar.update(len(part))
    return SlotMeasurement(
        model=case.model,
        config=case.config,
        memory=case.memory,
        lanes=config.lanes,
        slots=config.slots,
        one=one.cycles,
        all=every.cycles,
        prompt=case.tokens,
        stepped=stepped,
        chained=chained,
    )
