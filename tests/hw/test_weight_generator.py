"""The weight generator under Verilator, with one Threefry and with eight."""

from __future__ import annotations

import pytest
from bench import run_bench

from sterna.spec.config import preset
from sterna_hw.generator import WeightGenerator


@pytest.mark.parametrize("config", ["sim-tiny", "ecpix5", "sim-large"])
def test_generator(config: str) -> None:
    run_bench(WeightGenerator(config=preset(config)), "cocotb_generator", parameters={"STERNA_CONFIG": config})
