"""Benches of LogitsWriter; the geometry comes from the environment (see test_logits_writer)."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from axi_checks import WriteChecker, stalls, write_bus
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiRamWrite
from streams import Source, cycle, seeded, start

BEAT = int(os.environ["BEAT_BYTES"])
VALUE_WIDTH = int(os.environ["VALUE_WIDTH"])
LONGEST = int(os.environ["LONGEST_BURST"])  # beats
OUTSTANDING = 7
SIZE = 1 << 16
PER_BEAT = BEAT // 4


class Ram(AxiRamWrite):
    """Memory whose addresses from ``bad`` on answer with an error."""

    bad = SIZE

    async def _write(self, address: int, data: bytes) -> None:
        if address >= self.bad:
            raise ValueError("bad address")
        await super()._write(address, data)


async def quiet(dut: Any) -> None:
    for name in ("start", "enable", "address", "flush", "values__valid", "bus__awready", "bus__wready", "bus__bvalid"):
        getattr(dut, name).value = 0
    dut.bus__bresp.value = 0
    await start(dut, limit=400_000)


async def prepare(dut: Any, stall: float) -> tuple[Any, Ram, WriteChecker]:
    rng = seeded(dut)
    await quiet(dut)
    ram = Ram(write_bus(dut, "bus"), dut.clk, size=SIZE)
    ram.log.setLevel("ERROR")
    if stall:
        for channel in (ram.aw_channel, ram.w_channel, ram.b_channel):
            channel.set_pause_generator(stalls(rng, stall))
    ram.write(0, rng.randbytes(SIZE))
    return rng, ram, WriteChecker(dut, "bus", outstanding=OUTSTANDING, max_beats=LONGEST)


async def begin(dut: Any, address: int, enable: bool) -> None:
    dut.start.value, dut.address.value, dut.enable.value = 1, address, int(enable)
    await RisingEdge(dut.clk)
    dut.start.value, dut.address.value, dut.enable.value = 0, 0, 0
    await RisingEdge(dut.clk)


async def until_idle(dut: Any, limit: int = 20_000) -> None:
    for _ in range(limit):
        await RisingEdge(dut.clk)
        if int(dut.idle.value):
            return
    raise AssertionError(f"not idle after {limit} cycles")


def random_values(rng: Any, count: int) -> list[int]:
    low, high = -(1 << (VALUE_WIDTH - 1)), (1 << (VALUE_WIDTH - 1)) - 1
    return [rng.choice([low, high, 0, -1, rng.randint(low, high)]) for _ in range(count)]


def payload(value: int, last: bool) -> int:
    return value & ((1 << VALUE_WIDTH) - 1) | last << VALUE_WIDTH


def in_memory(values: list[int]) -> bytes:
    return b"".join(value.to_bytes(4, "little", signed=True) for value in values)


@cocotb.test()
async def random_tokens(dut: Any) -> None:
    """Each logit at its address and nothing else changed, for one and for several jobs a token, whatever stalls."""
    rng, ram, checker = await prepare(dut, 0.3)
    source = Source(dut, "values", 0.2, rng)
    for _ in range(40):
        source.stall = rng.choice([0, 0.2, 0.8])
        enable = rng.random() < 0.8
        values = random_values(rng, rng.choice([1, 2, rng.randint(1, 20), rng.randint(1, 300)]))
        near = 4096 * rng.randint(1, SIZE // 4096 - 2) - BEAT * rng.randint(0, 40)
        address = rng.choice([near, rng.randrange(0, SIZE // 2, BEAT)])
        before = ram.read(0, SIZE)
        bursts = len(checker.bursts)
        assert int(dut.idle.value)
        await begin(dut, address, enable)
        lasts = {len(values) - 1} | {rng.randrange(len(values)) for _ in range(rng.randint(0, 3))}
        source.send_all(payload(value, i in lasts) for i, value in enumerate(values))
        await source.drain()
        await until_idle(dut)
        expected = bytearray(before)
        if enable:
            expected[address : address + 4 * len(values)] = in_memory(values)
            assert len(checker.bursts) - bursts <= -(-4 * len(values) // (BEAT * LONGEST)) + 1 + len(lasts)
        else:
            assert len(checker.bursts) == bursts
        assert ram.read(0, SIZE) == bytes(expected)
        assert not int(dut.error.value)


@cocotb.test()
async def every_cycle(dut: Any) -> None:
    """A value a cycle, disabled and (with beats of several values) enabled; latency as documented."""
    rng, ram, checker = await prepare(dut, 0)
    source = Source(dut, "values", 0, rng)
    for enable in (False, True):
        values = random_values(rng, 4 * LONGEST * PER_BEAT)
        await begin(dut, 0, enable)
        source.send_all(payload(value, i == len(values) - 1) for i, value in enumerate(values))
        begun = cycle()
        await source.drain()
        if PER_BEAT > 1 or not enable:
            assert cycle() - begun == len(values)
        await until_idle(dut)
    assert ram.read(0, 4 * len(values)) == in_memory(values)
    assert checker.bursts == [(BEAT * LONGEST * i, LONGEST) for i in range(4)]

    await begin(dut, 0, True)
    source.send(payload(1, True))
    await source.drain()
    while not int(dut.bus__awvalid.value):
        await RisingEdge(dut.clk)
    assert cycle() == source.times[-1] + 2
    await until_idle(dut)


@cocotb.test()
async def idle_means_answered(dut: Any) -> None:
    """Not idle from the first value until the last answer."""
    rng, ram, _ = await prepare(dut, 0)
    ram.b_channel.pause = True
    source = Source(dut, "values", 0, rng)
    await begin(dut, 0, True)
    assert int(dut.idle.value)
    source.send(payload(5, False))
    await source.drain()
    for _ in range(50):
        await RisingEdge(dut.clk)
        assert not int(dut.idle.value)
    source.send(payload(6, True))
    await source.drain()
    for _ in range(50):
        await RisingEdge(dut.clk)
        assert not int(dut.idle.value)
    ram.b_channel.pause = False
    await until_idle(dut, 20)
    assert ram.read(0, 8) == in_memory([5, 6])


@cocotb.test()
async def answers_wait(dut: Any) -> None:
    """Only so many bursts go unanswered; each answer lets one more go."""
    rng = seeded(dut)
    await quiet(dut)
    checker = WriteChecker(dut, "bus", outstanding=OUTSTANDING, max_beats=LONGEST)
    dut.bus__awready.value = dut.bus__wready.value = 1
    source = Source(dut, "values", 0, rng)
    await begin(dut, 0, True)
    total = OUTSTANDING + 5
    count = total * LONGEST * PER_BEAT
    source.send_all(payload(i, i == count - 1) for i in range(count))
    for answered in range(total + 1):
        await ClockCycles(dut.clk, (total if not answered else 2) * LONGEST * PER_BEAT + 20)
        assert len(checker.bursts) == min(OUTSTANDING + answered, total)
        assert int(dut.idle.value) == (answered == total)
        dut.bus__bvalid.value = 1 if answered < total else 0
        await RisingEdge(dut.clk)
        dut.bus__bvalid.value = 0


@cocotb.test()
async def error_response(dut: Any) -> None:
    """A bad BRESP shows and stays until the next start."""
    rng, ram, _ = await prepare(dut, 0.3)
    source = Source(dut, "values", 0.2, rng)
    ram.bad = 4096 + 4 * LONGEST
    await begin(dut, 4096 - 4 * LONGEST, True)
    count = 3 * LONGEST * PER_BEAT
    source.send_all(payload(i, i == count - 1) for i in range(count))
    await source.drain()
    await until_idle(dut)
    await ClockCycles(dut.clk, 20)
    assert int(dut.error.value)
    ram.bad = SIZE
    await begin(dut, 0, True)
    assert not int(dut.error.value)
    source.send(payload(-7, True))
    await source.drain()
    await until_idle(dut)
    assert ram.read(0, 4) == in_memory([-7])
    assert not int(dut.error.value)


@cocotb.test()
async def flush_anywhere(dut: Any) -> None:
    """A flush leaves a legal bus and a prefix of the logits in memory; the next token is whole."""
    rng, ram, _ = await prepare(dut, 0.3)
    dut.flush.value = 1
    await until_idle(dut, 2)
    dut.flush.value = 0
    for turn in range(60):
        source = Source(dut, "values", rng.choice([0, 0.3]), rng)
        before = ram.read(0, SIZE)
        values = random_values(rng, 4 * LONGEST * PER_BEAT)
        await begin(dut, 8 * BEAT, True)
        source.send_all(payload(value, rng.random() < 0.01) for value in values)
        await ClockCycles(dut.clk, rng.randint(1, 3 * LONGEST * PER_BEAT))
        dut.flush.value = 1
        await until_idle(dut)
        dut.flush.value = 0
        await ClockCycles(dut.clk, 5)
        assert int(dut.idle.value), "values after a flush are swallowed"
        source.cancel()
        after = ram.read(0, SIZE)
        written = in_memory(values)
        kept = next(n for n in range(len(values) + 1) if after == _with(before, 8 * BEAT, written[: 4 * n]))
        assert kept <= source.sent, f"turn {turn}"

        source = Source(dut, "values", 0, rng)
        values = random_values(rng, rng.randint(1, 40))
        await begin(dut, 0, True)
        source.send_all(payload(value, i == len(values) - 1) for i, value in enumerate(values))
        await source.drain()
        await until_idle(dut)
        source.cancel()
        assert ram.read(0, SIZE) == _with(after, 0, in_memory(values)), f"turn {turn}"


def _with(memory: bytes, address: int, data: bytes) -> bytes:
    return memory[:address] + data + memory[address + len(data) :]
