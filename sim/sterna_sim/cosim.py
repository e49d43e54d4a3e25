"""Runs a model on the Verilated RTL beside the golden model and compares every integer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sterna.compiler.image import compile_model
from sterna.engines.accelerator import AcceleratorEngine
from sterna.engines.engine import Origin, SlotToken
from sterna.errors import SternaError
from sterna.golden.model import GoldenModel, Trace
from sterna.model.integer import IntegerModel
from sterna.model.store import Model
from sterna.spec.config import HardwareConfig
from sterna.spec.numerics import IntArray
from sterna.spec.registers import Stall
from sterna_sim.compile import Progress
from sterna_sim.memory import Memory
from sterna_sim.transport import VerilatorTransport

LOGITS = "logits"  # name of the results that a pass without a head has not
RESIDUALS = ("embedding", "residual")  # ends of the names of what is the residual


class Mismatch(SternaError):
    """The RTL and the golden model differ; the sentence names the layer and the first differing integer."""

    exit_code = 1


@dataclass(frozen=True)
class CheckedPass:
    """A pass over the weights that was equal in every integer, in every slot."""

    sampled: Mapping[int, int]  # by slot
    integers: int  # row results compared
    cycles: int
    beats: int
    stalls: dict[Stall, int]  # cycles without a beat by their reason; with the beats they are all cycles
    efficiency: float  # share of the memory's rate that was weights read, the whole pass counted
    seconds: float  # that the simulation of it took


class CoSimulation:
    """The accelerator and the golden model, token by token in step. Closing it frees the simulation.

    Args:
        model: What runs.
        config: The build it runs on.
        memory: The memory behind it, or its name.
        waves: File for the waves (FST).
        progress: Called with a few words at each step of a build of the simulator.
    """

    def __init__(
        self,
        model: Model,
        config: HardwareConfig,
        *,
        memory: Memory | str | None = None,
        waves: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        integers = IntegerModel.from_model(model)
        self.image = image = compile_model(integers, config)
        self._golden = GoldenModel(integers)
        self._transport = VerilatorTransport(config, memory=memory, waves=waves, progress=progress)
        self._engine = AcceleratorEngine(self._transport, image, model.geometry)
        self._states: dict[int, IntArray] = {}  # after the last pass, by slot
        self._started = False
        self._weight_bytes = image.weight_bytes - image.generated_bytes
        self._clusters = config.clusters
        self._bytes_per_cycle = self._transport.memory.peak_bytes(config.beat_bytes, config.clusters)

    def __enter__(self) -> CoSimulation:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def step(self, token: int) -> CheckedPass:
        """Run one token of a sequence in slot 0; see :meth:`run`."""
        origin = 0 if self._started else Origin.FRESH
        self._started = True
        return self.run({0: SlotToken(token, origin)})

    def run(self, tokens: Mapping[int, SlotToken], *, head: bool = True) -> CheckedPass:
        """Run a token in each slot that is named, on both.

        Raises:
            Mismatch: an integer differs, the RTL clamped or sampled otherwise, or beats and stalls are not all cycles.
            DeviceError: the accelerator failed.
        """
        started = time.monotonic()
        found = self._engine.run(tokens, head=head)
        seconds = time.monotonic() - started
        before, integers, saturations = dict(self._states), 0, 0
        for slot in range(self._engine.slots):
            results = [self._transport.take_trace(slot + cluster) for cluster in range(self._clusters)]
            if slot not in tokens:
                compare_trace(Trace(), results)
                continue
            trace, logits = self._expected(slot, tokens[slot], before)
            if not head:
                trace = Trace(trace.results[:-1], {k: n for k, n in trace.clamped.items() if k != LOGITS})
            compare_trace(trace, results, residual_order=self.image.residual_order)
            best = int(np.argmax(logits))
            if head and found.sampled[slot] != best:
                raise Mismatch(f"the RTL sampled token {found.sampled[slot]}, the golden model {best}")
            if slot in found.logits and not np.array_equal(found.logits[slot], logits):
                raise Mismatch(f"the logits of slot {slot} in memory are not the golden model's")
            integers += sum(map(len, results))
            saturations += trace.saturations
        if found.counters["saturations"] != saturations:
            clamped = found.counters["saturations"]
            raise Mismatch(f"the RTL clamped {clamped} row results, the golden model {saturations}")
        cycles, beats, stalls = found.counters["cycles"], found.counters["read_beats"], self._engine.stalls()
        if beats + sum(stalls.values()) != cycles:
            raise Mismatch(f"{beats} beats and {sum(stalls.values())} stalled cycles do not make {cycles} cycles")
        efficiency = self._weight_bytes / (cycles * self._bytes_per_cycle)
        return CheckedPass(found.sampled, integers, cycles, beats, stalls, efficiency, seconds)

    def _expected(self, slot: int, entry: SlotToken, before: dict[int, IntArray]) -> tuple[Trace, IntArray]:
        """What the golden model makes of a token, which goes on from a state of ``before`` or of the slot before."""
        match entry.origin:
            case Origin.FRESH:
                self._golden.reset()
            case Origin.CHAIN:
                self._golden.state = self._states[slot - 1].copy()
            case source:
                self._golden.state = before[source].copy()
        trace = Trace()
        logits = self._golden.step([entry.token], trace=trace)[0]
        self._states[slot] = self._golden.state.copy()
        return trace, logits

    def generate(self, prompt: list[int], tokens: int) -> Iterator[tuple[CheckedPass, bool]]:
        """Feed the prompt, then ``tokens`` greedy tokens; yields each checked token and whether it is a new one."""
        for position, token in enumerate(prompt):
            checked = self.step(token)
            yield checked, position == len(prompt) - 1
        for _ in range(tokens - 1):
            checked = self.step(checked.sampled[0])
            yield checked, True


def compare_trace(
    golden: Trace, found: Sequence[npt.NDArray[np.int32]], *, residual_order: IntArray | None = None
) -> None:
    """Compare the row results of one token.

    Args:
        golden: Those of the golden model.
        found: Those of each cluster, which made the part of each result that is its own; of other builds one array.
        residual_order: The image's.

    Raises:
        Mismatch: names the result (layer and step), the row, and both values.
    """
    start = 0
    for name, values in golden.results:
        expected = values[0]
        if residual_order is not None and name.endswith(RESIDUALS):
            expected = expected[residual_order]
        share = len(expected) // len(found)
        made = np.concatenate([part[start : start + share] for part in found])
        if len(made) < len(expected):
            raise Mismatch(f"{name}: the RTL made {len(made)} of {len(expected)} row results")
        wrong = np.nonzero(made != expected)[0]
        if len(wrong):
            row = int(wrong[0])
            raise Mismatch(
                f"{name}, row {row}: the RTL has {int(made[row])}, the golden model {int(expected[row])} "
                f"({len(wrong)} of {len(expected)} rows differ)"
            )
        start += share
    if any(len(part) != start for part in found):
        made_rows, rows = sum(map(len, found)), start * len(found)
        raise Mismatch(f"the RTL made {made_rows} row results, the golden model {rows}")
