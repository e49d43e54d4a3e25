"""What several slots need beside their cores: the delay of chained rows, and one writer for the logits of all."""

from dataclasses import replace

import pytest
from bench import run_bench

from sterna.spec.config import preset
from sterna_hw.logits_serialiser import LogitsSerialiser
from sterna_hw.slots import Delay


@pytest.mark.parametrize("slots", [1, 3, 4])
def test_logits_serialiser(slots: int) -> None:
    config = replace(preset("sim-tiny"), slots=slots)
    run_bench(LogitsSerialiser(config=config), "cocotb_logits_serialiser", parameters={"STERNA_SLOTS": slots})


@pytest.mark.parametrize("cycles", [2, 3, 7, 21])
def test_delay(cycles: int) -> None:
    run_bench(Delay(12, cycles=cycles), "cocotb_delay", parameters={"CYCLES": cycles})
