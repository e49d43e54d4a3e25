"""The sequencer under Verilator: programs in, jobs out, every cause of an error; and the counters of a token."""

from __future__ import annotations

import dataclasses

import pytest
from bench import run_bench

from sterna.spec.config import preset
from sterna_hw.counters import TokenCounters
from sterna_hw.sequencer import Sequencer


# Four words a descriptor, one; no generator; slots.
@pytest.mark.parametrize(("config", "slots"), [("sim-tiny", 1), ("sim-small", 1), ("ecpix5", 1), ("sim-tiny", 3)])
def test_sequencer(config: str, slots: int) -> None:
    built = dataclasses.replace(preset(config), slots=slots)
    parameters = {"STERNA_CONFIG": config, "STERNA_SLOTS": slots}
    run_bench(Sequencer(config=built), "cocotb_sequencer", parameters=parameters)


def test_counters() -> None:
    run_bench(TokenCounters(), "cocotb_counters")
