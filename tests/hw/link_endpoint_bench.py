"""What the Endpoint of the link is tested with: buses that stall, and a host; sizes come from the environment."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from axi_checks import ReadChecker, WriteChecker, read_bus, stalls, write_bus
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteRam, AxiRamRead, AxiRamWrite
from link_host import (
    Host,
)
from streams import seeded, start

from sterna.spec.registers import REGISTER_SPACE_BITS

BEAT = int(os.environ["DATA_BYTES"])
PATIENCE = int(os.environ["PATIENCE"])
SIZE = int(os.environ["MEMORY_BYTES"])
ROM = bytes.fromhex(os.environ["DESCRIPTION"])
CORE_BYTES = 1 << REGISTER_SPACE_BITS
SCRATCH = 40


class ReadRam(AxiRamRead):
    """Memory in which some beats answer with an error."""

    bad: tuple[int, ...] = ()

    async def _read(self, address: int, length: int) -> bytes:
        if any(address <= bad < address + length for bad in self.bad):
            raise ValueError("bad address")
        return await super()._read(address, length)


class WriteRam(AxiRamWrite):
    """Likewise for writes, without an effect."""

    bad: tuple[int, ...] = ()

    async def _write(self, address: int, data: bytes) -> None:
        if any(address <= bad < address + len(data) for bad in self.bad):
            raise ValueError("bad address")
        await super()._write(address, data)


class Wishbone:
    """A classic Wishbone subordinate with 32-bit registers; keeps what happened."""

    def __init__(self, dut: Any, rng: Any, stall: float) -> None:
        self._dut, self._rng, self._stall = dut, rng, stall
        self.values: dict[int, int] = {}
        self.writes: list[tuple[int, int]] = []
        self.mute = False
        dut.dram__ack.value = 0
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        dut, edge = self._dut, RisingEdge(self._dut.clk)
        while True:
            await edge
            if self.mute or not (int(dut.dram__cyc.value) and int(dut.dram__stb.value)):
                continue
            while self._rng.random() < self._stall:
                await edge
            address = int(dut.dram__adr.value)
            if int(dut.dram__we.value):
                self.values[address] = int(dut.dram__dat_w.value)
                self.writes.append((address, self.values[address]))
            else:
                dut.dram__dat_r.value = self.values.get(address, 0)
            dut.dram__ack.value = 1
            await edge
            dut.dram__ack.value = 0
            dut.dram__dat_r.value = self._rng.getrandbits(32)


class Bench:
    """The endpoint between a host and everything that it serves."""

    def __init__(self, dut: Any, rng: Any, stall: float) -> None:
        self.rng = rng
        self.memory = WriteRam(write_bus(dut, "memory"), dut.clk, size=SIZE)
        self.read_memory = ReadRam(read_bus(dut, "memory"), dut.clk, mem=self.memory.mem)
        self.core = AxiLiteRam(AxiLiteBus.from_prefix(dut, "core_"), dut.clk, size=CORE_BYTES)
        self.wishbone = Wishbone(dut, rng, stall)
        channels = (
            *(self.memory.aw_channel, self.memory.w_channel, self.memory.b_channel),
            *(self.read_memory.ar_channel, self.read_memory.r_channel),
        )
        for model in (self.memory, self.read_memory, self.core.read_if, self.core.write_if):
            model.log.setLevel("ERROR")
        if stall:
            for channel in channels:
                channel.set_pause_generator(stalls(rng, stall))
        self.read_checker = ReadChecker(dut, "memory", outstanding=1, max_beats=1)
        self.write_checker = WriteChecker(dut, "memory", outstanding=16, max_beats=1)
        self.shadow = bytearray(rng.randbytes(SIZE))
        self.memory.write(0, bytes(self.shadow))
        self.host = Host(dut, rng, stall=stall)
        self.claims = 0  # cycles in which the memory was claimed
        cocotb.start_soon(self._watch(dut))

    async def _watch(self, dut: Any) -> None:
        while True:
            await RisingEdge(dut.clk)
            self.claims += int(dut.memory_claimed.value)
            in_use = (dut.memory__arvalid, dut.memory__awvalid, dut.memory__wvalid, dut.memory__rvalid)
            assert int(dut.memory_claimed.value) or not any(int(signal.value) for signal in in_use)

    def payload(self, length: int) -> bytes:
        """Random bytes, many of which need an escape."""
        return bytes(self.rng.choice((0x7E, 0x7D, 0x5E, self.rng.randrange(256))) for _ in range(length))

    def place(self) -> tuple[int, int]:
        """Address and length of some bytes of memory."""
        length = self.rng.choice((1, 2, BEAT, BEAT + 1, 1024, self.rng.randint(1, 100), self.rng.randint(1, 1024)))
        around = self.rng.choice((0, 4096, SIZE, self.rng.randrange(SIZE)))
        address = around + self.rng.randint(-length - BEAT, BEAT)
        return min(max(address, 0), SIZE - length), length

    def check_memory(self) -> None:
        assert self.memory.read(0, SIZE) == bytes(self.shadow)


async def prepare(dut: Any, stall: float = 0.0) -> Bench:
    rng = seeded(dut)
    for name in ("restart", "overflow", "memory_failed", "memory__rvalid", "memory__bvalid", "core__rvalid"):
        getattr(dut, name).value = 0
    for name in ("memory_free", "memory_locked", "memory_ready"):
        getattr(dut, name).value = 1
    bench = Bench(dut, rng, stall)
    await start(dut, limit=1_000_000)
    await bench.host.sync(rng.randrange(256))
    return bench
