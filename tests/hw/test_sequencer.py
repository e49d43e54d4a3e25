"""The sequencer under Verilator: programs in, jobs out, every cause of an error; and the counters of a token."""

from __future__ import annotations

import pytest
from bench import run_bench

from sterna.spec.config import preset
from sterna_hw.counters import TokenCounters
from sterna_hw.sequencer import Sequencer


@pytest.mark.parametrize("config", ["sim-tiny", "sim-small", "ecpix5"])  # four words a descriptor, one; no generator
def test_sequencer(config: str) -> None:
    run_bench(Sequencer(config=preset(config)), "cocotb_sequencer", parameters={"STERNA_CONFIG": config})


def test_counters() -> None:
    run_bench(TokenCounters(), "cocotb_counters")
