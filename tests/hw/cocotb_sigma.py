"""The sigma unit against the specification at every input near the table's range, and against the exact function."""

from __future__ import annotations

import math
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from streams import seeded, start

from sterna.spec import numerics
from sterna_hw.sigma import SIGMA_LATENCY

LIMIT = numerics.SIGMA_SEGMENTS << numerics.SIGMA_SEGMENT_BITS  # |x| = 16
MASK = (1 << numerics.VALUE_WIDTH) - 1
EXTREMES = [numerics.VALUE_MIN, numerics.VALUE_MIN + 1, numerics.VALUE_MAX, numerics.VALUE_MAX - 1]
EXTREMES += [sign * (1 << bit) + near for sign in (1, -1) for bit in range(16, 23) for near in (-1, 0, 1)]


async def run(dut: Any, values: list[int], enables: list[bool]) -> list[int]:
    """Feed ``values`` in the cycles that are enabled, and collect what comes out in those."""
    edge = RisingEdge(dut.clk)
    pending = iter(values + [0] * SIGMA_LATENCY)
    results = []
    await start(dut)
    for enabled in enables:
        dut.enable.value = enabled
        # While the unit holds, its input must not matter.
        dut.value.value = next(pending) & MASK if enabled else 0x123456
        await edge
        if enabled:
            results.append(int(dut.sigma.value))
    return results[SIGMA_LATENCY:]


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def whole_range(dut: Any) -> None:
    values = [*range(-LIMIT - 100, LIMIT + 101), *EXTREMES]
    results = await run(dut, values, [True] * (len(values) + SIGMA_LATENCY))
    got, want = np.array(results), numerics.sigma(np.array(values))
    wrong = np.flatnonzero(got != want)
    assert not len(wrong), (
        f"{len(wrong)} wrong, first sigma({values[wrong[0]]}) = {got[wrong[0]]}, not {want[wrong[0]]}"
    )
    for value, result in zip(values, results, strict=True):
        decay = math.exp(-abs(value) / (1 << numerics.GATE_IN_FRAC))
        exact = numerics.GATE_ONE * (1 if value >= 0 else decay) / (1 + decay)
        assert abs(result - exact) <= 1, (value, result, exact)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def holds(dut: Any) -> None:
    rng = seeded(dut, "holds")
    values = [rng.randrange(-LIMIT * 2, LIMIT * 2) for _ in range(3000)]
    enables: list[bool] = []
    while sum(enables) < len(values) + SIGMA_LATENCY:
        enables.append(rng.random() < 0.6)
    assert await run(dut, values, enables) == numerics.sigma(np.array(values)).tolist()
