"""Stripe under Verilator, and what it refuses."""

from __future__ import annotations

import pytest
from bench import run_bench

from sterna_hw.stripe import Stripe

FOUR = (0x4000_0000, 0x5000_0000, 0x6000_0000, 0x1_7000_0000)


@pytest.mark.parametrize("wide, bases", [(64, FOUR), (8, (0x1000, 0x81000))])
def test_stripe(wide: int, bases: tuple[int, ...]) -> None:
    width = 30 if len(bases) == 4 else 20
    stripe = Stripe(address_width=width, port_address_width=33, data_bytes=wide, bases=bases)
    parameters = {"PORTS": len(bases), "WIDE_BYTES": wide, "BASES": ",".join(map(hex, bases))}
    run_bench(stripe, "cocotb_stripe", parameters=parameters)


@pytest.mark.filterwarnings("ignore:.*created but never used")
@pytest.mark.parametrize("bases", [(), (0,), (0, 4096, 8192), (0, 100), (0, 1 << 32)])
def test_parts_that_cannot_be_striped_are_refused(bases: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        Stripe(address_width=20, port_address_width=32, data_bytes=16, bases=bases)
