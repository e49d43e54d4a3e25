"""The serialiser of logits: those of the wanted slots, lowest first, nothing lost and no cycle more than needed."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles
from streams import Sink, Source, seeded, start

from sterna.spec.numerics import VALUE_WIDTH

SLOTS = int(os.environ["STERNA_SLOTS"])
LAST = 1 << VALUE_WIDTH  # beside one value


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def rows_of_all_slots(dut: Any) -> None:
    rng = seeded(dut, "logits")
    dut.wanted.value = 0
    source, sink = Source(dut, "rows", 0.0), Sink(dut, "values", 0.0)
    await start(dut)
    for stall in (0.0, 0.4):
        sink.stall = stall
        for wanted in range(1 << SLOTS):
            await ClockCycles(dut.clk, 2)
            dut.wanted.value = wanted
            rows = [[rng.getrandbits(VALUE_WIDTH) for _ in range(SLOTS)] for _ in range(6)]
            given, taken = len(sink.received), source.sent
            for number, row in enumerate(rows):
                values = sum(value << VALUE_WIDTH * slot for slot, value in enumerate(row))
                source.send(values | (number == len(rows) - 1) << VALUE_WIDTH * SLOTS)
            await source.drain()
            await ClockCycles(dut.clk, 2)
            expected = [row[slot] for row in rows for slot in range(SLOTS) if wanted >> slot & 1]
            if expected:
                expected[-1] |= LAST
            assert sink.received[given:] == expected, f"wanted {wanted:b}"
            if not (stall and wanted):  # a row that nobody wants waits for nobody
                times = source.times[taken:]
                assert times[-1] - times[0] == (len(rows) - 1) * max(wanted.bit_count(), 1)
