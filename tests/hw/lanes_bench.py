"""What the lanes are tested with: random jobs, the activations and words of each, and the sums they must give."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from typing import Any

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.triggers import ClockCycles, RisingEdge
from streams import Sink, Source, cycle, seeded, start

from sterna.spec.config import HardwareConfig
from sterna_hw.lanes import job_cycles

CONFIG = HardwareConfig(**json.loads(os.environ["STERNA_TEST_CONFIG"]))
WORD = CONFIG.word_bytes
ROW_RANKS = [bit for bit in range(4) if 2 << bit <= CONFIG.max_rows_per_word]  # bits of `tails` that may be set
LIMIT, UNIT = 20, "ms"  # of a test, in simulated time: two million cycles

Ints = npt.NDArray[np.int64]


def columns_of(blocks: int, tails: int) -> int:
    """Columns that a job covers."""
    return 5 * WORD * blocks + sum(5 * WORD // (2 << bit) for bit in ROW_RANKS if tails >> bit & 1)


@dataclasses.dataclass
class Job:
    """A MATMUL of one tile: weights [rows, columns] of -1, 0, 1 and activations [columns] of int8."""

    blocks: int
    tails: int
    weights: Ints
    activations: Ints

    @property
    def rows(self) -> int:
        return len(self.weights)

    @property
    def payload(self) -> int:
        return self.rows | self.blocks << 16 | self.tails << 28

    def blocks_of_words(self) -> list[list[bytes]]:
        """The words of each column block in stream order."""
        parts = []
        base = 5 * WORD * self.blocks
        for bit in ROW_RANKS:
            if self.tails >> bit & 1:
                per_word = 2 << bit
                segment = WORD // per_word
                parts.append((per_word, base, segment))
                base += 5 * segment
        assert base == self.weights.shape[1]
        parts += [(1, 5 * WORD * block, WORD) for block in range(self.blocks)]
        result = []
        for per_word, base, segment in parts:
            trits = self.weights[:, base : base + 5 * segment].reshape(self.rows, 5, segment)
            codes = sum((trits[:, k, :] + 1) * 3**k for k in range(5))
            codes = np.concatenate([codes, np.full((-self.rows % per_word, segment), 121)])
            words = codes.reshape(-1, per_word * segment).astype(np.uint8)
            result.append([word.tobytes() for word in words])
        return result

    def words(self) -> list[int]:
        """All words as payloads."""
        return [int.from_bytes(word, "little") for block in self.blocks_of_words() for word in block]

    def expected(self) -> list[int]:
        """What leaves: 24-bit sums, and `last` in bit 24."""
        sums = self.weights @ self.activations
        assert np.abs(sums).max() <= 1 << 23
        return [int(value) & 0xFFFFFF | (number == self.rows - 1) << 24 for number, value in enumerate(sums)]


def random_job(rng: random.Random, rows: int | None = None, most_blocks: int = 3, tails: int | None = None) -> Job:
    """Geometry at random, its edges often; weights and activations at random, extremes often."""
    rows = rows or rng.choice([1, 2, 3, 5, CONFIG.tile_rows, CONFIG.tile_rows - 1, rng.randint(1, CONFIG.tile_rows)])
    tails = sum(rng.randint(0, 1) << bit for bit in ROW_RANKS) if tails is None else tails
    most = next(n for n in range(most_blocks, 0, -1) if columns_of(n, tails) <= CONFIG.activation_depth)
    blocks = rng.randint(1, most)
    generator = np.random.default_rng(rng.getrandbits(64))
    columns = columns_of(blocks, tails)
    weights = generator.integers(-1, 2, (rows, columns))
    low, high = rng.choice([(-128, 127), (-128, 127), (-128, -128), (127, 127), (0, 0)])
    return Job(blocks, tails, weights, generator.integers(low, high + 1, columns))


class Bench:
    """The lanes with a source and a sink, and the activation memory."""

    def __init__(self, dut: Any, words_stall: float = 0.0, rows_stall: float = 0.0) -> None:
        self.dut = dut
        self.rng = seeded(dut, f"{CONFIG.name}/{words_stall}/{rows_stall}")
        self.memory = [0] * (CONFIG.activation_depth // WORD)
        self.jobs_taken: list[int] = []
        self.first_ready: list[int] = []
        self.done: list[int] = []
        self.reads = 0
        self.stalls: list[int] = []  # what the lanes say they do, from the transfer of the last job on
        dut.job__valid.value = 0
        self.words = Source(dut, "words", words_stall, self.rng)
        self.rows = Sink(dut, "rows", rows_stall, self.rng)
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        """Serves activations; notes jobs, the first ready of each and its end; checks what is idle."""
        dut, edge = self.dut, RisingEdge(self.dut.clk)
        busy = False
        while True:
            await edge
            if int(dut.rst.value):
                busy = False
                continue
            if int(dut.activations__enable.value):
                dut.activations__data.value = self.memory[int(dut.activations__address.value)]
                self.reads += 1
            assert int(dut.job__ready.value) == (not busy or int(dut.done.value)), "job.ready is not 'idle'"
            if int(dut.done.value):
                assert busy, "done without a job"
                self.done.append(cycle())
                busy = False
            if int(dut.words__ready.value):
                assert busy, "words.ready without a job"
                if len(self.first_ready) < len(self.jobs_taken):
                    self.first_ready.append(cycle())
            if int(dut.job__valid.value) and int(dut.job__ready.value):
                self.jobs_taken.append(cycle())
                self.stalls.clear()
                busy = True
            self.stalls.append(int(dut.stall.value))

    def load(self, activations: Ints) -> Ints:
        """Fill activation memory; what ``activations`` do not cover is random. Gives all of it."""
        image = bytearray(self.rng.randbytes(CONFIG.activation_depth))
        image[: len(activations)] = activations.astype(np.int8).tobytes()
        self.memory = [int.from_bytes(image[at : at + WORD], "little") for at in range(0, len(image), WORD)]
        return np.frombuffer(image, np.int8).astype(np.int64)

    async def start(self, job: Job, *, load: bool = True) -> None:
        """Load the activations and hand over the job."""
        if load:
            self.load(job.activations)
        self.dut.job__payload.value = job.payload
        self.dut.job__valid.value = 1
        await RisingEdge(self.dut.clk)
        while not int(self.dut.job__ready.value):
            await RisingEdge(self.dut.clk)
        self.dut.job__valid.value = 0

    async def finish(self, job: Job, limit: int = 0) -> None:
        """Wait for the rows of the job, check them, and see its end."""
        limit = limit or 4000 + 20 * job_cycles(CONFIG, job.rows, job.blocks, job.tails)
        before = len(self.done)
        received = await self.rows.wait(job.rows, timeout_cycles=limit)
        assert len(received) == job.rows
        expected = job.expected()
        wrong = [row for row in range(job.rows) if received[row] != expected[row]]
        assert not wrong, (
            f"{len(wrong)} of {job.rows} rows wrong, first row {wrong[0]}: {received[wrong[0]]:#x}, not "
            f"{expected[wrong[0]]:#x}; blocks {job.blocks}, tails {job.tails:#b}"
        )
        received.clear()
        await ClockCycles(self.dut.clk, 1)
        assert len(self.done) == before + 1, "done does not follow the last row at once"

    async def run(self, job: Job) -> None:
        self.words.send_all(job.words())
        await self.start(job)
        await self.finish(job)


async def begin(dut: Any, words_stall: float = 0.0, rows_stall: float = 0.0) -> Bench:
    bench = Bench(dut, words_stall, rows_stall)
    await start(dut)
    return bench


async def many_jobs(bench: Bench, count: int, most_blocks: int = 3) -> None:
    """Jobs back to back, all words queued before: a word too many or too few spoils the next job."""
    jobs = [random_job(bench.rng, most_blocks=most_blocks) for _ in range(count)]
    for job in jobs:
        bench.words.send_all(job.words())
    for job in jobs:
        await bench.start(job)
        await bench.finish(job)
    assert bench.words.sent == sum(len(job.words()) for job in jobs)
    assert int(bench.dut.bad_trit.value) == 0
