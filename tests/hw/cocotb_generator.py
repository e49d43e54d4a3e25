"""The weight generator against ``spec.generator``, with and without stalls, job after job."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from streams import Sink, Source, seeded, start

from sterna.spec.config import preset
from sterna.spec.generator import fixed_rows
from sterna_hw.generator import STAGES
from sterna_hw.interfaces import generator_job

CONFIG = preset(os.environ["STERNA_CONFIG"])
EDGES = [
    {"seed": 0, "stream": 0, "row": 0, "rows": 1, "blocks": 1},
    {"seed": (1 << 32) - 1, "stream": (1 << 16) - 1, "row": (1 << 16) - 1, "rows": 3, "blocks": 2},
    {"seed": 1, "stream": 4, "row": 4096, "rows": 2, "blocks": 300},
]


def expected(job: dict[str, int]) -> list[int]:
    """The words of a job as integers."""
    rows = range(job["row"], job["row"] + job["rows"])
    codes = fixed_rows(job["seed"], job["stream"], rows, job["blocks"] * CONFIG.lanes)
    blocks = codes.reshape(job["rows"], job["blocks"], CONFIG.word_bytes).transpose(1, 0, 2)
    return [int.from_bytes(word.tobytes(), "little") for word in blocks.reshape(-1, CONFIG.word_bytes)]


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def random_jobs(dut: Any) -> None:
    rng = seeded(dut, "generator")
    jobs, words = Source(dut, "job", 0.3), Sink(dut, "words", 0.3)
    await start(dut)
    want: list[int] = []
    for number in range(30):
        jobs.stall = words.stall = rng.choice([0.0, 0.3, 0.8])
        job = (
            EDGES[number]
            if number < len(EDGES)
            else {
                "seed": rng.getrandbits(32),
                "stream": rng.getrandbits(16),
                "row": rng.getrandbits(16),
                "rows": rng.randint(1, 40),
                "blocks": rng.randint(1, 5),
            }
        )
        jobs.send(generator_job().const(job).as_bits())
        want += expected(job)
        if rng.random() < 0.5:
            await words.wait(len(want))
    await words.wait(len(want))
    for _ in range(3 * STAGES):
        await RisingEdge(dut.clk)
    assert words.received == want
    assert not int(dut.busy.value)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def a_word_a_cycle(dut: Any) -> None:
    """From a fixed latency on; busy until the last word is taken."""
    jobs, words = Source(dut, "job", 0.0), Sink(dut, "words", 0.0)
    await start(dut)
    for number in range(1, 4):
        jobs.send(generator_job().const({"seed": 3, "stream": 2, "row": 5, "rows": 25, "blocks": 4}).as_bits())
        await words.wait(100 * number)
        taken = jobs.times[-1]
        assert words.times[-100:] == list(range(taken + STAGES + 1, taken + STAGES + 101))
        assert int(dut.busy.value) == 1
        await RisingEdge(dut.clk)
        assert int(dut.busy.value) == 0
