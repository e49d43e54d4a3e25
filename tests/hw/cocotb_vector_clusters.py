"""Bench of the vector units of all clusters: together they quantise one vector, as the specification does it alone."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles, Event, RisingEdge, with_timeout
from cocotb_vector import HIGHEST, LOWEST, PARAM_HIGHEST, PARAM_LOWEST, Job, packed, random_vector, some_constants
from streams import PERIOD_NS, Source, cycle, seeded, start

from sterna.spec import numerics
from sterna.spec.config import preset
from sterna.spec.registers import Stall
from sterna_hw.exchange import GATHER_LATENCY
from sterna_hw.vector import quant_cycles, sumsq_cycles

CONFIG = preset("sim-tiny-c4")
COUNT, WIDTH = CONFIG.clusters, CONFIG.vector_width
ROWS = CONFIG.vector_depth // WIDTH


class Unit:
    """One unit's memories, jobs and what it said."""

    def __init__(self, dut: Any, number: int) -> None:
        self._dut, self._number = dut, number
        self.rng = seeded(dut, number)
        dice = np.random.default_rng(self.rng.getrandbits(32))
        self.values = dice.choice([LOWEST, HIGHEST], CONFIG.vector_depth).astype(np.int64)
        self.params = dice.choice([PARAM_LOWEST, PARAM_HIGHEST], CONFIG.param_depth).astype(np.int64)
        self.jobs = Source(dut, f"units__{number}__job", stall=0, rng=self.rng)
        self.finished = Event()
        self.begun = self.ended = 0
        self.written: list[tuple[int, int]] = []
        self.stalls: set[int] = set()

    def pin(self, name: str) -> Any:
        return getattr(self._dut, f"units__{self._number}__{name}")

    async def serve(self) -> None:
        """Every cycle: reads of the memories, whole rows that arrive, and the end of the job."""
        edge = RisingEdge(self._dut.clk)
        while True:
            await edge
            if int(self.pin("job__valid").value) and int(self.pin("job__ready").value):
                self.begun = cycle()
            if int(self.pin("vector__enable").value):
                row = int(self.pin("vector__address").value)
                self.pin("vector__data").value = packed(self.values[row * WIDTH : (row + 1) * WIDTH], 24)
            if int(self.pin("params__enable").value):
                row = int(self.pin("params__address").value)
                self.pin("params__data").value = packed(self.params[row * WIDTH : (row + 1) * WIDTH], 16)
            if not int(self.pin("job__ready").value):
                self.stalls.add(int(self.pin("stall").value))
            if int(self.pin("gathered__enable").value):
                assert not self.finished.is_set(), "a row was written after done"
                self.written.append((int(self.pin("gathered__address").value), int(self.pin("gathered__data").value)))
            if int(self.pin("done").value):
                self.ended = cycle()
                self.finished.set()

    async def run(self, job: Job, late: int) -> None:
        """A job that comes ``late`` cycles late, until its end."""
        self.written.clear()
        self.finished.clear()
        self.stalls.clear()
        await ClockCycles(self._dut.clk, late + 1)
        self.jobs.send(job.packed())
        await with_timeout(self.finished.wait(), (400 + 4 * quant_cycles(CONFIG, job.count)) * PERIOD_NS, "ns")


