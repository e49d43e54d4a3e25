"""Benches of Uart: the other side counts picoseconds, by a clock of its own that is up to 2 % off."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, FallingEdge, RisingEdge, Timer
from cocotb.utils import get_sim_time
from streams import PERIOD_NS, Sink, Source, seeded, start

RATIO = int(os.environ["CLOCK_HZ"]) / int(os.environ["BAUD"])  # cycles a bit
BIT_PS = 1000 * PERIOD_NS * RATIO
CAPACITY = 1024
CLOCKS = (0.98, 0.99, 1.0, 1.01, 1.02)  # of the other side, length of a bit


async def send(dut: Any, byte: int, *, scale: float = 1.0, stop: int = 1) -> None:
    """One byte on the pin; edges do not add up rounding."""
    begun, bits = get_sim_time("ps"), [0, *(byte >> i & 1 for i in range(8)), stop]
    for i, bit in enumerate(bits):
        dut.rx.value = bit
        await Timer(round(begun + (i + 1) * BIT_PS * scale - get_sim_time("ps")), "ps")


async def receive(dut: Any, count: int, *, scale: float) -> tuple[list[int], list[float]]:
    """Bytes from the pin, sampled in the middle of our bits, and the times of their start bits."""
    found, times = [], []
    for _ in range(count):
        if int(dut.tx.value):
            await FallingEdge(dut.tx)
        begun = get_sim_time("ps")
        times.append(begun)
        bits = []
        for i in range(10):
            await Timer(round(begun + (i + 0.5) * BIT_PS * scale - get_sim_time("ps")), "ps")
            bits.append(int(dut.tx.value))
        assert bits[0] == 0 and bits[9] == 1, f"no frame: {bits}"
        found.append(sum(bit << i for i, bit in enumerate(bits[1:9])))
    return found, times


async def prepare(dut: Any) -> Any:
    rng = seeded(dut)
    dut.rx.value, dut.received__ready.value, dut.sent__valid.value = 1, 0, 0
    await start(dut, limit=4_000_000)
    return rng


@cocotb.test()
async def receives(dut: Any) -> None:
    """Back to back and with pauses, from clocks that are off, at any phase of ours."""
    rng = await prepare(dut)
    sink = Sink(dut, "received", 0.3, rng)
    wanted = []
    for scale in CLOCKS:
        for _ in range(60):
            if rng.random() < 0.3:
                await Timer(rng.randint(1, round(3 * BIT_PS)), "ps")
            wanted.append(rng.choice((0, 0xFF, 0x55, 0xAA, 0x7F, 0x80, rng.randrange(256))))
            await send(dut, wanted[-1], scale=scale)
    assert await sink.wait(len(wanted)) == wanted
    await ClockCycles(dut.clk, 200)
    assert sink.received == wanted


@cocotb.test()
async def sends(dut: Any) -> None:
    """What a receiver with a clock that is off reads; without a gap worth the name when there is more to send."""
    rng = await prepare(dut)
    for scale in CLOCKS:
        for stall in (0.0, 0.9):
            source = Source(dut, "sent", stall, rng)
            wanted = [rng.choice((0, 0xFF, 0x55, rng.randrange(256))) for _ in range(40)]
            source.send_all(wanted)
            found, times = await receive(dut, len(wanted), scale=scale)
            assert found == wanted
            if not stall:
                pace = (times[-1] - times[0]) / (len(times) - 1) / (1000 * PERIOD_NS)
                assert 10 * RATIO <= pace <= 10 * RATIO + 2
            source.cancel()
            await Timer(round(2 * BIT_PS), "ps")
    assert int(dut.tx.value)


@cocotb.test()
async def bad_frames(dut: Any) -> None:
    """A byte without a stop bit is dropped, a break is nothing, a glitch is no start bit; the next byte is whole."""
    rng = await prepare(dut)
    sink = Sink(dut, "received", 0, rng)
    wanted = []
    for turn in range(30):
        match turn % 3:
            case 0:
                await send(dut, rng.randrange(256), stop=0)
            case 1:
                dut.rx.value = 0
                await Timer(round(rng.uniform(10, 40) * BIT_PS), "ps")
            case 2:
                dut.rx.value = 0
                await Timer(round(0.2 * BIT_PS), "ps")  # less than a cycle where a bit is four
        dut.rx.value = 1
        await Timer(round(rng.uniform(1, 3) * BIT_PS), "ps")
        wanted.append(rng.randrange(256))
        await send(dut, wanted[-1])
    await ClockCycles(dut.clk, 20)
    assert sink.received == wanted


@cocotb.test()
async def overflow(dut: Any) -> None:
    """The buffer holds what the specification promises; each byte more is counted, and those kept are the first."""
    rng = await prepare(dut)
    lost = 0

    async def count() -> None:
        nonlocal lost
        while True:
            await RisingEdge(dut.clk)
            lost += int(dut.overflow.value)

    counter = cocotb.start_soon(count())
    data = [rng.randrange(256) for _ in range(CAPACITY + rng.randint(3, 20))]
    for i, byte in enumerate(data):
        await send(dut, byte)
        assert i >= CAPACITY or not lost
    await ClockCycles(dut.clk, 20)
    assert 0 < lost <= len(data) - CAPACITY
    counter.cancel()
    sink = Sink(dut, "received", 0, rng)
    kept = len(data) - lost
    assert await sink.wait(kept) == data[:kept]
    await send(dut, 0x42)
    assert (await sink.wait(kept + 1))[-1] == 0x42
