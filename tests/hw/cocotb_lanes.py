"""TernaryLanes against integer dot products; the layout of the words is written here from docs/gateware.md alone."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, RisingEdge
from lanes_bench import CONFIG, LIMIT, UNIT, WORD, Job, begin, columns_of, many_jobs, random_job
from streams import cycle

from sterna.spec.registers import Stall
from sterna_hw.lanes import build_cycles, first_word, job_cycles, pipeline_depth
from sterna_hw.lanes.lanes import BAD_TRIT


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
