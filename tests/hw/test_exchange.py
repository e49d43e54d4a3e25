"""What clusters exchange, under Verilator: the exchange alone, vector units through it, registers put together."""

from __future__ import annotations

import pytest
from bench import run_bench

from sterna.spec.config import preset
from sterna_hw.exchange import Exchange


@pytest.mark.parametrize("name", ["sim-tiny-c4", "u280"])
def test_exchange(name: str) -> None:
    run_bench(Exchange(config=preset(name)), "cocotb_exchange", parameters={"STERNA_CONFIG": name})
