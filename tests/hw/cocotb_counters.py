"""The counters of a token against sums over random events."""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import RisingEdge, Timer
from streams import seeded, start

from sterna.spec.registers import Stall

EVENTS = {"beat": "read_beats", "saturated": "saturations"}
UNDER_WAY = (Stall.STARTUP, Stall.MEMORY, Stall.RESTART)


class Reasons:
    """The reason of each cycle without a beat, by the text of ``Stall``."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(Stall, 0)
        self.begun = False
        self.rested = False

    def cycle(self, beat: int, starved: int, phase: Stall) -> None:
        if beat:
            self.begun, self.rested = True, False
            return
        if not self.begun:
            self.counts[Stall.STARTUP] += 1
        elif not starved:
            self.counts[phase] += 1
        else:
            self.counts[Stall.RESTART if self.rested else Stall.MEMORY] += 1
        self.rested |= not starved


async def stalls(dut: Any) -> dict[Stall, int]:
    found = {}
    for stall in Stall:
        dut.stall.value = stall
        await Timer(1, "ns")
        found[stall] = int(dut.stall_cycles.value)
    return found


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def tokens(dut: Any) -> None:
    """Events count while busy only, cycles from START on; all stand still after the token and start again from zero."""
    rng, edge = seeded(dut), RisingEdge(dut.clk)
    for name in ("start", "busy", "finished", "starved", "phase", "stall", *EVENTS):
        getattr(dut, name).value = 0
    await start(dut)
    seen = set()
    for token in range(60):
        if token % 10 == 0:  # a core reset: what memory holds must not show
            dut.rst.value = 1
            await edge
            dut.rst.value = 0
            await edge
            assert not any((await stalls(dut)).values())
            await edge
            tokens_before = token
        dut.start.value = 1
        await edge
        dut.start.value, dut.busy.value = 0, 1
        expected = dict.fromkeys(EVENTS, 0)
        reasons = Reasons()
        reasons.cycle(0, 1, Stall.END)  # that of START
        length = rng.randint(1, 120)
        phases = rng.sample([stall for stall in Stall if stall not in UNDER_WAY], rng.randint(1, 4))
        for _ in range(length):
            events = {name: int(rng.random() < 0.4) for name in EVENTS}
            starved, phase = int(not events["beat"] and rng.random() < 0.5), rng.choice(phases)
            reasons.cycle(events["beat"], starved, phase)
            dut.starved.value, dut.phase.value = starved, phase
            for name, event in events.items():
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
            for name in ("beat", "starved"):
                getattr(dut, name).value = rng.randrange(2)
            await edge
        assert int(dut.cycles.value) == length + 1
        assert {name: int(getattr(dut, EVENTS[name]).value) for name in EVENTS} == expected
        found = await stalls(dut)
        assert found == reasons.counts
        assert int(dut.read_beats.value) + sum(found.values()) == length + 1
        assert int(dut.tokens.value) == token + 1 - tokens_before
        seen |= {stall for stall, count in found.items() if count}
        await edge
    assert seen == set(Stall), "some reason never came"
