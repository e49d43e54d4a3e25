"""TernaryLanes against integer dot products; the layout of the words is written here from docs/gateware.md alone."""

from __future__ import annotations

import dataclasses
import itertools
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
from sterna.spec.registers import Stall
from sterna_hw.lanes import build_cycles, first_word, job_cycles, pipeline_depth
from sterna_hw.lanes.lanes import BAD_TRIT

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


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def jobs_without_stalls(dut: Any) -> None:
    await many_jobs(await begin(dut), 12)


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def jobs_with_stalled_words(dut: Any) -> None:
    await many_jobs(await begin(dut, words_stall=0.6), 8)


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def jobs_with_stalled_rows(dut: Any) -> None:
    await many_jobs(await begin(dut, rows_stall=0.5), 8)


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def jobs_with_both_stalled(dut: Any) -> None:
    await many_jobs(await begin(dut, words_stall=0.3, rows_stall=0.3), 12)


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def every_set_of_tails(dut: Any) -> None:
    bench = await begin(dut)
    for tails in range(CONFIG.max_rows_per_word):
        await bench.run(random_job(bench.rng, rows=bench.rng.choice([1, 7, CONFIG.tile_rows - 1]), tails=tails))


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def every_number_of_rows(dut: Any) -> None:
    """Few words a block, where a row comes again soon: right, and in the cycles promised."""
    bench = await begin(dut)
    for rows in range(1, min(64, CONFIG.tile_rows) + 1):
        every = range(CONFIG.max_rows_per_word)
        for tails in [bench.rng.choice(every)] if CONFIG.sum_tables else every:
            job = random_job(bench.rng, rows=rows, most_blocks=2, tails=tails)
            await bench.run(job)
            cycles = bench.done[-1] - bench.jobs_taken[-1]
            assert cycles == job_cycles(CONFIG, rows, job.blocks, tails), f"rows {rows}, tails {tails:#b}"


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def extremes(dut: Any) -> None:
    """The longest rows that activation memory holds, all terms of one sign."""
    bench = await begin(dut)
    most = min(CONFIG.activation_depth, 65535)
    tails = CONFIG.max_rows_per_word - 1
    while (blocks := (most - columns_of(0, tails)) // (5 * WORD)) == 0:
        tails >>= 1
    shape = (2, columns_of(blocks, tails))
    cases = [(-128, (-1, 1)), (127, (1, -1))]
    for value, signs in cases[: 1 if blocks > 100 else 2]:
        weights = np.array(signs)[:, None] * np.ones(shape, np.int64)
        await bench.run(Job(blocks, tails, weights, np.full(shape[1], value)))


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def exact_cycles(dut: Any) -> None:
    """The latency of the first word, of a row, and of the whole, to the cycle; the next job in the cycle of done."""
    bench = await begin(dut)
    sizes = [1, 2, 3, 4, 9, 16, 17, CONFIG.tile_rows]
    sizes += [rows for rows in (249, 250, 251, 252, 500, 501) if rows <= CONFIG.tile_rows]
    tails = bench.rng.choices(range(CONFIG.max_rows_per_word), k=len(sizes))
    jobs = [random_job(bench.rng, rows=rows, tails=bits) for rows, bits in zip(sizes, tails, strict=True)]
    for job in jobs:
        bench.words.send_all(job.words())
    for job in jobs:
        bench.rows.times.clear()
        await bench.start(job)
        await bench.finish(job)
        taken, total = bench.jobs_taken[-1], job_cycles(CONFIG, job.rows, job.blocks, job.tails)
        assert bench.first_ready[-1] - taken == first_word(CONFIG)
        assert bench.done[-1] - taken == total, f"rows {job.rows}, blocks {job.blocks}, tails {job.tails:#b}"
        assert bench.rows.times == list(range(taken + total - job.rows, taken + total)), "rows do not leave one a cycle"
        sizes = [len(block) for block in job.blocks_of_words()]
        tables = first_word(CONFIG)
        for size, following in itertools.pairwise(sizes):
            apart = 3 if min(size, following) < 4 else 0  # a row may come again four cycles later
            tables += max(build_cycles(CONFIG) - size, apart)
        expected = {Stall.TABLES: tables, Stall.LANES: sum(sizes), Stall.DRAIN: pipeline_depth(CONFIG) + 1}
        assert {stall: bench.stalls[: total + 1].count(stall) for stall in expected} == expected


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def next_job_in_the_cycle_of_done(dut: Any) -> None:
    """Jobs that share their activations, each on offer from the start of the one before."""
    bench = await begin(dut)
    shared = bench.load(np.array([], np.int64))
    jobs = []
    for rows in (1, 5, 1, CONFIG.tile_rows):
        job = random_job(bench.rng, rows=rows)
        jobs.append(dataclasses.replace(job, activations=shared[: len(job.activations)]))
        bench.words.send_all(jobs[-1].words())
    await bench.start(jobs[0], load=False)
    for job, following in zip(jobs, [*jobs[1:], None], strict=True):
        offer = following and cocotb.start_soon(bench.start(following, load=False))
        await bench.finish(job)
        if offer:
            await offer
            assert bench.jobs_taken[-1] == bench.done[-1]


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def starved_short_blocks(dut: Any) -> None:
    """Words come late, when the tables of the next block stand ready too: rows come again as soon as they ever can."""
    bench = await begin(dut)
    most = CONFIG.max_rows_per_word
    sizes = {1, 2, 3, 4, 5, 3 * most - 1, 3 * most, 3 * most + 1, 4 * most - 1, 4 * most, 4 * most + 1, 5 * most}
    for rows in sorted(size for size in sizes if size <= CONFIG.tile_rows):
        for late in ("last words", "even blocks", "odd blocks"):
            job = random_job(bench.rng, rows=rows, most_blocks=2, tails=bench.rng.choice([most - 1, most - 1, 0]))
            await bench.start(job)
            for number, block in enumerate(job.blocks_of_words()):
                words = [int.from_bytes(word, "little") for word in block]
                at_once = {"last words": len(words) - 1, "even blocks": number % 2, "odd blocks": 1 - number % 2}[late]
                if late != "last words":
                    at_once *= len(words)
                bench.words.send_all(words[:at_once])
                if at_once < len(words):
                    await ClockCycles(dut.clk, first_word(CONFIG) + build_cycles(CONFIG) + 10)
                    bench.words.send_all(words[at_once:])
            await bench.finish(job)


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def a_long_stall_of_rows(dut: Any) -> None:
    """Nothing is lost, little is taken, and the rate after the stall is a row a cycle."""
    bench = await begin(dut)
    job = random_job(bench.rng, rows=CONFIG.tile_rows, most_blocks=1, tails=0)
    bench.words.send_all(job.words())
    await bench.start(job)
    await bench.rows.wait(5)
    bench.rows.stall = 1.0
    await ClockCycles(dut.clk, 100)
    ahead = bench.words.sent - len(bench.rows.received)
    assert ahead <= pipeline_depth(CONFIG) + 2
    bench.rows.stall = 0.0
    resumed = cycle()
    left = job.rows - len(bench.rows.received)
    await bench.finish(job)
    assert bench.done[-1] - resumed <= left + 3


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def bad_trits(dut: Any) -> None:
    """Each of the 13 bytes that are no codes, in every position, in the first, the last or some word."""
    bench = await begin(dut)
    cases = [(code, bench.rng.randrange(WORD)) for code in range(243, 256)]
    cases += [(bench.rng.randrange(243, 256), place) for place in range(WORD)]
    for code, place in cases:
        job = random_job(bench.rng, rows=bench.rng.randint(1, 9), most_blocks=1, tails=0)
        words = job.words()
        at = bench.rng.choice([0, len(words) - 1, bench.rng.randrange(len(words))])
        words[at] = words[at] & ~(255 << 8 * place) | code << 8 * place
        # The word is on offer all through the build, and is no error before it is taken.
        bench.words.send_all(words)
        await bench.start(job)
        sent = bench.words.sent
        while bench.words.sent < sent + at:
            await RisingEdge(dut.clk)
            assert int(dut.bad_trit.value) == 0
        while not (int(dut.words__valid.value) and int(dut.words__ready.value)):
            await RisingEdge(dut.clk)
            assert int(dut.bad_trit.value) == 0
        taken = cycle()
        while not int(dut.bad_trit.value):
            assert cycle() <= taken + BAD_TRIT, f"byte {code} in place {place} is not seen"
            await RisingEdge(dut.clk)
        await bench.rows.wait(job.rows)
        await ClockCycles(dut.clk, 3)
        assert int(dut.bad_trit.value) == 1, "not held until reset"
        bench.rows.received.clear()
        dut.rst.value = 1
        await ClockCycles(dut.clk, 2)
        dut.rst.value = 0
        await ClockCycles(dut.clk, 2)
        assert int(dut.bad_trit.value) == 0


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def all_codes(dut: Any) -> None:
    """Every code in every position: right sums and no alarm."""
    bench = await begin(dut)
    digits = np.arange(243)[:, None] // 3 ** np.arange(5) % 3 - 1
    generator = np.random.default_rng(bench.rng.getrandbits(64))
    for first in range(0, 243, CONFIG.tile_rows):
        rows = np.arange(first, min(first + CONFIG.tile_rows, 243))[:, None]
        codes = (rows + 31 * np.arange(WORD)) % 243
        weights = digits[codes].transpose(0, 2, 1).reshape(len(rows), 5 * WORD)
        await bench.run(Job(1, 0, weights, generator.integers(-128, 128, 5 * WORD)))
    assert int(dut.bad_trit.value) == 0


@cocotb.test(timeout_time=LIMIT, timeout_unit=UNIT)
async def reset_at_any_time(dut: Any) -> None:
    bench = await begin(dut)
    for _ in range(6):
        job = random_job(bench.rng, most_blocks=2)
        bench.words.send_all(job.words())
        await bench.start(job)
        await ClockCycles(dut.clk, bench.rng.randint(1, job_cycles(CONFIG, job.rows, job.blocks, job.tails) - 1))
        bench.words.clear()
        dut.rst.value = 1
        await ClockCycles(dut.clk, 3)
        # A word that was on offer stays so until it is taken: let a job that has it as its first word run.
        bench.rows.received.clear()
        dut.rst.value = 0
        await ClockCycles(dut.clk, 2)
        stuck = int(dut.words__valid.value)
        job = random_job(bench.rng, rows=CONFIG.tile_rows, most_blocks=1, tails=0)
        words = job.words()
        if stuck:
            first = int(dut.words__payload.value).to_bytes(WORD, "little")
            trits = np.frombuffer(first, np.uint8)[None, :] // (3 ** np.arange(5))[:, None] % 3
            job.weights[0] = trits.astype(np.int64).reshape(-1) - 1
            assert int.from_bytes(job.blocks_of_words()[0][0], "little") == int.from_bytes(first, "little")
            words = job.words()[1:]
        bench.words.send_all(words)
        await bench.start(job)
        await bench.finish(job)
