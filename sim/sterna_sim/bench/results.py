"""All figures of a run, and their form as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from sterna_sim.bench.cases import Case, CpuCase, SlotsCase
from sterna_sim.bench.cpu import CpuMeasurement
from sterna_sim.bench.cpu import measure as measure_cpu
from sterna_sim.bench.slots import SlotMeasurement
from sterna_sim.bench.slots import measure as measure_slots
from sterna_sim.bench.throughput import Throughput, throughputs
from sterna_sim.bench.tokens import Measurement
from sterna_sim.bench.tokens import measure as measure_token
from sterna_sim.compile import Progress


@dataclass
class Results:
    """What was measured so far, by kind."""

    tokens: list[Measurement] = field(default_factory=list)
    slots: list[SlotMeasurement] = field(default_factory=list)
    cpu: list[CpuMeasurement] = field(default_factory=list)

    @property
    def throughput(self) -> list[Throughput]:
        """Computed from the cycles of tokens and slots."""
        return throughputs(self.tokens, self.slots)

    def run(self, case: Case, *, tokens: int = 1, note: Progress | None = None) -> None:
        """Measure ``case``; a token case runs ``tokens`` tokens.

        Raises:
            SternaError: it cannot be measured, or integers differ from golden's.
        """
        if isinstance(case, CpuCase):
            self.cpu.append(measure_cpu(case))
        elif isinstance(case, SlotsCase):
            self.slots.append(measure_slots(case, note=note))
        else:
            self.tokens.append(measure_token(case, tokens=tokens, note=note))

    def json(self) -> str:
        """Figures, and what follows from them."""
        found: dict[str, list[dict[str, object]]] = {
            "tokens": [asdict(m) for m in self.tokens],
            "slots": [asdict(m) | {"throughput": m.throughput, "prefill": m.prefill} for m in self.slots],
            "throughput": [asdict(t) | {"tokens_per_second": t.tokens_per_second} for t in self.throughput],
            "cpu": [asdict(m) for m in self.cpu],
        }
        return json.dumps(found, indent=2) + "\n"
