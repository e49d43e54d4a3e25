"""Runs a model on the Verilated RTL beside the golden model and compares every integer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sterna.compiler.image import compile_model
from sterna.engines.accelerator import AcceleratorEngine
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

RESIDUALS = ("embedding", "residual")  # ends of the names of what is the residual


class Mismatch(SternaError):
    """The RTL and the golden model differ; the sentence names the layer and the first differing integer."""

    exit_code = 1


@dataclass(frozen=True)
class CheckedToken:
    """A token that was equal in every integer."""

    sampled: int
    integers: int  # row results compared
    cycles: int
    beats: int
    stalls: dict[Stall, int]  # cycles without a beat by their reason; with the beats they are all cycles
    efficiency: float  # share of the memory's rate that was weights read, the whole token counted
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
        self._weight_bytes = image.weight_bytes - image.generated_bytes
        self._bytes_per_cycle = self._transport.memory.peak_bytes(config.beat_bytes)

    def __enter__(self) -> CoSimulation:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def step(self, token: int) -> CheckedToken:
        """Run one token on both.

        Raises:
            Mismatch: an integer differs, the RTL clamped or sampled otherwise, or beats and stalls are not all cycles.
            DeviceError: the accelerator failed.
        """
        started = time.monotonic()
        step = self._engine.step(token)
        seconds = time.monotonic() - started
        trace = Trace()
        logits = self._golden.step([token], trace=trace)[0]
        found = self._transport.take_trace()
        compare_trace(trace, found, residual_order=self.image.residual_order)
        if step.sampled != int(np.argmax(logits)):
            raise Mismatch(f"the RTL sampled token {step.sampled}, the golden model {int(np.argmax(logits))}")
        if step.counters["saturations"] != trace.saturations:
            clamped = step.counters["saturations"]
            raise Mismatch(f"the RTL clamped {clamped} row results, the golden model {trace.saturations}")
        cycles, beats, stalls = step.counters["cycles"], step.counters["read_beats"], self._engine.stalls()
        if beats + sum(stalls.values()) != cycles:
            raise Mismatch(f"{beats} beats and {sum(stalls.values())} stalled cycles do not make {cycles} cycles")
        efficiency = self._weight_bytes / (cycles * self._bytes_per_cycle)
        return CheckedToken(step.sampled, len(found), cycles, beats, stalls, efficiency, seconds)

    def generate(self, prompt: list[int], tokens: int) -> Iterator[tuple[CheckedToken, bool]]:
        """Feed the prompt, then ``tokens`` greedy tokens; yields each checked token and whether it is a new one."""
        for position, token in enumerate(prompt):
            checked = self.step(token)
            yield checked, position == len(prompt) - 1
        for _ in range(tokens - 1):
            checked = self.step(checked.sampled)
            yield checked, True


def compare_trace(golden: Trace, found: npt.NDArray[np.int32], *, residual_order: IntArray | None = None) -> None:
    """Compare the row results of one token; ``residual_order`` is the image's.

    Raises:
        Mismatch: names the result (layer and step), the row, and both values.
    """
    start = 0
    for name, values in golden.results:
        expected = values[0]
        if residual_order is not None and name.endswith(RESIDUALS):
            expected = expected[residual_order]
        part = found[start : start + len(expected)]
        if len(part) < len(expected):
            raise Mismatch(f"{name}: the RTL made {len(part)} of {len(expected)} row results")
        wrong = np.nonzero(part != expected)[0]
        if len(wrong):
            row = int(wrong[0])
            raise Mismatch(
                f"{name}, row {row}: the RTL has {int(part[row])}, the golden model {int(expected[row])} "
                f"({len(wrong)} of {len(expected)} rows differ)"
            )
        start += len(expected)
    if len(found) != start:
        raise Mismatch(f"the RTL made {len(found)} row results, the golden model {start}")
