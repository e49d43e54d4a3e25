"""The serial port under Verilator, with bits that are no whole number of cycles, and the rates that it refuses."""

from __future__ import annotations

import gc

import pytest
from bench import run_bench

from sterna_hw.link.uart import Uart


@pytest.mark.parametrize(
    "clock_hz, baud", [(75_000_000, 12_000_000), (50_000_000, 3_000_000), (48_000_000, 12_000_000)]
)
def test_uart(clock_hz: int, baud: int) -> None:
    run_bench(Uart(clock_hz=clock_hz, baud=baud), "cocotb_link_uart", parameters={"CLOCK_HZ": clock_hz, "BAUD": baud})


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize(
    "clock_hz, baud, text",
    [
        (40_000_000, 12_000_000, "12000000 baud cannot be made from a clock of 40000000 Hz: .* off by 0.30 of a bit"),
        (75_000_000, 9_600, "off by 0.4"),
        (75_000_000, 0, "baud must be a positive integer, not 0"),
        (7.5e7, 9600, "clock_hz must be a positive integer, not 75000000.0"),
    ],
)
def test_rates_that_cannot_be_made(clock_hz: int, baud: int, text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        Uart(clock_hz=clock_hz, baud=baud)
    del caught
    gc.collect()  # the component that was not made complains when it goes
