"""Clock, reset and stream ends that the benches share.

A stream port ``p`` of a component shows as ``p__valid``, ``p__ready``, ``p__payload``; payloads are plain integers
(first field of a structure in the lowest bits). Values read right after ``RisingEdge`` are those just before the edge;
values written there change just after it.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterable
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Event, RisingEdge, SimTimeoutError, Timer, with_timeout
from cocotb.utils import get_sim_time

PERIOD_NS = 10


def seeded(dut: Any, salt: object = "") -> random.Random:
    """Random numbers that follow from the seed of the run (STERNA_SEED repeats it); the seed is logged."""
    seed = f"{os.environ.get('COCOTB_RANDOM_SEED', 0)}/{salt}"
    dut._log.info("seed %s", seed)
    return random.Random(seed)


def cycle() -> int:
    """Cycles since the start of the simulation."""
    return int(get_sim_time("ns")) // PERIOD_NS


async def start(dut: Any, cycles: int = 4, limit: int = 2_000_000) -> None:
    """Start the clock and hold the reset for ``cycles``; returns just after the edge that released it.

    Drive inputs (or create sources and sinks) before or after; undriven inputs are 0. The test fails once it has run
    for ``limit`` cycles, so that no bench hangs.
    """
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, PERIOD_NS, unit="ns").start())
    await ClockCycles(dut.clk, cycles)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    cocotb.start_soon(_watchdog(limit))


async def _watchdog(limit: int) -> None:
    await Timer(limit * PERIOD_NS, "ns")
    raise AssertionError(f"the test is still running after {limit} cycles")


class Source:
    """Drives the stream ``prefix``; each transfer waits random cycles (each with probability ``stall``) first.

    Once valid, a payload stays until it is taken.
    """

    def __init__(self, dut: Any, prefix: str, stall: float = 0.3, rng: random.Random | None = None) -> None:
        self._clock = dut.clk
        self._valid = getattr(dut, f"{prefix}__valid")
        self._ready = getattr(dut, f"{prefix}__ready")
        self._payload = getattr(dut, f"{prefix}__payload")
        self.stall = stall
        self._rng = rng or seeded(dut, prefix)
        self._queue: deque[int] = deque()
        self._filled, self._emptied = Event(), Event()
        self._emptied.set()
        self.times: list[int] = []  # cycle of each transfer
        self._valid.value = 0
        self._task = cocotb.start_soon(self._run())

    @property
    def sent(self) -> int:
        """Transfers so far."""
        return len(self.times)

    def send(self, payload: int) -> None:
        """Queue a payload; returns at once."""
        self._queue.append(payload)
        self._emptied.clear()
        self._filled.set()

    def send_all(self, payloads: Iterable[int]) -> None:
        """Queue many payloads."""
        for payload in payloads:
            self.send(payload)

    def clear(self) -> None:
        """Forget what is queued; a payload already valid stays until it is taken."""
        self._queue.clear()

    def cancel(self) -> None:
        """Stop driving: valid falls now, whatever was offered (for a consumer that is being flushed)."""
        self._task.cancel()
        self._queue.clear()
        self._valid.value = 0

    async def drain(self, timeout_cycles: int = 100_000) -> None:
        """Wait until everything queued was taken."""
        await with_timeout(self._emptied.wait(), timeout_cycles * PERIOD_NS, "ns")

    async def _run(self) -> None:
        edge = RisingEdge(self._clock)
        while True:
            if not self._queue:
                self._valid.value = 0
                self._emptied.set()
                self._filled.clear()
                await self._filled.wait()
                continue
            if self.stall and self._rng.random() < self.stall:
                self._valid.value = 0
                await edge
                continue
            self._payload.value = self._queue.popleft()
            self._valid.value = 1
            await edge
            while not int(self._ready.value):
                await edge
            self.times.append(cycle())


class Sink:
    """Takes the stream ``prefix``; ready is low with probability ``stall`` in each cycle.

    ``received`` holds the payloads, ``times`` the cycle of each. Fails the test when valid falls or the payload changes
    before a transfer (``check=False`` for a producer that may, such as one that is flushed).
    """

    def __init__(
        self, dut: Any, prefix: str, stall: float = 0.3, rng: random.Random | None = None, *, check: bool = True
    ) -> None:
        self._prefix = prefix
        self._clock = dut.clk
        self._valid = getattr(dut, f"{prefix}__valid")
        self._ready = getattr(dut, f"{prefix}__ready")
        self._payload = getattr(dut, f"{prefix}__payload")
        self.stall = stall
        self.check = check
        self._rng = rng or seeded(dut, prefix)
        self.received: list[int] = []
        self.times: list[int] = []
        self._wanted = 0
        self._enough = Event()
        self._task = cocotb.start_soon(self._run())

    async def wait(self, count: int, timeout_cycles: int = 100_000) -> list[int]:
        """Wait until ``count`` payloads have come since the start; gives all of them."""
        if len(self.received) < count:
            self._wanted = count
            self._enough.clear()
            try:
                await with_timeout(self._enough.wait(), timeout_cycles * PERIOD_NS, "ns")
            except SimTimeoutError:
                raise AssertionError(
                    f"{self._prefix}: {len(self.received)} of {count} payloads after {timeout_cycles} cycles"
                ) from None
        return self.received

    def cancel(self) -> None:
        """Take nothing more."""
        self._task.cancel()
        self._ready.value = 0

    async def _run(self) -> None:
        edge = RisingEdge(self._clock)
        waiting: int | None = None  # payload offered and not yet taken
        while True:
            ready = not self.stall or self._rng.random() >= self.stall
            self._ready.value = int(ready)
            await edge
            if not int(self._valid.value):
                assert waiting is None or not self.check, f"{self._prefix}: valid fell before the transfer"
                waiting = None
                continue
            payload = int(self._payload.value)
            assert waiting in (None, payload) or not self.check, f"{self._prefix}: payload changed before the transfer"
            waiting = payload
            if ready:
                waiting = None
                self.received.append(payload)
                self.times.append(cycle())
                if len(self.received) >= self._wanted:
                    self._enough.set()
