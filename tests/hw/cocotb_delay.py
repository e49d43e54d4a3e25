"""The delay line: what went in comes out after exactly so many cycles."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from streams import seeded, start

CYCLES = int(os.environ["CYCLES"])


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def values_come_out_late(dut: Any) -> None:
    rng = seeded(dut, "delay")
    await start(dut)
    sent: list[int] = []
    for number in range(6 * CYCLES + 5):
        sent.append(rng.getrandbits(12))
        dut.i.value = sent[-1]
        await RisingEdge(dut.clk)
        if number >= CYCLES:
            assert int(dut.o.value) == sent[number - CYCLES], f"cycle {number}"
