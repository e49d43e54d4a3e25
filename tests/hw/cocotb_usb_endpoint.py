"""The host's own client talks to the board's endpoint through USB: registers, and how fast memory fills."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from axi_checks import read_bus, write_bus
from cocotb.task import bridge, resume
from cocotbext.axi import AxiRamRead, AxiRamWrite
from streams import seeded
from ulpi_phy import now
from usb_bench import attached, enumerate_
from usb_host import UsbHost

from sterna.link.client import LinkClient
from sterna.link.pipe import BytePipe
from sterna.spec import board
from sterna.spec.link import USB_ENDPOINT as ENDPOINT
from sterna.spec.link import Space
from sterna_hw.link.usb_descriptors import HIGH_SPEED_PACKET

SIZE = int(os.environ["MEMORY_BYTES"])
LEAST_RATE = 25  # MB/s
POLL = 600  # cycles from one IN without an answer to the next
TIMEOUT = 2e-3  # seconds, long after a board has answered


class SimulatedPipe(BytePipe):
    """What libusb does with the two endpoints."""

    def __init__(self, host: UsbHost) -> None:
        self._host = host

    @property
    def name(self) -> str:
        return "usb:simulated"

    def read(self, timeout: float) -> bytes:
        return bytes(self._read(timeout))

    def write(self, data: bytes) -> None:
        self._write(data)

    def close(self) -> None:
        pass

    @resume
    async def _read(self, timeout: float) -> bytes:
        end, received = now() + timeout * 60e6, b""
        while now() < end:
            packet = await self._host.take(ENDPOINT, most=HIGH_SPEED_PACKET)
            received += packet or b""
            if packet is not None and len(packet) < HIGH_SPEED_PACKET:
                return received
            await self._host.idle(POLL)
        return received

    @resume
    async def _write(self, data: bytes) -> None:
        await self._host.write(ENDPOINT, data, packet=HIGH_SPEED_PACKET)


@cocotb.test()
async def client(dut: Any) -> None:
    for name in ("memory__rvalid", "memory__bvalid"):
        getattr(dut, name).value = 0
    host = await attached(dut)
    await enumerate_(host)
    memory = AxiRamWrite(write_bus(dut, "memory"), dut.clk, size=SIZE)
    reader = AxiRamRead(read_bus(dut, "memory"), dut.clk, mem=memory.mem)
    for model in (memory, reader):
        model.log.setLevel("ERROR")
    pipe = LinkClient(SimulatedPipe(host), timeout=TIMEOUT, attempts=2)
    content = seeded(dut, "content").randbytes(SIZE)

    @bridge
    def talk() -> tuple[float, float]:
        """What a program on the host does; gives when the loading began and ended."""
        pipe.sync()
        assert pipe.read_word(Space.BOARD, board.OFFSET["MAGIC"]) == board.MAGIC
        words = [pipe.read_word(Space.BOARD, board.OFFSET[f"BUILD_ID_{i}"]) for i in range(board.BUILD_ID_WORDS)]
        assert sum(word << 32 * i for i, word in enumerate(words)) == int(os.environ["BUILD_ID"])
        start = now()
        pipe.write(Space.MEMORY, 0, content)
        end = now()
        assert pipe.read(Space.MEMORY, 100, 5_000) == content[100:5_100]
        return start, end

    start, end = await talk()
    assert memory.read(0, SIZE) == content
    assert pipe.repeats == 0
    rate = SIZE / (end - start) * 60
    dut._log.info("loading: %.1f MB/s", rate)
    assert rate > LEAST_RATE
