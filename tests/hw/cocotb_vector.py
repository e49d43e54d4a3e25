"""Bench of ``VectorUnit``: activations, scale, S1, memory traffic and cycles against the specification."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, Event, RisingEdge, with_timeout
from streams import PERIOD_NS, Source, cycle, seeded, start

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig, preset
from sterna.spec.numerics import ScaleConstants
from sterna.spec.registers import Stall
from sterna_hw.interfaces import vector_job
from sterna_hw.vector import quant_cycles, sumsq_cycles
from sterna_hw.vector.scalar import RECIPROCAL_CYCLES

LOWEST, HIGHEST = numerics.VALUE_MIN, numerics.VALUE_MAX
PARAM_LOWEST, PARAM_HIGHEST = -(1 << 15), (1 << 15) - 1


def bench_config(width: int) -> HardwareConfig:
    """A configuration whose memories hold the largest vector and which is ``width`` wide."""
    tiny = preset("sim-tiny")
    depth = 1 << 16
    return replace(
        tiny, word_bytes=16, vector_width=width, vector_depth=depth, param_depth=depth, activation_depth=depth
    )


WIDTH = int(os.environ.get("VECTOR_WIDTH", 1))
CONFIG = bench_config(WIDTH)
ROWS = CONFIG.vector_depth // WIDTH


@dataclass(frozen=True)
class Job:
    count: int
    source: int = 0
    param: int = 0
    ones: bool = False
    constants: ScaleConstants | None = None  # of a QUANT

    def packed(self) -> int:
        values = {"quantise": self.constants is not None, "ones": self.ones, "count": self.count}
        values |= {"source": self.source, "param": self.param}
        if self.constants is not None:
            k = self.constants
            values |= {"eps_mantissa": k.eps_mantissa, "eps_shift": k.eps_shift, "eps_const": k.eps_const}
            values |= {"scale_mantissa": k.mantissa, "scale_exponent": k.exponent}
        word = 0
        for name, field in vector_job():
            word |= (int(values.get(name, 0)) & ((1 << field.width) - 1)) << field.offset
        return word


class Bench:
    """The memories around the unit, and what it does to them."""

    def __init__(self, dut: Any, salt: str) -> None:
        self.dut = dut
        self.rng = seeded(dut, salt)
        dice = np.random.default_rng(self.rng.getrandbits(32))
        # What no job owns is as large as can be, so that it shows wherever it is not masked.
        self.values = dice.choice([LOWEST, HIGHEST], CONFIG.vector_depth).astype(np.int64)
        self.params = dice.choice([PARAM_LOWEST, PARAM_HIGHEST], CONFIG.param_depth).astype(np.int64)
        self.s1 = self.s2 = 0
        self.scale: int | None = None  # as a port; unknown after reset
        self.begun = 0
        self.quantising = False
        self.finished = Event()
        self.jobs = Source(dut, "job", stall=0.3, rng=self.rng)
        self.clear()

    def clear(self) -> None:
        """Forget the traffic so far."""
        self.vector_rows: list[int] = []
        self.param_rows: list[int] = []
        self.written: list[tuple[int, int]] = []
        self.ended = 0
        self.stalls: list[int] = []  # what the unit says it does, from the transfer of the job to its end
        self.finished.clear()

    async def begin(self) -> None:
        await start(self.dut)
        self.dut.s2.value = self.s2
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        """Every cycle: serve the reads, note the writes and the handshakes, hold S1 and scale to their promise."""
        dut, edge = self.dut, RisingEdge(self.dut.clk)
        s1, scale = int(dut.s1.value), int(dut.scale.value)
        while True:
            await edge
            done = int(dut.done.value)
            if int(dut.rst.value):
                s1, scale = int(dut.s1.value), int(dut.scale.value)
                continue
            assert int(dut.scale.value) == scale or (done and self.quantising), "scale changed before the end"
            assert int(dut.s1.value) == s1 or not self.quantising, "S1 changed in a QUANT"
            s1, scale = int(dut.s1.value), int(dut.scale.value)
            if int(dut.job__valid.value) and int(dut.job__ready.value):
                self.begun = cycle()
                self.stalls.clear()
            if self.begun and not self.ended:
                self.stalls.append(int(dut.stall.value))
            if int(dut.vector__enable.value):
                row = int(dut.vector__address.value)
                self.vector_rows.append(row)
                dut.vector__data.value = packed(self.values[row * WIDTH : (row + 1) * WIDTH], 24)
            if int(dut.params__enable.value):
                row = int(dut.params__address.value)
                self.param_rows.append(row)
                dut.params__data.value = packed(self.params[row * WIDTH : (row + 1) * WIDTH], 16)
            if int(dut.activations__enable.value):
                self.written.append((int(dut.activations__address.value), int(dut.activations__data.value)))
            if done:
                assert not self.ended, "done twice"
                self.ended = cycle()
                self.finished.set()

    async def run(self, job: Job, s2: int = 0) -> None:
        """Run a job and check everything about it."""
        rows = max(-(-job.count // WIDTH), 1)
        w = self.values[job.source : job.source + job.count]
        c = self.params[job.param : job.param + job.count]
        wanted = sumsq_cycles(CONFIG, job.count) if job.constants is None else quant_cycles(CONFIG, job.count)
        self.clear()
        self.dut.s2.value = s2
        self.quantising = job.constants is not None
        self.jobs.send(job.packed())
        await self.jobs.drain()
        await with_timeout(self.finished.wait(), 3 * wanted * PERIOD_NS, "ns")

        assert self.ended - self.begun == wanted, f"{self.ended - self.begun} cycles, not {wanted}: {job}"
        self._check_stalls(job, wanted, rows)
        first, passes = [job.source // WIDTH + row for row in range(rows)], 1 if job.constants is None else 2
        assert self.vector_rows == passes * first, f"rows read: {self.vector_rows}: {job}"
        first = [job.param // WIDTH + row for row in range(rows)]
        reads = [] if job.ones and job.constants is None else passes * first
        assert self.param_rows == reads, f"parameter rows read: {self.param_rows}: {job}"
        if job.constants is None:
            assert self.written == [], "SUMSQ wrote activations"
            p = w if job.ones else numerics.round_shift(w * c, 15)
            self.s1 = sum(int(value) ** 2 for value in p)
        else:
            self._check_quant(job, w * c, rows, s2)
        found = int(self.dut.s1.value)
        assert found == self.s1, f"S1 = {found}, not {self.s1}: {job}"
        await ClockCycles(self.dut.clk, self.rng.choice((1, 1, 2, 20)))
        assert len(self.vector_rows) == passes * rows and not self.written[rows:], "traffic after done"

    def _check_stalls(self, job: Job, cycles: int, rows: int) -> None:
        """A QUANT waits for the scalar unit between its passes, and at its end if the second pass was short."""
        if job.constants is None:
            assert self.stalls == [Stall.SUMSQ] * (cycles + 1)
            return
        quotient = cycles - quant_cycles(CONFIG, CONFIG.vector_depth) + 2 * (CONFIG.vector_depth // WIDTH - rows)
        waits = {stall: self.stalls.count(stall) for stall in set(self.stalls)}
        assert waits == {Stall.SCALAR: RECIPROCAL_CYCLES + quotient, Stall.QUANT: cycles + 1 - waits[Stall.SCALAR]}, job
        between = self.stalls.index(Stall.SCALAR)
        assert self.stalls[between : between + RECIPROCAL_CYCLES] == [Stall.SCALAR] * RECIPROCAL_CYCLES
        assert self.stalls[between + RECIPROCAL_CYCLES] == Stall.QUANT

    def _check_quant(self, job: Job, product: np.ndarray, rows: int, s2: int) -> None:
        assert job.constants is not None
        top = max((abs(int(value)) for value in product), default=0)
        expected = numerics.quantiser_scalars(top, self.s1, s2, job.constants)
        scale = int(self.dut.scale.value)
        found = (scale & ((1 << 18) - 1), scale >> 18)
        assert found == (expected.scale_mantissa, expected.scale_shift), f"scale {found}, not {expected}: {job}"
        q = numerics.quantise(product, expected.exponent, expected.reciprocal)
        assert np.abs(q).max(initial=0) == (127 if top else 0)
        q = np.concatenate([q, np.zeros(rows * WIDTH - job.count, np.int64)])
        wanted = [(row, packed(q[row * WIDTH : (row + 1) * WIDTH], 8)) for row in range(rows)]
        wrong = [pair for pair in zip(self.written, wanted, strict=False) if pair[0] != pair[1]]
        assert self.written == wanted, f"{len(self.written)} of {rows} rows written, wrong: {wrong[:3]}: {job}"

    def place(self, count: int) -> tuple[int, int]:
        """Row-aligned element addresses of a vector and its weights, anywhere."""
        rows = max(-(-count // WIDTH), 1)
        return self.rng.randint(0, ROWS - rows) * WIDTH, self.rng.randint(0, ROWS - rows) * WIDTH

    async def vector(self, values: np.ndarray, params: np.ndarray, s2: int = 0, ones: bool = False) -> None:
        """SUMSQ and QUANT of one vector."""
        count = len(values)
        source, param = self.place(count)
        saved = self.values[source : source + count].copy(), self.params[param : param + count].copy()
        self.values[source : source + count] = values
        self.params[param : param + count] = params
        await self.run(Job(count, source, param, ones), s2)
        await self.run(Job(count, source, param, self.rng.random() < 0.5, some_constants(self.rng)), s2)
        self.values[source : source + count], self.params[param : param + count] = saved


def packed(values: np.ndarray, width: int) -> int:
    """Two's complement, the first element lowest."""
    word = 0
    for value in reversed(values.tolist()):
        word = word << width | value & ((1 << width) - 1)
    return word


