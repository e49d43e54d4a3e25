"""LogitsWriter under Verilator: placement, strobes, bandwidth, flush, errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench import run_bench

from sterna.spec import numerics
from sterna.spec.config import preset
from sterna_hw.logits_writer import LogitsWriter


@pytest.mark.parametrize("beat, burst, longest", [(4, 64, 16), (16, 64, 16), (32, 5, 4)])
def test_logits_writer(beat: int, burst: int, longest: int) -> None:
    built = replace(preset("sim-small"), beat_bytes=beat, burst_beats=burst)
    parameters = {"BEAT_BYTES": beat, "VALUE_WIDTH": numerics.VALUE_WIDTH, "LONGEST_BURST": longest}
    run_bench(LogitsWriter(config=built), "cocotb_logits_writer", parameters=parameters)
