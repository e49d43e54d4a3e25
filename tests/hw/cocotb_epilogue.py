"""The epilogue against the golden row operations: results, memories, S2, saturations, logits, cycles."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from epilogue_bench import BOUND_EDGES, GATE_EDGES, VALUE_EDGES, Bench, Job, random_job
from streams import start

from sterna.spec.isa import RowOp
from sterna.spec.numerics import VALUE_MIN
from sterna_hw.epilogue import epilogue_cycles


async def random_jobs(bench: Bench, number: int, longest: int) -> None:
    for _ in range(number):
        job = random_job(bench, bench.rng.choice(list(RowOp)), bench.rng.choice([1, 2, bench.rng.randint(1, longest)]))
        await bench.run([job])


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def full_speed(dut: Any) -> None:
    """Every operation at full speed: results, and the cycles that the formula says."""
    bench = Bench(dut, "full speed", 0.0, 0.0)
    await start(dut)
    for row_op in RowOp:
        for count in (1, 2, 60, 130):
            await bench.run([random_job(bench, row_op, count)])
            assert bench.done_time - bench.job_time == epilogue_cycles(count, row_op), (row_op.name, count)


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def stalls(dut: Any) -> None:
    bench = Bench(dut, "stalls", 0.0, 0.0)
    await start(dut)
    for rows_stall, logits_stall in ((0.1, 0.5), (0.6, 0.1), (0.3, 0.3)):
        bench.rows.stall, bench.logits.stall = rows_stall, logits_stall
        await random_jobs(bench, 40, 60)


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def edges(dut: Any) -> None:
    """Every y at an edge with every operand at an edge, and scales at theirs."""
    bench = Bench(dut, "edges", 0.0, 0.0)
    await start(dut)
    pairs = [(y, other) for y in VALUE_EDGES for other in VALUE_EDGES]
    sums = [y for y, _ in pairs]
    others = [other for _, other in pairs]
    for mantissa in (0, 1 << 17, (1 << 18) - 1):
        for shift in (0, 1, 17, 18, 40, 46, 47):
            await bench.run([Job(RowOp.LOGIT, VALUE_EDGES, mantissa=mantissa, sum_shift=shift)])
    for shift in (0, 1, 17, 18, 40, 46, 47):
        await bench.run([Job(RowOp.EMBED, VALUE_EDGES, shift=shift, mantissa=5, sum_shift=3)])
    bench.fill("param", 7, BOUND_EDGES * len(VALUE_EDGES))
    await bench.run([Job(RowOp.FORGET, [y for y in VALUE_EDGES for _ in BOUND_EDGES], param=7, target=600)])
    await bench.run([Job(RowOp.SILU, VALUE_EDGES)])
    for f in GATE_EDGES:
        for fresh in (False, True):
            bench.fill("vector", 100, [f] * len(pairs))
            bench.fill("state", 9, others)
            await bench.run([Job(RowOp.RECUR, sums, source=100, state=9, fresh=fresh)])
    bench.fill("state", 9, others)
    for shift in (0, 1, 22, 24, 46, 47, 48, 62):
        await bench.run([Job(RowOp.OUTGATE, sums, shift=shift, state=9, target=500, fresh=True)])
        bench.fill("vector", 100, others)
        await bench.run([Job(RowOp.MUL, sums, shift=shift, source=100, target=500)])
    bench.fill("vector", 100, others)
    await bench.run([Job(RowOp.RESIDUAL, sums, source=100, target=100)])


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def squares(dut: Any) -> None:
    """S2 runs on through jobs until one that feeds it is first; others leave it, even when first."""
    bench = Bench(dut, "squares", 0.2, 0.2)
    await start(dut)
    for row_op in RowOp:
        for first in (True, False, False):
            job = random_job(bench, row_op, bench.rng.randrange(1, 40))
            job.first = first
            await bench.run([job])
    for first in (True, False):  # the largest squares there are
        await bench.run([Job(RowOp.EMBED, [VALUE_MIN] * 300, shift=0, first=first)])
    assert bench.golden.s2 == 600 << 46


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def queued(dut: Any) -> None:
    """Rows of the following jobs wait at the door while a job drains."""
    bench = Bench(dut, "queued", 0.0, 0.2)
    await start(dut)
    layer = [RowOp.EMBED, RowOp.FORGET, RowOp.RECUR, RowOp.OUTGATE, RowOp.RESIDUAL, RowOp.SILU, RowOp.MUL, RowOp.LOGIT]
    jobs = []
    bench.fill("param", 0, [bench.rng.randrange(1 << 16) for _ in range(50)])
    for _ in range(3):
        for row_op in layer:
            sums = [bench.rng.randint(-(1 << 17), 1 << 17) for _ in range(50)]
            # x at 0, f and then w at 100, gates at 200
            target = {RowOp.FORGET: 100, RowOp.OUTGATE: 100, RowOp.SILU: 200, RowOp.MUL: 200}.get(row_op, 0)
            source = 100 if row_op == RowOp.RECUR else target
            jobs.append(
                Job(row_op, sums, shift=14, source=source, target=target, state=30, first=row_op == RowOp.EMBED)
            )
    await bench.run(jobs)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def blocked_logits(dut: Any) -> None:
    """Logits that are not taken stop the rows; nothing is lost when they move again."""
    bench = Bench(dut, "blocked", 0.0, 0.0)
    await start(dut)
    for count in (100, 1, 2, 3):
        bench.logits.stall = 1.0
        job, done, accepted = random_job(bench, RowOp.LOGIT, count), bench.done_count, bench.accepted
        bench.rows.send_all(job.rows())
        running = cocotb.start_soon(bench.run_one(job))
        for _ in range(150):
            await RisingEdge(dut.clk)
        assert bench.accepted - accepted < 40 and not int(dut.rows__ready.value), "rows were not stopped"
        assert bench.done_count == done, "done before the last logit was taken"
        bench.logits.stall = 0.0
        await running


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def abandoned(dut: Any) -> None:
    """Reset in the middle of a job: no write, no report, and the next job starts from nothing."""
    bench = Bench(dut, "abandoned", 0.0, 0.0)
    await start(dut)
    for row_op in (RowOp.RESIDUAL, RowOp.RECUR, *[RowOp.LOGIT] * 8):
        job = random_job(bench, row_op, 100)
        bench.logits.stall = 1.0
        bench.dut.scale.value = job.scale()
        bench.rows.send_all(job.rows()[:20])
        bench.job.send(job.payload())
        await bench.rows.drain()
        for _ in range(bench.rng.randrange(12)):  # some results are already written, or offered
            await RisingEdge(dut.clk)
        bench.logits.check = False
        dut.rst.value = 1
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        before, trace, done = len(bench.logits.received), len(bench.trace), bench.done_count
        bench.logits.stall = 0.0
        for _ in range(60):
            await RisingEdge(dut.clk)
            assert int(dut.s2.value) == 0
        assert (len(bench.logits.received), len(bench.trace), bench.done_count) == (before, trace, done)
        bench.golden.trace, bench.golden.saturations, bench.golden.s2 = list(bench.trace), bench.saturations, 0
        bench.golden.memories = {memory: np.array(values) for memory, values in bench.memories.items()}
        await bench.run([random_job(bench, RowOp.LOGIT, 10), random_job(bench, row_op, 20)])