def some_constants(rng: random.Random) -> ScaleConstants:
    return ScaleConstants(
        eps_mantissa=rng.choice((0, rng.getrandbits(16))),
        eps_shift=rng.randrange(128),
        eps_const=rng.choice((0, rng.getrandbits(rng.randint(1, 40)))),
        mantissa=rng.randrange(1 << 23, 1 << 24),
        exponent=rng.randint(-60, 10),
    )


def random_vector(rng: random.Random, count: int, bits: int, top: int) -> np.ndarray:
    """``count`` values of random magnitude, below ``2**bits`` and within ``top``."""
    dice = np.random.default_rng(rng.getrandbits(32))
    scale = 2.0 ** dice.uniform(max(bits - 8, 0), bits, count)
    return np.clip((dice.uniform(-1, 1, count) * scale).round().astype(np.int64), -top - 1, top)


def patterns(rng: random.Random, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Vectors and weights at the ends of their ranges."""
    for value in (LOWEST, HIGHEST, -1, 0):
        for param in (PARAM_LOWEST, PARAM_LOWEST + 1, PARAM_HIGHEST, 1):
            yield np.full(count, value), np.full(count, param)
    for position in {0, count - 1, rng.randrange(count)}:
        single = np.zeros(count, np.int64)
        single[position] = rng.choice((1, -1, LOWEST, HIGHEST))
        yield single, np.full(count, rng.choice((PARAM_LOWEST, -1, 1, 12345)))
    # Halves of both roundings: products of +-2**14 and elements of the largest's half.
    signs = np.resize([1, -1], count)
    yield signs, np.full(count, 1 << 14)
    yield signs * 3, np.full(count, 1 << 14)


@cocotb.test()
async def corners(dut: Any) -> None:
    bench = Bench(dut, "corners")
    await bench.begin()
    for count in sorted({1, WIDTH, WIDTH + 1, 3 * WIDTH - 1}):
        for values, params in patterns(bench.rng, count):
            await bench.vector(values, params, bench.rng.getrandbits(64))


def tie_vector(rng: random.Random) -> np.ndarray:
    """With weights of +-1: normalised elements halfway between two integers that give different activations."""
    top = rng.randrange(1 << 22, 1 << 23)
    half_bits = top.bit_length() - numerics.NORMALISED_BITS
    reciprocal = numerics.quantiser_scalars(top, 0, 0, ScaleConstants(0, 0, 0, 1 << 23, 0)).reciprocal
    above = [-(-((2 * q + 1) << (numerics.RECIPROCAL_FRAC - 1)) // reciprocal) for q in range(numerics.Q_MAX)]
    values = [top, *((2 * t - 1) << (half_bits - 1) for t in above)]
    rng.shuffle(values)
    return np.array([rng.choice((-1, 1)) * value for value in values])


@cocotb.test()
async def ties(dut: Any) -> None:
    """Every activation has its ties, of both signs: halves go upwards."""
    bench = Bench(dut, "ties")
    await bench.begin()
    for _ in range(4):
        values = tie_vector(bench.rng)
        await bench.vector(values, np.array([bench.rng.choice((-1, 1)) for _ in values]), bench.rng.getrandbits(40))


@cocotb.test()
async def counts(dut: Any) -> None:
    """Every count over a few rows, so every mask."""
    bench = Bench(dut, "counts")
    await bench.begin()
    for count in range(1, 4 * WIDTH + 2):
        values, params = (
            random_vector(bench.rng, count, 23, HIGHEST),
            random_vector(bench.rng, count, 15, PARAM_HIGHEST),
        )
        values[-1] = values[-1] or 1
        params[-1] = params[-1] or 1
        await bench.vector(values, params, bench.rng.getrandbits(40), ones=count % 3 == 0)


@cocotb.test()
async def random_vectors(dut: Any) -> None:
    """Magnitudes from a bit to all bits, hundreds of elements."""
    bench = Bench(dut, "random")
    await bench.begin()
    for _ in range(40):
        count, rng = bench.rng.randint(1, 60 * WIDTH), bench.rng
        values = random_vector(rng, count, rng.randint(0, 23), HIGHEST)
        params = random_vector(rng, count, rng.randint(0, 15), PARAM_HIGHEST)
        await bench.vector(values, params, rng.getrandbits(rng.randint(1, 64)), ones=rng.random() < 0.3)


@cocotb.test()
async def sums_are_kept(dut: Any) -> None:
    """Several QUANT of other vectors use the S1 of one SUMSQ; S1 and scale outlast what does not make them."""
    bench = Bench(dut, "kept")
    await bench.begin()
    rng = bench.rng
    for _ in range(6):
        for constants in (None, *(some_constants(rng) for _ in range(3)), None):
            count = rng.randint(1, 5 * WIDTH)
            source, param = bench.place(count)
            await bench.run(Job(count, source, param, rng.random() < 0.5, constants), rng.getrandbits(50))


@cocotb.test()
async def nothing(dut: Any) -> None:
    """A count of zero is a vector of zeros."""
    bench = Bench(dut, "nothing")
    await bench.begin()
    await bench.vector(np.zeros(0, np.int64), np.zeros(0, np.int64), 77)
    await bench.vector(np.full(1, 5), np.full(1, 1 << 14))


@cocotb.test()
async def reset_in_a_job(dut: Any) -> None:
    """The next job after a reset is right, whatever the reset cut off."""
    bench = Bench(dut, "reset")
    await bench.begin()
    for constants in (None, some_constants(bench.rng)) * 6:
        job = Job(20 * WIDTH, 0, 0, False, constants)
        bench.quantising = constants is not None
        bench.clear()
        bench.jobs.send(job.packed())
        await bench.jobs.drain()
        await ClockCycles(dut.clk, bench.rng.randint(1, 30 + 40 * (constants is not None)))
        dut.rst.value = 1
        await ClockCycles(dut.clk, 3)
        dut.rst.value = 0
        await RisingEdge(dut.clk)
        values = random_vector(bench.rng, 9, 23, HIGHEST)
        await bench.vector(values, random_vector(bench.rng, 9, 15, PARAM_HIGHEST), 1 << 20)


@cocotb.test(skip=WIDTH < 8)
async def largest_vector(dut: Any) -> None:
    """65535 elements of -2**23: the largest sum of squares there is."""
    bench = Bench(dut, "largest")
    bench.values[:], bench.params[:] = LOWEST, PARAM_LOWEST
    await bench.begin()
    for job in (Job(65535, ones=True), Job(65535), Job(65535, constants=some_constants(bench.rng))):
        await bench.run(job, (1 << 62) - 1)
    assert bench.s1 == 65535 << 46
