"""Whole tokens through the RTL: their cycles, and where those went."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from sterna.compiler.account import StreamAccount, account
from sterna_sim.bench.cases import TokenCase, configuration, memory_of, open_model
from sterna_sim.compile import Progress
from sterna_sim.cosim import CoSimulation

BEATS = ("trits", "padding", "parameters", "descriptors", "embedding")  # fields of a StreamAccount


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One model on one configuration; cycles and bytes are exact, speeds are of the simulation on this machine.

    ``efficiency`` is the roofline efficiency of the whole token, ``bound`` what its bytes allow at most. ``cycles``
    are ``beats`` and ``stalls``, counted by the hardware; ``stream`` says what was in the beats, in bytes.
    ``weight_bytes`` are read, ``generated_bytes`` of trits are made by the generator instead. With clusters,
    lanes and bytes are those of all, beats and stalls of the first.
    """

    model: str
    config: str
    memory: str
    lanes: int
    slots: int
    bytes_per_cycle: float
    weight_bytes: int
    generated_bytes: int
    stream_bytes: int
    cycles: int
    beats: int
    stalls: dict[str, int]  # names of `Stall`
    stream: dict[str, int]  # fields of `StreamAccount`
    integers_compared: int
    efficiency: float
    bound: float
    trits_per_second: float
    cycles_per_second: float

    @property
    def case(self) -> TokenCase:
        """What was measured."""
        return TokenCase(self.model, self.config, self.memory)

    def parts(self) -> dict[str, float]:
        """Cycles by what they were: beats by their contents, then stalls; they add up to ``cycles``."""
        beat = self.stream_bytes / self.beats
        return {name: self.stream[name] / beat for name in BEATS} | {name: float(n) for name, n in self.stalls.items()}


def measure(case: TokenCase, *, tokens: int = 1, note: Progress | None = None) -> Measurement:
    """Run ``tokens`` tokens, each compared with golden in every integer; the last one is reported.

    Raises:
        SternaError: the model does not fit the configuration or the memory, or the RTL differs from golden.
    """
    config, memory = configuration(case.config), memory_of(case)
    with tempfile.TemporaryDirectory(prefix="sterna-bench-") as folder:
        model = open_model(case.model, Path(folder))
        with CoSimulation(model, config, memory=memory, progress=note) as cosim:
            found = account(cosim.image, config)
            for token in range(tokens):
                checked = cosim.step(token)
    return Measurement(
        model=case.model,
        config=case.config,
        memory=case.memory,
        lanes=config.lanes * config.clusters,
        slots=config.slots,
        bytes_per_cycle=memory.peak_bytes(config.beat_bytes, config.clusters),
        weight_bytes=found.trits,
        generated_bytes=found.generated,
        stream_bytes=found.total,
        cycles=checked.cycles,
        beats=checked.beats,
        stalls={stall.name: cycles for stall, cycles in checked.stalls.items()},
        stream=_stream_bytes(found),
        integers_compared=checked.integers,
        efficiency=checked.efficiency,
        bound=found.bound,
        trits_per_second=5 * (found.trits + found.generated) / checked.seconds,
        cycles_per_second=checked.cycles / checked.seconds,
    )


def _stream_bytes(found: StreamAccount) -> dict[str, int]:
    return {name: getattr(found, name) for name in BEATS}
