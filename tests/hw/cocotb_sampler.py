"""The sampler against the definition, cycle by cycle: index of the largest, the lowest index on ties."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from streams import seeded, start

from sterna.spec.numerics import VALUE_MAX, VALUE_MIN, VALUE_WIDTH

MASK = (1 << VALUE_WIDTH) - 1
CLUSTER = bool(int(os.environ.get("STERNA_CLUSTER", 0)))  # the score is a port


def largest(values: list[int]) -> int:
    return values.index(max(values)) if values else 0


async def compare(dut: Any, steps: list[tuple[bool, int | None]]) -> None:
    """Drive (start, value or None) a cycle; ``best`` must be right two cycles after each value."""
    edge = RisingEdge(dut.clk)
    dut.valid.value = 0
    await start(dut)
    dut.start.value = 1
    await edge
    seen: list[int] = []
    expected = [0, 0]  # for this cycle and the next
    gap = False  # nothing came in the last cycle
    for number, (clear, value) in enumerate([*steps, (False, None), (False, None)]):
        dut.start.value = clear
        dut.valid.value = value is not None
        dut.value.value = 0 if value is None else value & MASK
        await edge
        want = expected.pop(0)
        assert int(dut.best.value) == want, f"cycle {number}: {int(dut.best.value)}, not {want}"
        if CLUSTER and value is None and gap:  # all has arrived
            assert int(dut.counted.value) == len(seen)
            assert not seen or int(dut.largest.value) == max(seen) & MASK
        gap = value is None and not clear
        if clear:
            seen, expected = [], [0]
        elif value is not None:
            seen.append(value)
        expected.append(largest(seen))


def gaps(rng: random.Random, values: list[int]) -> list[tuple[bool, int | None]]:
    steps: list[tuple[bool, int | None]] = []
    for value in values:
        while rng.random() < 0.3:
            steps.append((False, None))
        steps.append((False, value))
    return steps


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def ties_and_signs(dut: Any) -> None:
    cases = [
        [VALUE_MIN],
        [VALUE_MIN] * 4,
        [VALUE_MIN, VALUE_MIN + 1],
        [0, VALUE_MIN, -1],
        [-5, -3, -3, -4],
        [-1, 0, 1, 0, 1],
        [VALUE_MAX, VALUE_MIN, VALUE_MAX],
        [VALUE_MIN, VALUE_MAX, VALUE_MAX - 1, VALUE_MAX],
    ]
    steps: list[tuple[bool, int | None]] = []
    for case in cases:
        # Two idle cycles show the result before the next start; the value beside a start is not counted.
        steps += [(False, value) for value in case] + [(False, None)] * 2 + [(True, VALUE_MAX)]
    await compare(dut, steps)


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def random_logits(dut: Any) -> None:
    rng = seeded(dut, "logits")
    steps: list[tuple[bool, int | None]] = []
    for _ in range(60):
        span = rng.choice([1, 2, 5, 1000, VALUE_MAX])
        middle = rng.choice([0, VALUE_MIN + span, VALUE_MAX - span])
        values = [rng.randint(max(VALUE_MIN, middle - span), middle + span) for _ in range(rng.randrange(1, 80))]
        steps += [*gaps(rng, values), (True, rng.choice([None, VALUE_MAX]))]
    await compare(dut, steps)