class Bench:
    """All units, their parts of a vector, and what the specification makes of it."""

    def __init__(self, dut: Any, salt: str) -> None:
        self.dut, self.rng = dut, seeded(dut, salt)
        self.units = [Unit(dut, number) for number in range(COUNT)]
        self.s1 = self.s2 = 0

    async def begin(self) -> None:
        await start(self.dut)
        for unit in self.units:
            cocotb.start_soon(unit.serve())

    def fill(self, job: Job, part: Any) -> tuple[np.ndarray, np.ndarray]:
        """Write each unit's part of a vector and its weights; gives both, a row a unit."""
        for unit in self.units:
            values, params = part(unit.rng, job.count)
            unit.values[job.source : job.source + job.count] = values
            unit.params[job.param : job.param + job.count] = params
        w = [unit.values[job.source : job.source + job.count] for unit in self.units]
        c = [unit.params[job.param : job.param + job.count] for unit in self.units]
        return np.array(w), np.array(c)

    async def run(self, job: Job, late: int) -> None:
        """The job in all units, each up to ``late`` cycles late."""
        delays = [self.rng.randint(0, late) for _ in self.units]
        pairs = zip(self.units, delays, strict=True)
        for task in [cocotb.start_soon(unit.run(job, delay)) for unit, delay in pairs]:
            await task
        wanted = quant_cycles(CONFIG, job.count) if job.constants else sumsq_cycles(CONFIG, job.count)
        last = max(self.units, key=lambda unit: unit.begun)
        assert last.ended - last.begun == wanted, f"{last.ended - last.begun} cycles, not {wanted}"
        kinds = {Stall.QUANT, Stall.SCALAR} if job.constants else {Stall.SUMSQ}
        assert {stall for unit in self.units for stall in unit.stalls} == kinds

    def abandon(self, job: Job, units: list[Unit]) -> None:
        """Start a job that will not end."""
        for unit in self.units:
            unit.finished.clear()
        for unit in units:
            unit.jobs.send(job.packed())

    async def sumsq(self, job: Job, part: Any, *, late: int) -> None:
        w, c = self.fill(job, part)
        sums = [self.rng.getrandbits(self.rng.randint(1, 58)) for _ in self.units]
        for unit, s2 in zip(self.units, sums, strict=True):
            unit.pin("s2").value = s2
        await self.run(job, late)
        p = w if job.ones else numerics.round_shift(w * c, 15)
        self.s1, self.s2 = int((p.astype(object) ** 2).sum()), sum(sums)
        assert {int(unit.pin("s1").value) for unit in self.units} == {self.s1}

    async def quant(self, job: Job, part: Any, *, late: int) -> None:
        w, c = self.fill(job, part)
        for unit in self.units:
            unit.pin("s2").value = self.rng.getrandbits(40)  # the exchanged one counts
        await self.run(job, late)
        product = w * c
        assert job.constants is not None
        expected = numerics.quantiser_scalars(int(np.abs(product).max()), self.s1, self.s2, job.constants)
        scales = {int(unit.pin("scale").value) for unit in self.units}
        assert scales == {expected.scale_mantissa | expected.scale_shift << 18}
        rows = -(-job.count // WIDTH)
        q = np.zeros((COUNT, rows * WIDTH), np.int64)
        q[:, : job.count] = numerics.quantise(product, expected.exponent, expected.reciprocal)
        whole = q.reshape(COUNT, rows, WIDTH).swapaxes(0, 1).reshape(rows, COUNT * WIDTH)
        for unit in self.units:
            assert unit.written == [(row, packed(values, 8)) for row, values in enumerate(whole)]


def random_part(rng: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of random magnitude: any unit may have the largest product, and nothing but zeros."""
    bits = rng.choice((0, rng.randint(1, 23)))
    return random_vector(rng, count, bits, HIGHEST), random_vector(rng, count, 15, PARAM_HIGHEST)


@cocotb.test()
@cocotb.parametrize(late=[0, 2, 150])
async def one_vector_of_all_parts(dut: Any, late: int) -> None:
    """A SUMSQ, and a QUANT or two, of vectors of any length, some units late."""
    bench = Bench(dut, f"parts/{late}")
    await bench.begin()
    rng = bench.rng
    for _ in range(12):
        count = rng.randint(1, 40)
        source, param = (rng.randrange(ROWS - 20) * WIDTH for _ in range(2))
        await bench.sumsq(Job(count, source, param, rng.random() < 0.3), random_part, late=late)
        for _ in range(rng.randint(1, 2)):
            count = rng.randint(1, 40)
            await bench.quant(Job(count, source, param, False, some_constants(rng)), random_part, late=late)


async def reset(dut: Any, number: int) -> None:
    dut.resets.value = 1 << number
    await ClockCycles(dut.clk, 1)
    dut.resets.value = 0


@cocotb.test()
async def resets_while_others_wait(dut: Any) -> None:
    """Units that run, offer, or write their shares are reset one after the other, as their memories drain."""
    bench = Bench(dut, "reset")
    await bench.begin()
    for quantise in (False, True) * 12:
        running = bench.rng.choice((bench.units, bench.rng.sample(bench.units, bench.rng.randint(1, COUNT))))
        bench.abandon(Job(16, constants=some_constants(bench.rng) if quantise else None), running)
        await ClockCycles(dut.clk, bench.rng.randint(1, 120))
        for number in bench.rng.sample(range(COUNT), COUNT):
            await reset(dut, number)
            await ClockCycles(dut.clk, bench.rng.choice((0, 0, 1, 30)))
        await ClockCycles(dut.clk, GATHER_LATENCY + 1)  # what was on its way to the memories
        await bench.sumsq(Job(9), random_part, late=3)
        await bench.quant(Job(9, constants=some_constants(bench.rng)), random_part, late=3)


@cocotb.test()
@cocotb.parametrize(quantise=[False, True])
async def a_reset_as_the_agreement_comes(dut: Any, quantise: bool) -> None:
    """In each cycle around the agreement: what comes to a unit that has been reset is nothing to it."""
    bench = Bench(dut, f"agreement/{quantise}")
    await bench.begin()
    job = Job(2, constants=some_constants(bench.rng) if quantise else None)
    end = (quant_cycles if quantise else sumsq_cycles)(CONFIG, job.count)
    for cycles in range(1, min(end, 40)):
        bench.abandon(job, bench.units)
        bench.s1 = bench.s2 = 0
        await ClockCycles(dut.clk, cycles)
        await reset(dut, 0)
        await ClockCycles(dut.clk, 2)
        for number in range(1, COUNT):
            await reset(dut, number)
        await ClockCycles(dut.clk, GATHER_LATENCY + 1)
        await bench.quant(Job(2, constants=some_constants(bench.rng)), random_part, late=0)
