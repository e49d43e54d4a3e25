"""Benches of Stripe: data where it belongs, any order of the ports' answers, errors, rate."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from axi_checks import read_bus, stalls, write_bus
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiMasterRead, AxiMasterWrite, AxiRamRead, AxiRamWrite
from cocotbext.axi.sparse_memory import SparseMemory
from streams import cycle, seeded, start

PORTS = int(os.environ["PORTS"])
WIDE = int(os.environ["WIDE_BYTES"])
BASES = [int(text, 0) for text in os.environ["BASES"].split(",")]
SLICE = WIDE // PORTS
SIZE = 1 << 16  # of wide memory that the benches use


class Memory:
    """The memory behind one port; reads and writes from ``bad`` on answer with an error."""

    def __init__(self, dut: Any, index: int) -> None:
        self.bytes = SparseMemory(1 << 33)
        self.bad = 1 << 33
        outer = self

        class Reads(AxiRamRead):
            async def _read(self, address: int, length: int) -> bytes:
                outer.check(address)
                return outer.bytes.read(address, length)

        class Writes(AxiRamWrite):
            async def _write(self, address: int, data: bytes) -> None:
                outer.check(address)
                outer.bytes.write(address, data)

        prefix = f"port{index}"
        self.reads = Reads(read_bus(dut, prefix), dut.clk, dut.rst, size=1 << 33)
        self.writes = Writes(write_bus(dut, prefix), dut.clk, dut.rst, size=1 << 33)
        for model in (self.reads, self.writes):
            model.log.setLevel("ERROR")

    def check(self, address: int) -> None:
        if address >= self.bad:
            raise ValueError("bad address")

    def stall(self, rng: Any, probability: float) -> None:
        for channel in (
            self.reads.ar_channel,
            self.reads.r_channel,
            self.writes.aw_channel,
            self.writes.w_channel,
            self.writes.b_channel,
        ):
            channel.set_pause_generator(stalls(rng, probability))


async def prepare(dut: Any, stall: float) -> tuple[Any, list[Memory], AxiMasterRead, AxiMasterWrite]:
    rng = seeded(dut)
    memories = [Memory(dut, index) for index in range(PORTS)]
    reader = AxiMasterRead(read_bus(dut, "wide"), dut.clk, dut.rst)
    writer = AxiMasterWrite(write_bus(dut, "wide"), dut.clk, dut.rst)
    for model in (reader, writer):
        model.log.setLevel("ERROR")
    if stall:
        for memory in memories:
            memory.stall(rng, stall * rng.random())
        for channel in (reader.ar_channel, reader.r_channel, writer.aw_channel, writer.w_channel, writer.b_channel):
            channel.set_pause_generator(stalls(rng, stall * rng.random()))
    await start(dut, limit=200_000)
    return rng, memories, reader, writer


def striped(memories: list[Memory], address: int, size: int) -> bytes:
    """What lies at ``address`` of the wide memory, gathered from the narrow ones by the definition."""
    found = bytearray()
    for byte in range(address, address + size):
        beat, rest = divmod(byte, WIDE)
        port, offset = divmod(rest, SLICE)
        found += memories[port].bytes.read(BASES[port] + beat * SLICE + offset, 1)
    return bytes(found)


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.6])
async def slices_lie_where_they_belong(dut: Any, stall: float) -> None:
    rng, memories, reader, writer = await prepare(dut, stall)
    shadow = bytearray(rng.randbytes(SIZE // 8))
    await writer.write(0, bytes(shadow), awid=0)
    for _ in range(40):
        size = rng.choice([1, 3, WIDE, 5 * WIDE, 1000])
        at = rng.randrange(len(shadow) - size)
        piece = rng.randbytes(size)
        shadow[at : at + size] = piece
        await writer.write(at, piece, awid=0)
        size = rng.choice([WIDE, 4 * WIDE, 1024])
        at = rng.randrange((len(shadow) - size) // WIDE) * WIDE
        assert bytes((await reader.read(at, size, arid=0)).data) == shadow[at : at + size]
    assert striped(memories, 0, len(shadow)) == shadow


@cocotb.test()
async def an_error_of_one_port_is_an_error_of_the_burst(dut: Any) -> None:
    _, memories, reader, writer = await prepare(dut, 0.3)
    await writer.write(0, bytes(4 * WIDE), awid=0)
    for memory, base in zip(memories, BASES, strict=True):
        memory.bad = base + 2 * SLICE
        assert not (await reader.read(0, 2 * WIDE, arid=0)).resp
        assert (await reader.read(2 * WIDE, WIDE, arid=0)).resp == 2
        assert (await writer.write(2 * WIDE, bytes(WIDE), awid=0)).resp == 2
        memory.bad = 1 << 33
        assert not (await reader.read(2 * WIDE, WIDE, arid=0)).resp


@cocotb.test()
async def a_long_read_takes_a_cycle_a_beat(dut: Any) -> None:
    _, _, reader, _ = await prepare(dut, 0)
    beats = 256
    taken: list[int] = []

    async def watch() -> None:
        while len(taken) < beats:
            await RisingEdge(dut.clk)
            if int(dut.wide__rvalid.value) and int(dut.wide__rready.value):
                taken.append(cycle())

    watching = cocotb.start_soon(watch())
    await reader.read(0, beats * WIDE, arid=0)
    await watching
    gaps = taken[-1] - taken[0] - (beats - 1)
    bursts = max(1, beats * WIDE // 4096)
    assert gaps <= 2 * (bursts - 1), gaps  # the model of the memory rests between bursts, the stripe does not
