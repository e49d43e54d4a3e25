"""Registers under Verilator: the map of the specification over AXI4-Lite."""

from __future__ import annotations

from bench import run_bench

from sterna.spec.config import preset
from sterna_hw.registers import Registers


def test_registers() -> None:
    built = preset("sim-tiny")
    run_bench(Registers(config=built), "cocotb_registers", parameters={"CONFIG_HASH": built.hash})
