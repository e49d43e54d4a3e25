"""Registers under Verilator: the map of the specification over AXI4-Lite."""

from __future__ import annotations

import pytest
from bench import run_bench

from sterna.spec.config import preset
from sterna_hw.registers import Registers


@pytest.mark.parametrize("name", ["sim-tiny", "sim-tiny-b4"])
def test_registers(name: str) -> None:
    built = preset(name)
    parameters = {"CONFIG_HASH": built.hash, "STERNA_SLOTS": built.slots}
    run_bench(Registers(config=built), "cocotb_registers", parameters=parameters)
