"""The host software's own client on the gateware's endpoint, with a cable between them that loses and changes bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import cocotb
from axi_checks import read_bus, stalls, write_bus
from cocotb.task import bridge, resume
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamRead, AxiRamWrite
from streams import Sink, Source, seeded, start

from sterna.errors import DeviceError
from sterna.link.client import LinkClient
from sterna.link.pipe import BytePipe
from sterna.spec.board import MAGIC, OFFSET
from sterna.spec.link import Space

SIZE = int(os.environ["MEMORY_BYTES"])
BURST = 200  # bytes that a read of the pipe waits for
SECOND = 20_000  # cycles that stand for one on the pipe


class Cable(BytePipe):
    """Carries bytes to and from the simulation; each is lost or changed with probability ``noise``."""

    def __init__(self, dut: Any, rng: Any) -> None:
        self._edge, self._rng, self.noise = RisingEdge(dut.clk), rng, 0.0
        self._source, self._sink = Source(dut, "received", 0, rng), Sink(dut, "sent", 0.1, rng)
        self._seen = 0

    @property
    def name(self) -> str:
        return "cable"

    def read(self, timeout: float) -> bytes:
        return bytes(resume(self._read)(timeout))

    def write(self, data: bytes) -> None:
        resume(self._write)(data)

    def close(self) -> None:
        pass

    def _carried(self, data: bytes) -> bytes:
        carried = bytearray()
        for byte in data:
            if self._rng.random() >= self.noise:
                carried.append(byte)
            elif self._rng.random() < 0.5:
                carried.append(byte ^ 1 << self._rng.randrange(8))
        return bytes(carried)

    async def _read(self, timeout: float) -> bytes:
        for _ in range(round(timeout * SECOND)):
            if len(self._sink.received) > self._seen:
                break
            await self._edge
        for _ in range(BURST):
            await self._edge
        data = bytes(self._sink.received[self._seen :])
        self._seen += len(data)
        return self._carried(data)

    async def _write(self, data: bytes) -> None:
        self._source.send_all(self._carried(data))


async def prepare(dut: Any) -> tuple[Any, Cable, AxiRamWrite]:
    rng = seeded(dut)
    for name in ("restart", "overflow", "memory_failed", "dram__ack", "core__rvalid", "core__bvalid"):
        getattr(dut, name).value = 0
    for name in ("memory_free", "memory_locked", "memory_ready"):
        getattr(dut, name).value = 1
    memory = AxiRamWrite(write_bus(dut, "memory"), dut.clk, size=SIZE)
    reader = AxiRamRead(read_bus(dut, "memory"), dut.clk, mem=memory.mem)
    for model in (memory, reader):
        model.log.setLevel("ERROR")
    reader.r_channel.set_pause_generator(stalls(rng, 0.3))
    await start(dut)
    return rng, Cable(dut, rng), memory


async def in_thread(function: Callable[[], None]) -> None:
    await bridge(function)()


@cocotb.test()
async def noisy_cable(dut: Any) -> None:
    """Whatever is lost on the way, memory ends up as written, is read as it is, and nothing is done twice."""
    rng, cable, memory = await prepare(dut)
    shadow = bytearray(SIZE)
    memory.write(0, bytes(SIZE))
    client = LinkClient(cable, attempts=20)

    def use() -> None:
        for turn in range(12):
            cable.noise = rng.choice((0.0, 0.0003, 0.001)) if turn else 0.0
            size = rng.choice((1, 100, 3000, rng.randint(1, 4000)))
            address = rng.randint(0, SIZE - size)
            data = rng.randbytes(size)
            client.write(Space.MEMORY, address, data)
            shadow[address : address + size] = data
            address = rng.randint(0, SIZE - size)
            assert client.read(Space.MEMORY, address, size) == shadow[address : address + size]
            assert client.read_word(Space.BOARD, OFFSET["MAGIC"]) == MAGIC

    await in_thread(use)
    assert client.repeats > 0, "the cable was too good to show anything"
    assert memory.read(0, SIZE) == bytes(shadow)
    dut._log.info("%d repeats", client.repeats)


@cocotb.test()
async def refused_writes(dut: Any) -> None:
    """Of writes that are refused none counts as done, even when the refusal itself was lost."""
    rng, cable, memory = await prepare(dut)
    memory.write(0, bytes(SIZE))
    client = LinkClient(cable, attempts=20)
    refused = 0

    def use() -> None:
        nonlocal refused
        client.sync()
        for _ in range(15):
            cable.noise = 0.003
            try:
                client.write(Space.MEMORY, 4 * rng.randrange(SIZE // 4), rng.randbytes(4))
            except DeviceError as error:
                assert "while a token runs" in str(error)
                refused += 1
            cable.noise = 0.0
            client.sync()

    dut.memory_free.value = 0
    await in_thread(use)
    assert refused == 15
    assert memory.read(0, SIZE) == bytes(SIZE)
