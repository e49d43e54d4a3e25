"""USB link under Verilator, at a model of PHY and host: alone, and with the endpoint of a board behind it."""

from __future__ import annotations

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from bench import run_bench

from sterna_hw.axi import AXI4Read, AXI4Write
from sterna_hw.link.endpoint import Endpoint
from sterna_hw.link.usb import UsbLink
from sterna_hw.link.usb_device import UlpiSignature

BOARD, BUILD_ID = "ecpix5", 0x0123_4567_89AB_CDEF_0011_2233_4455_6677
MEMORY_BYTES = 1 << 15
WIDTH = {"address_width": 32, "data_bytes": 16}
PARAMETERS = {"BOARD": BOARD, "BUILD_ID": BUILD_ID}


class LinkedBoard(wiring.Component):
    """A board without an accelerator: memory behind the endpoint behind USB."""

    def __init__(self) -> None:
        read, write = (channels(*WIDTH.values()) for channels in (AXI4Read, AXI4Write))
        bus = wiring.Signature({**dict(read.members), **dict(write.members)})
        super().__init__({"memory": Out(bus), "ulpi": Out(UlpiSignature())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.usb = usb = UsbLink(board=BOARD, build_id=BUILD_ID)
        m.submodules.endpoint = endpoint = Endpoint(
            **WIDTH, memory_bytes=MEMORY_BYTES, description=b"", build_id=BUILD_ID
        )
        wiring.connect(m, usb.rx, endpoint.received)
        wiring.connect(m, endpoint.sent, usb.tx)
        wiring.connect(m, usb.ulpi, wiring.flipped(self.ulpi))
        wiring.connect(m, endpoint.memory, wiring.flipped(self.memory))
        m.d.comb += [endpoint.memory_free.eq(1), endpoint.memory_locked.eq(1), endpoint.memory_ready.eq(1)]
        return m


def test_usb_link() -> None:
    run_bench(UsbLink(board=BOARD, build_id=BUILD_ID), "cocotb_usb_link", parameters=PARAMETERS)


def test_usb_endpoint() -> None:
    run_bench(LinkedBoard(), "cocotb_usb_endpoint", parameters={**PARAMETERS, "MEMORY_BYTES": MEMORY_BYTES})
