"""Benches of WeightStream; the geometry comes from the environment (see test_weight_stream)."""

from __future__ import annotations

import os
from collections import deque
from typing import Any

import cocotb
from axi_checks import ReadChecker, read_bus, stalls
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiRamRead
from streams import Sink, Source, cycle, seeded, start

BEAT = int(os.environ["BEAT_BYTES"])
WORD = int(os.environ["WORD_BYTES"])
ADDRESS_WIDTH = int(os.environ["ADDRESS_WIDTH"])
BURST = int(os.environ["BURST_BEATS"])
OUTSTANDING = int(os.environ["OUTSTANDING"])
PREFETCH = int(os.environ["PREFETCH_WORDS"])
PER_WORD = WORD // BEAT
CAPACITY = PREFETCH * PER_WORD  # beats
SIZE = 1 << 16
SLVERR = 2


def segment(address: int, beats: int) -> int:
    return address | beats << ADDRESS_WIDTH


def words_of(memory: bytes, address: int, beats: int) -> list[int]:
    return [int.from_bytes(memory[at : at + WORD], "little") for at in range(address, address + beats * BEAT, WORD)]


def random_segment(rng: Any, limit: int) -> tuple[int, int]:
    """Whole words at any beat, often across a 4 KiB boundary."""
    beats = PER_WORD * rng.randint(1, limit // PER_WORD)
    if rng.random() < 0.5:
        address = 4096 * rng.randint(1, SIZE // 4096 - 2) - BEAT * rng.randint(0, beats)
    else:
        address = rng.randrange(0, SIZE - beats * BEAT, BEAT)
    return max(0, min(address, SIZE - beats * BEAT)), beats


class PipelinedMemory:
    """Answers ``latency`` cycles after AR, without gaps while bursts are waiting; beats at ``bad`` with an error."""

    def __init__(self, dut: Any, memory: bytes, latency: int, bad: frozenset[int] = frozenset()) -> None:
        self._dut, self._memory, self._latency, self.bad = dut, memory, latency, bad
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        dut, edge = self._dut, RisingEdge(self._dut.clk)
        beats: deque[tuple[int, int, bool]] = deque()  # cycle from which it may come, address, last
        dut.bus__arready.value = 1
        while True:
            await edge
            assert int(dut.bus__rready.value), "rready is not constant"
            now = cycle()
            if int(dut.bus__arvalid.value):
                address, count = int(dut.bus__araddr.value), int(dut.bus__arlen.value) + 1
                beats.extend((now + self._latency, address + i * BEAT, i == count - 1) for i in range(count))
            # What is driven here is sampled at the next edge.
            if beats and beats[0][0] <= now + 1:
                _, address, last = beats.popleft()
                dut.bus__rdata.value = int.from_bytes(self._memory[address : address + BEAT], "little")
                dut.bus__rresp.value = SLVERR if address in self.bad else 0
                dut.bus__rlast.value = int(last)
                dut.bus__rvalid.value = 1
            else:
                dut.bus__rvalid.value = 0


class Watch:
    """Notes the cycles of the report signals and of the first arvalid; idle must not show with bursts in flight."""

    def __init__(self, dut: Any, checker: ReadChecker) -> None:
        self._dut, self._checker = dut, checker
        self.beat: list[int] = []
        self.starved: list[int] = []
        self.first_request = 0
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        dut, edge = self._dut, RisingEdge(self._dut.clk)
        while True:
            await edge
            if int(dut.beat.value):
                self.beat.append(cycle())
            if int(dut.starved.value):
                self.starved.append(cycle())
            requested = int(dut.bus__arvalid.value)
            if requested and not self.first_request:
                self.first_request = cycle()
            if requested or self._checker.in_flight:
                assert not int(dut.idle.value), "idle with bursts in flight"


async def until_idle(dut: Any, limit: int = 20_000) -> None:
    for _ in range(limit):
        await RisingEdge(dut.clk)
        if int(dut.idle.value):
            return
    raise AssertionError(f"not idle after {limit} cycles")


async def flush(dut: Any) -> None:
    dut.flush.value = 1
    await until_idle(dut)
    dut.flush.value = 0


async def prepare(dut: Any) -> tuple[Any, bytes]:
    """Reset the component with quiet inputs; gives random numbers and the contents of memory."""
    rng = seeded(dut)
    for name in ("flush", "segment__valid", "words__ready", "bus__rvalid", "bus__arready"):
        getattr(dut, name).value = 0
    await start(dut, limit=200_000)
    return rng, rng.randbytes(SIZE)


def slow_ram(dut: Any, rng: Any, memory: bytes, stall: float) -> AxiRamRead:
    ram = AxiRamRead(read_bus(dut, "bus"), dut.clk, size=SIZE)
    ram.log.setLevel("WARNING")
    ram.write(0, memory)
    ram.ar_channel.set_pause_generator(stalls(rng, stall))
    ram.r_channel.set_pause_generator(stalls(rng, stall))
    return ram


@cocotb.test()
async def random_segments(dut: Any) -> None:
    """Words in order across segments, whatever stalls; bursts legal and as few as they can be."""
    rng, memory = await prepare(dut)
    ram = slow_ram(dut, rng, memory, 0.3)
    checker = ReadChecker(dut, "bus", outstanding=OUTSTANDING, max_beats=BURST)
    watch = Watch(dut, checker)
    source = Source(dut, "segment", 0.4, rng)
    sink = Sink(dut, "words", 0.3, rng)
    expected, bursts = [], []
    for _ in range(60):
        address, beats = random_segment(rng, 3 * BURST)
        if rng.random() < 0.2:
            source.send(segment(address, 0))
        source.send(segment(address, beats))
        expected += words_of(memory, address, beats)
        while beats:
            count = min(beats, BURST, (4096 - address % 4096) // BEAT)
            bursts.append((address, count))
            address, beats = address + count * BEAT, beats - count
        if rng.random() < 0.3:  # a consumer that pauses or runs free
            sink.stall = rng.choice([0, 0.3, 0.9])
            ram.ar_channel.set_pause_generator(stalls(rng, rng.choice([0, 0.3, 0.9])))
            await ClockCycles(dut.clk, rng.randint(1, 200))
    assert await sink.wait(len(expected)) == expected
    await until_idle(dut)
    await ClockCycles(dut.clk, 20)
    assert len(sink.received) == len(expected)
    assert checker.bursts == bursts
    assert len(watch.beat) == sum(beats for _, beats in bursts)
    assert not int(dut.error.value)


@cocotb.test()
async def every_cycle(dut: Any) -> None:
    """R runs without a gap across bursts, 4 KiB boundaries and segments; latencies as documented."""
    _, memory = await prepare(dut)
    PipelinedMemory(dut, memory, 8)  # the outstanding short segments cover it
    checker = ReadChecker(dut, "bus", outstanding=OUTSTANDING, max_beats=BURST)
    watch = Watch(dut, checker)
    source = Source(dut, "segment", 0)
    sink = Sink(dut, "words", 0)
    short = max(4, PER_WORD)
    segments = [(4096 - 8 * BEAT, 16 * BURST), (8192 - 4 * BEAT, 4 * BURST), (0, 4 * BURST)]
    segments += [(256 * i, short) for i in range(12)] + [(4096, 4 * BURST)]
    source.send_all(segment(*piece) for piece in segments)
    expected = [word for piece in segments for word in words_of(memory, *piece)]
    assert await sink.wait(len(expected)) == expected
    assert checker.times == list(range(checker.times[0], checker.times[0] + len(checker.times)))
    assert len(checker.times) == len(expected) * PER_WORD
    assert watch.beat == checker.times
    latency = 2 if PER_WORD == 1 else 3
    assert sink.times == [time + latency for time in checker.times[PER_WORD - 1 :: PER_WORD]]
    assert watch.first_request == source.times[0] + 3
    assert watch.starved == list(range(watch.first_request - 2, checker.times[0]))


@cocotb.test()
async def room(dut: Any) -> None:
    """With no consumer, what is asked for fits the buffer and fills it but for less than a burst; then all arrives."""
    _, memory = await prepare(dut)
    PipelinedMemory(dut, memory, 5)
    checker = ReadChecker(dut, "bus", outstanding=OUTSTANDING, max_beats=BURST)
    watch = Watch(dut, checker)
    source = Source(dut, "segment", 0)
    beats = 3 * CAPACITY
    source.send(segment(0, beats))
    await ClockCycles(dut.clk, 2 * CAPACITY + 100)
    asked = sum(count for _, count in checker.bursts)
    assert CAPACITY - BURST < asked <= CAPACITY
    assert len(checker.times) == asked
    assert watch.starved[-1] <= checker.times[-1], "starved although the buffer is full"
    assert not int(dut.idle.value)
    sink = Sink(dut, "words", 0)
    assert await sink.wait(beats // PER_WORD) == words_of(memory, 0, beats)
    await until_idle(dut)


@cocotb.test()
async def flush_anywhere(dut: Any) -> None:
    """After a flush at any moment the next segment gives its own words and nothing else."""
    rng, memory = await prepare(dut)
    slow_ram(dut, rng, memory, 0.3)
    Watch(dut, ReadChecker(dut, "bus", outstanding=OUTSTANDING, max_beats=BURST))
    sink = Sink(dut, "words", 0.3, rng, check=False)
    await flush(dut)  # with nothing to do
    for turn in range(100):
        source = Source(dut, "segment", 0, rng)
        source.send(segment(*random_segment(rng, 4 * BURST)))
        source.send(segment(*random_segment(rng, 4 * BURST)))
        sink.stall = rng.choice([0, 0.3, 1])
        await ClockCycles(dut.clk, rng.choice([1, 2, 3, 4, 5, 6, 10, 20, 40, 80, 160]) + rng.randint(0, 3))
        source.cancel()
        if turn % 3:
            await flush(dut)
        else:  # let go too early: the stream drains on its own
            dut.flush.value = 1
            await RisingEdge(dut.clk)
            dut.flush.value = 0
            await ClockCycles(dut.clk, 2)
            await until_idle(dut)
        await RisingEdge(dut.clk)
        assert not int(dut.words__valid.value)
        sink.stall = 0.2
        seen = len(sink.received)
        address, beats = random_segment(rng, 2 * BURST)
        source = Source(dut, "segment", 0, rng)
        source.send(segment(address, beats))
        expected = words_of(memory, address, beats)
        received = await sink.wait(seen + len(expected))
        await until_idle(dut)
        await ClockCycles(dut.clk, 4)
        assert received[seen:] == expected, f"turn {turn}"
        source.cancel()


@cocotb.test()
async def error_response(dut: Any) -> None:
    """A bad RRESP shows the cycle after its beat, stays until a flush, and is not noticed while flushing."""
    _, memory = await prepare(dut)
    ram = PipelinedMemory(dut, memory, 4, frozenset({3 * BEAT}))
    source = Source(dut, "segment", 0)
    sink = Sink(dut, "words", 0)
    watch = Watch(dut, ReadChecker(dut, "bus", outstanding=OUTSTANDING, max_beats=BURST))
    source.send(segment(0, 2 * BURST))
    for _ in range(1000):
        await RisingEdge(dut.clk)
        if int(dut.error.value):
            break
    assert cycle() == watch.beat[3] + 1
    assert await sink.wait(2 * BURST // PER_WORD) == words_of(memory, 0, 2 * BURST)
    await until_idle(dut)
    assert int(dut.error.value)
    await flush(dut)
    await ClockCycles(dut.clk, 2)
    assert not int(dut.error.value)

    ram.bad = frozenset(range(0, SIZE, BEAT))
    source.send(segment(0, 2 * BURST))
    await ClockCycles(dut.clk, 6)
    dut.flush.value = 1
    await ClockCycles(dut.clk, 40)
    assert int(dut.idle.value) and not int(dut.error.value)
    dut.flush.value = 0
    ram.bad = frozenset()
    seen = len(sink.received)
    source.send(segment(BEAT, PER_WORD))
    assert (await sink.wait(seen + 1))[seen:] == words_of(memory, BEAT, PER_WORD)
    assert not int(dut.error.value)
