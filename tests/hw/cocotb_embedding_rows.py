"""Embedding rows: random counts and stalls against the elements that were packed."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from streams import Sink, Source, cycle, seeded, start

from sterna.spec.config import preset
from sterna_hw.embedding_rows import embedding_cycles
from sterna_hw.interfaces import row_sum

CONFIG = preset(os.environ["STERNA_CONFIG"])
EDGES = [-32768, -32767, -1, 0, 1, 32766, 32767]


def elements(rng: random.Random, count: int) -> list[int]:
    return [rng.choice(EDGES) if rng.random() < 0.3 else rng.randrange(-32768, 32768) for _ in range(count)]


def words(rng: random.Random, values: list[int]) -> list[int]:
    """Packed elements; what the last word has left over is not zero, to be seen if it came out."""
    padded = values + [rng.randrange(1, 32768) for _ in range(-len(values) % CONFIG.params_per_word)]
    raw = b"".join(value.to_bytes(2, "little", signed=True) for value in padded)
    return [int.from_bytes(raw[i : i + CONFIG.word_bytes], "little") for i in range(0, len(raw), CONFIG.word_bytes)]


def rows(values: list[int]) -> list[int]:
    layout = row_sum(CONFIG)
    return [
        layout.const({"sums": [value] * CONFIG.slots, "last": number == len(values)}).as_bits()
        for number, value in enumerate(values, 1)
    ]


class Bench:
    def __init__(self, dut: Any, stall: float) -> None:
        self.dut = dut
        self.job = Source(dut, "job", stall)
        self.words = Source(dut, "words", stall)
        self.rows = Sink(dut, "rows", stall)
        self.done_times: list[int] = []
        self.job_times: list[int] = []
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        edge = RisingEdge(self.dut.clk)
        while True:
            await edge
            if int(self.dut.done.value):
                self.done_times.append(cycle())
            if int(self.dut.job__valid.value) and int(self.dut.job__ready.value):
                self.job_times.append(cycle())

    async def wait_done(self, jobs: int) -> None:
        for _ in range(20_000):
            if len(self.done_times) >= jobs:
                return
            await RisingEdge(self.dut.clk)
        raise AssertionError(f"{len(self.done_times)} of {jobs} jobs done")


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def random_jobs(dut: Any) -> None:
    rng = seeded(dut, "embedding")
    bench = Bench(dut, 0.3)
    await start(dut)
    want: list[int] = []
    taken = jobs = 0
    for stall in (0.0, 0.3, 0.7):
        bench.words.stall = bench.rows.stall = bench.job.stall = stall
        for _ in range(25):
            values = elements(rng, rng.choice([1, 2, CONFIG.params_per_word, rng.randrange(1, 120)]))
            packed = words(rng, values)
            bench.words.send_all(packed)
            bench.job.send(len(values))
            taken, jobs, want = taken + len(packed), jobs + 1, want + rows(values)
            if rng.random() < 0.5:
                await bench.wait_done(jobs)
        await bench.wait_done(jobs)
        assert bench.rows.received == want
        assert bench.words.sent == taken


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def cycles(dut: Any) -> None:
    rng = seeded(dut, "cycles")
    bench = Bench(dut, 0.0)
    await start(dut)
    per_word = CONFIG.params_per_word
    for number, count in enumerate([0, 1, per_word - 1, per_word, per_word + 1, 0, 5 * per_word, 100], 1):
        values = elements(rng, count)
        bench.words.send_all(words(rng, values))
        for _ in range(4):
            await RisingEdge(dut.clk)
        bench.job.send(count)
        await bench.wait_done(number)
        assert bench.done_times[-1] - bench.job_times[-1] == embedding_cycles(count), count
