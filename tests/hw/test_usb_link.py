"""USB link under Verilator, at a model of PHY and host."""

from __future__ import annotations

from bench import run_bench

from sterna_hw.link.usb import UsbLink

BOARD, BUILD_ID = "ecpix5", 0x0123_4567_89AB_CDEF_0011_2233_4455_6677


def test_usb_link() -> None:
    link = UsbLink(board=BOARD, build_id=BUILD_ID)
    run_bench(link, "cocotb_usb_link", parameters={"BOARD": BOARD, "BUILD_ID": BUILD_ID})
