"""The counters of a token against sums over random events."""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from streams import seeded, start

EVENTS = {"beat": "read_beats", "starved": "starved_cycles", "saturated": "saturations"}


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def tokens(dut: Any) -> None:
    """Events count while busy only, cycles from START on; all stand still after the token and start again from zero."""
    rng, edge = seeded(dut), RisingEdge(dut.clk)
    for name in ("start", "busy", "finished", *EVENTS):
        getattr(dut, name).value = 0
    await start(dut)
    for token in range(20):
        dut.start.value = 1
        await edge
        dut.start.value, dut.busy.value = 0, 1
        expected = dict.fromkeys(EVENTS, 0)
        length = rng.randint(1, 60)
        for _ in range(length):
            for name in EVENTS:
                event = int(rng.random() < 0.4)
                getattr(dut, name).value = event
                expected[name] += event
            dut.finished.value = 0
            await edge
        dut.busy.value, dut.finished.value = 0, 1
        for name in EVENTS:
            getattr(dut, name).value = 1  # outside a token: not counted
        await edge
        dut.finished.value = 0
        for _ in range(rng.randint(1, 5)):
            await edge
        assert int(dut.cycles.value) == length + 1
        assert {name: int(getattr(dut, EVENTS[name]).value) for name in EVENTS} == expected
        assert int(dut.tokens.value) == token + 1
