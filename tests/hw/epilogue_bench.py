"""What the epilogue is tested with: the golden state of memories and reports, the bench, and random jobs."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from streams import Sink, Source, cycle, seeded

from sterna.golden import rows as golden
from sterna.spec import numerics
from sterna.spec.config import preset
from sterna.spec.isa import RowOp
from sterna.spec.numerics import GATE_ONE, VALUE_MAX, VALUE_MIN, IntArray
from sterna_hw.interfaces import logit, row_job, row_scale, row_sum

CONFIG = preset(os.environ["STERNA_CONFIG"])
DEPTHS = {"vector": CONFIG.vector_depth, "param": CONFIG.param_depth, "state": CONFIG.state_depth}
# port, memory, bits of an element; a memory never holds more bits than its port
READS = [("operand", "vector", 24), ("bounds", "param", 16), ("state", "state", 24)]
WRITES = [("result", "vector"), ("state_write", "state")]
FEEDS_S2 = (RowOp.EMBED, RowOp.OUTGATE, RowOp.RESIDUAL)
LAYOUTS = {"job": row_job(), "scale": row_scale(CONFIG), "row": row_sum(CONFIG), "logit": logit(CONFIG)}
IDENTITY = (1 << 17, 17)  # the scale that makes y the row sum

VALUE_EDGES = [VALUE_MIN, VALUE_MIN + 1, -GATE_ONE - 1, -GATE_ONE, -65535, -64, -2, -1]
VALUE_EDGES += [0, 1, 2, 63, 64, 65535, GATE_ONE, VALUE_MAX - 1, VALUE_MAX]
GATE_EDGES = [0, 1, 32768, 65535, 65536]
BOUND_EDGES = [0, 1, 32768, 65534, 65535]


def signed(value: int, width: int = numerics.VALUE_WIDTH) -> int:
    return value - (1 << width) if value >> (width - 1) else value


@dataclass
class Job:
    row_op: RowOp
    sums: list[int]
    mantissa: int = IDENTITY[0]
    sum_shift: int = IDENTITY[1]
    shift: int = 0
    first: bool = False
    fresh: bool = False
    source: int = 0
    target: int = 0
    param: int = 0
    state: int = 0

    def payload(self) -> int:
        names = ("row_op", "first", "fresh", "source", "target", "param", "state", "shift")
        return LAYOUTS["job"].const({name: getattr(self, name) for name in names}).as_bits()

    def scale(self) -> int:
        return LAYOUTS["scale"].const([{"mantissa": self.mantissa, "shift": self.sum_shift}]).as_bits()

    def rows(self) -> list[int]:
        end = len(self.sums) - 1
        return [LAYOUTS["row"].const({"sums": [s], "last": n == end}).as_bits() for n, s in enumerate(self.sums)]

    def is_logit(self) -> bool:
        return self.row_op == RowOp.LOGIT


@dataclass
class Golden:
    """What the memories and the reports must be after the jobs so far."""

    memories: dict[str, IntArray] = field(default_factory=dict)
    s2: int = 0
    saturations: int = 0
    trace: list[int] = field(default_factory=list)
    logits: list[int] = field(default_factory=list)

    def run(self, job: Job) -> None:
        op, count = job.row_op, len(job.sums)
        scale = (1 << numerics.EMBED_MANTISSA_BITS, job.shift) if op == RowOp.EMBED else (job.mantissa, job.sum_shift)
        y, clamped = numerics.scale_rows(np.array(job.sums, np.int64), *scale)
        vector, bounds, states = (
            self.memories[name][first : first + count]
            for name, first in (("vector", job.source), ("param", job.param), ("state", job.state))
        )
        also = np.zeros(count, bool)
        result = y
        if op == RowOp.FORGET:
            result = golden.forget(y, bounds)
        elif op == RowOp.RECUR:
            result, also = golden.recur(y, vector, states * 0 if job.fresh else states)
        elif op == RowOp.OUTGATE:
            result, also = golden.outgate(y, states, job.shift)
        elif op == RowOp.SILU:
            result = golden.gate_silu(y)
        elif op == RowOp.MUL:
            result, also = golden.multiply(y, vector, job.shift)
        elif op == RowOp.RESIDUAL:
            result, also = golden.residual(y, vector)
        if op == RowOp.LOGIT:
            self.logits += y.tolist()
        elif op == RowOp.RECUR:
            self.memories["state"][job.state : job.state + count] = result
        else:
            self.memories["vector"][job.target : job.target + count] = result
        if op in FEEDS_S2:
            squares = int(golden.squares(y if op == RowOp.OUTGATE else result))
            self.s2 = squares + (0 if job.first else self.s2)
        self.saturations += int(np.count_nonzero(clamped | also))
        self.trace += result.tolist()


class Bench:
    """The component with its memories, and the golden state beside it."""

    def __init__(self, dut: Any, name: str, rows_stall: float, logits_stall: float) -> None:
        self.dut, self.rng = dut, seeded(dut, name)
        self.job = Source(dut, "job", 0.0)
        self.rows = Source(dut, "rows", rows_stall)
        self.logits = Sink(dut, "logits", logits_stall)
        self.golden = Golden({memory: np.zeros(depth, np.int64) for memory, depth in DEPTHS.items()})
        self.memories = {memory: [0] * depth for memory, depth in DEPTHS.items()}
        self.saturations = self.accepted = self.done_count = 0
        self.job_time = self.done_time = self.s2_at_done = 0
        self.trace: list[int] = []
        cocotb.start_soon(self._run())

    def fill(self, memory: str, first: int, values: list[int]) -> None:
        self.memories[memory][first : first + len(values)] = values
        self.golden.memories[memory][first : first + len(values)] = values

    async def _run(self) -> None:
        """One cycle of the memories and the watchers."""
        dut, edge = self.dut, RisingEdge(self.dut.clk)
        reads = [
            (
                getattr(dut, f"{port}__enable"),
                getattr(dut, f"{port}__address"),
                getattr(dut, f"{port}__data"),
                memory,
                bits,
            )
            for port, memory, bits in READS
        ]
        writes = [
            (getattr(dut, f"{port}__enable"), getattr(dut, f"{port}__address"), getattr(dut, f"{port}__data"), memory)
            for port, memory in WRITES
        ]
        while True:
            await edge
            for enable, address, data, memory, bits in reads:
                if int(enable.value):
                    data.value = self.memories[memory][int(address.value)] & ((1 << bits) - 1)
            for enable, address, data, memory in writes:
                if int(enable.value):
                    self.memories[memory][int(address.value)] = signed(int(data.value))
            self.saturations += int(dut.saturated.value)
            if int(dut.trace_valid.value):
                self.trace.append(signed(int(dut.trace_values.value)))
            else:
                assert not int(dut.saturated.value), "a saturation without a row"
            self.accepted += int(dut.rows__valid.value) & int(dut.rows__ready.value)
            if int(dut.job__valid.value) and int(dut.job__ready.value):
                self.job_time = cycle()
            if int(dut.done.value):
                self.done_count += 1
                self.done_time, self.s2_at_done = cycle(), int(dut.s2.value)

    async def run(self, jobs: list[Job]) -> None:
        """Run jobs back to back while their rows wait at the door; after each, all must be as the golden model says."""
        for job in jobs:
            self.rows.send_all(job.rows())
        for job in jobs:
            await self.run_one(job)

    async def run_one(self, job: Job) -> None:
        done, trace, logits = self.done_count, len(self.trace), len(self.logits.received)
        accepted = self.accepted
        self.dut.scale.value = job.scale()
        self.job.send(job.payload())
        for _ in range(len(job.sums) * 20 + 200):
            await RisingEdge(self.dut.clk)
            if self.done_count > done:
                break
        else:
            raise AssertionError(f"{job.row_op.name} of {len(job.sums)} rows did not end")
        self.golden.run(job)
        name = job.row_op.name
        same(self.trace[trace:], self.golden.trace[trace:], f"{name}: results", job)
        for memory, values in self.memories.items():
            same(values, self.golden.memories[memory].tolist(), f"{name}: {memory} memory", job)
        assert self.s2_at_done == self.golden.s2, f"{name}: S2 {self.s2_at_done}, not {self.golden.s2}"
        assert self.saturations == self.golden.saturations, f"{name}: {self.saturations}, not {self.golden.saturations}"
        assert self.accepted - accepted == len(job.sums), f"{name}: took {self.accepted - accepted} rows"
        got = [LAYOUTS["logit"].from_bits(bits) for bits in self.logits.received[logits:]]
        want = self.golden.logits[logits:] if job.is_logit() else []
        same([row["values"][0] for row in got], want, "logits", job)
        assert [row.last for row in got] == [n == len(got) - 1 for n in range(len(got))]


def same(got: list[int], want: list[int], what: str, job: Job) -> None:
    assert len(got) == len(want), f"{what}: {len(got)}, not {len(want)}"
    wrong = [(index, g, w) for index, (g, w) in enumerate(zip(got, want, strict=True)) if g != w]
    where = f"mantissa {job.mantissa}, shifts {job.sum_shift} {job.shift}, fresh {job.fresh}"
    assert not wrong, f"{what}: {len(wrong)} wrong (index, got, want) {wrong[:4]}; {where}"


def random_value(rng: random.Random, edges: list[int], low: int, high: int) -> int:
    """Edges, small and large values alike."""
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(edges)
    reach = 1 << rng.randrange(1, 24)
    return rng.randint(max(low, -reach), min(high, reach)) if kind < 0.8 else rng.randint(low, high)


def random_job(bench: Bench, row_op: RowOp, count: int) -> Job:
    """Random operands are put into the memories, too."""
    rng = bench.rng
    job = Job(row_op, [random_value(rng, VALUE_EDGES, VALUE_MIN, VALUE_MAX) for _ in range(count)])
    if rng.random() < 0.8:
        job.mantissa = rng.choice([0, (1 << 17), (1 << 18) - 1, *(rng.randrange(1 << 17, 1 << 18) for _ in range(6))])
        job.sum_shift = rng.choice([0, 47, rng.randrange(48), *(rng.randrange(10, 30) for _ in range(6))])
    job.shift = rng.choice([0, 62, *(rng.randrange(6, 40) for _ in range(6))])
    if row_op == RowOp.EMBED:
        job.shift = rng.choice([0, 47, *(rng.randrange(8, 24) for _ in range(4))])
    job.first, job.fresh = rng.random() < 0.4, rng.random() < 0.3
    job.source = rng.randrange(DEPTHS["vector"] - count + 1)
    job.target = job.source if rng.random() < 0.4 else rng.randrange(DEPTHS["vector"] - count + 1)
    if abs(job.source - job.target) < count:
        job.target = job.source  # a row may not write what another reads
    job.param = rng.randrange(DEPTHS["param"] - count + 1)
    job.state = rng.randrange(DEPTHS["state"] - count + 1)
    edges, low, high = (GATE_EDGES, 0, GATE_ONE) if row_op == RowOp.RECUR else (VALUE_EDGES, VALUE_MIN, VALUE_MAX)
    bench.fill("vector", job.source, [random_value(rng, edges, low, high) for _ in range(count)])
    bench.fill("param", job.param, [random_value(rng, BOUND_EDGES, 0, 65535) for _ in range(count)])
    bench.fill("state", job.state, [random_value(rng, VALUE_EDGES, VALUE_MIN, VALUE_MAX) for _ in range(count)])
    return job
