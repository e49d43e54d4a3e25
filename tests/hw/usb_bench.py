"""A USB device under test that a host has found: how benches of the link begin."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles
from streams import seeded
from ulpi_phy import PERIOD_PS, UlpiPhy
from usb_host import Stalled, UsbHost

from sterna_hw.link.usb_descriptors import usb_descriptors

SYSTEM_PERIOD_PS = 13_334  # 75 MHz
ADDRESS = 42
EXPECTED = {
    (int(kind), index): bytes(descriptor)
    for kind, index, descriptor in usb_descriptors(board=os.environ["BOARD"], build_id=int(os.environ["BUILD_ID"]))
}


async def attached(dut: Any, *, high_speed: bool = True) -> UsbHost:
    """A device that was plugged in, reset by the host, and waits for its address."""
    rng = seeded(dut, "usb")
    for name in ("rst", "usb_rst"):
        getattr(dut, name).value = 1
    cocotb.start_soon(Clock(dut.clk, SYSTEM_PERIOD_PS, unit="ps").start())
    cocotb.start_soon(Clock(dut.usb_clk, PERIOD_PS, unit="ps").start())
    phy = UlpiPhy(dut, rng)
    await ClockCycles(dut.clk, 10)
    assert int(dut.ulpi__rst.value), "the PHY is not in reset while the system is"
    dut.rst.value = 0
    await ClockCycles(dut.usb_clk, 10)
    dut.usb_rst.value = 0
    assert not int(dut.ulpi__rst.value)
    await ClockCycles(dut.usb_clk, 70_000)  # the PHY may start up for a millisecond
    phy.plug()
    await ClockCycles(dut.usb_clk, 3_000)
    host = UsbHost(dut, phy, rng)
    await host.reset(high_speed=high_speed)
    return host


async def enumerate_(host: UsbHost) -> None:
    """What an operating system does with a new device."""
    await host.idle(200)
    assert await host.descriptor(1, length=64) == EXPECTED[1, 0]
    await host.set_address(ADDRESS)
    await host.idle(200)
    at_speed = 0 if host.high_speed else 1
    assert await host.descriptor(1) == EXPECTED[1, 0]
    assert await host.descriptor(6) == EXPECTED[6, 0]
    assert await host.descriptor(2, length=9) == EXPECTED[2, at_speed][:9]
    assert await host.descriptor(2) == EXPECTED[2, at_speed]
    assert await host.descriptor(7) == EXPECTED[7, at_speed]
    for index in range(4):
        assert await host.descriptor(3, index) == EXPECTED[3, index]
    for kind in (15, 9):  # a device of USB 2.0 has no BOS, and this one is not OTG
        try:
            await host.descriptor(kind)
        except Stalled:
            continue
        raise AssertionError(f"an answer for descriptor {kind}")
    await host.set_configuration()
    assert await host.control(0x80, 8, 0, length=1) == b"\x01"
