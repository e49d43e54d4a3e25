"""Benches of System: two hosts, a memory, and a model with its golden logits from a file (see test_system)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from axi_checks import ReadChecker, WriteChecker, read_bus, stalls, write_bus
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiRamRead, AxiRamWrite
from link_host import BOARD, BUSY, CORE, DESCRIPTION, MEMORY, OK, READ, Host
from streams import seeded, start

from sterna.spec.registers import OFFSET, Control, ErrorCause, Status

CASE = json.loads(Path(os.environ["CASE"]).read_text())
SIZE = int(os.environ["MEMORY_BYTES"])


class Bench:
    """A system with a model in its memory."""

    def __init__(self, dut: Any) -> None:
        self.rng = seeded(dut)
        self.dut = dut
        for name in ("overflow", "memory_failed", "control__ack", "rx1__valid", "tx1__ready"):
            getattr(dut, name).value = 0
        dut.memory_locked.value = dut.memory_ready.value = 1
        self.memory = AxiRamWrite(write_bus(dut, "bus"), dut.clk, size=SIZE)
        self.read_memory = AxiRamRead(read_bus(dut, "bus"), dut.clk, mem=self.memory.mem)
        for model in (self.memory, self.read_memory):
            model.log.setLevel("ERROR")
        ReadChecker(dut, "bus", outstanding=4)
        WriteChecker(dut, "bus", outstanding=16)
        self.hosts = [Host(dut, self.rng, received=f"rx{i}", sent=f"tx{i}") for i in range(2)]

    async def load(self, host: Host) -> None:
        for address, contents in CASE["segments"]:
            data = bytes.fromhex(contents)
            for begin in range(0, len(data), 1024):
                await host.write(MEMORY, address + begin, data[begin : begin + 1024])
        for name, value in CASE["registers"].items():
            await host.write_register(CORE, OFFSET[name], value)

    async def begin(self, host: Host, token: int, *, fresh: bool) -> None:
        await host.write_register(CORE, OFFSET["TOKEN"], token)
        flags = Control.START | Control.LOGITS | (Control.FRESH if fresh else 0)
        await host.write_register(CORE, OFFSET["CONTROL"], flags)

    async def end(self, host: Host) -> Status:
        for _ in range(2000):
            status = Status(await host.read_register(CORE, OFFSET["STATUS"]))
            if not status & Status.BUSY:
                return status
        raise AssertionError("the token does not end")

    async def logits(self, host: Host) -> bytes:
        return await host.read(MEMORY, CASE["registers"]["LOGITS_ADDRESS"], 4 * CASE["registers"]["VOCABULARY"])


async def prepare(dut: Any, stall: float = 0.0) -> Bench:
    bench = Bench(dut)
    await start(dut, limit=1_000_000)
    if stall:
        for channel in (bench.read_memory.ar_channel, bench.read_memory.r_channel, bench.memory.b_channel):
            channel.set_pause_generator(stalls(bench.rng, stall))
    return bench


@cocotb.test()
async def identity(dut: Any) -> None:
    """Who it is can be read on either link, and the answer comes on the link that asked."""
    bench = await prepare(dut)
    for host in (*bench.hosts, bench.hosts[0]):
        await host.sync()
        assert await host.read_register(CORE, OFFSET["CONFIG_HASH"]) == CASE["config_hash"]
        words = await host.read(BOARD, 8, 16)
        assert int.from_bytes(words, "little") == int(CASE["build_id"], 16)
        wanted = bytes.fromhex(CASE["description"])
        length = int.from_bytes(await host.read(DESCRIPTION, 0, 4), "little")
        assert (await host.read(DESCRIPTION, 4, length + 3 & ~3))[:length] == wanted
        assert int(dut.activity.value)


@cocotb.test()
async def tokens(dut: Any) -> None:
    """Logits and choice equal golden's; the memory is closed to the host while a token runs, registers are not."""
    bench = await prepare(dut)
    host = bench.hosts[0]
    await host.sync()
    await bench.load(host)
    for i, (token, wanted) in enumerate(zip(CASE["tokens"], CASE["logits"], strict=True)):
        await bench.begin(host, token, fresh=i == 0)
        assert int(dut.busy.value)
        while int(dut.busy.value):  # at every turn of the token, whether its bus rests or not
            reply = await host.call(READ, MEMORY, 0, 4)
            assert reply == (BUSY, b"") or not int(dut.busy.value)
        assert await bench.end(host) == Status.DONE
        assert not int(dut.busy.value)
        logits = await bench.logits(host)
        assert logits == bytes.fromhex(wanted)
        values = [int.from_bytes(logits[at : at + 4], "little", signed=True) for at in range(0, len(logits), 4)]
        assert await host.read_register(CORE, OFFSET["SAMPLED"]) == values.index(max(values))


@cocotb.test()
async def abandoned(dut: Any) -> None:
    """After a reset in the middle of a token, and after an error, the memory comes back to the host, unharmed."""
    bench = await prepare(dut, 0.7)
    host = bench.hosts[1]
    await host.sync()
    await bench.load(host)
    before = bench.memory.read(0, CASE["registers"]["LOGITS_ADDRESS"])

    async def read_when_free() -> None:
        for _ in range(200):
            status, data = await host.call(READ, MEMORY, 0, 256)
            assert status in (OK, BUSY)
            if status == OK:
                assert data == before[:256]
                return
        raise AssertionError("the memory stays closed")

    for _ in range(6):
        await bench.begin(host, CASE["tokens"][0], fresh=True)
        await ClockCycles(dut.clk, bench.rng.randint(1, 400))
        await host.write_register(CORE, OFFSET["CONTROL"], Control.RESET)
        await read_when_free()
    await host.write(MEMORY, 0, bytes([0xFF]))  # no opcode
    for _ in range(3):
        await bench.begin(host, CASE["tokens"][0], fresh=True)
        while not Status(await host.read_register(CORE, OFFSET["STATUS"])) & Status.ERROR:
            pass
        status, data = await host.call(READ, MEMORY, 0, 16)
        assert (status, data) == (BUSY, b"") or (status == OK and data[1:] == before[1:16])
        assert await host.read_register(CORE, OFFSET["ERROR_CAUSE"]) == ErrorCause.BAD_OPCODE
        await host.write_register(CORE, OFFSET["CONTROL"], Control.RESET)
        await bench.end(host)
    await host.write(MEMORY, 0, before[:1])
    assert bench.memory.read(0, len(before)) == before
    await bench.begin(host, CASE["tokens"][0], fresh=True)
    assert await bench.end(host) == Status.DONE
    assert await bench.logits(host) == bytes.fromhex(CASE["logits"][0])
