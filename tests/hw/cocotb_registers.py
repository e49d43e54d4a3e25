"""Benches of Registers against the table of the specification."""

from __future__ import annotations

import os
from typing import Any

import cocotb
from axi_checks import stalls
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly, RisingEdge, with_timeout
from cocotbext.axi import AxiLiteBus, AxiLiteMaster
from streams import seeded, start

from sterna.spec.registers import (
    MAGIC,
    OFFSET,
    REGISTER_SPACE_BITS,
    VERSION,
    Access,
    Stall,
    registers_of,
    stall_register,
)

REGISTERS = registers_of(int(os.environ["STERNA_SLOTS"]))
CONFIG_HASH = int(os.environ["CONFIG_HASH"])
# What the benches read there: constants, and counters that answer when they are asked for.
STALLS = {stall_register(stall): 0x5A110000 + stall for stall in Stall}
CONSTANTS = {"MAGIC": MAGIC, "VERSION": VERSION, "CONFIG_HASH": CONFIG_HASH, **STALLS}
WRITABLE = [register for register in REGISTERS if register.access is Access.RW and register.name != "CONTROL"]
READ_ONLY = [register for register in REGISTERS if register.access is Access.RO]
OKAY, SLVERR, DECERR = 0, 2, 3
UNMAPPED = sorted(set(range(0, 1 << REGISTER_SPACE_BITS, 4)) - {register.offset for register in REGISTERS})


async def prepare(dut: Any) -> Any:
    rng = seeded(dut)
    for name in ("awvalid", "wvalid", "bready", "arvalid", "rready"):
        getattr(dut, f"bus__{name}").value = 0
    cocotb.start_soon(show_stalls(dut))
    await start(dut, limit=200_000)
    return rng


async def show_stalls(dut: Any) -> None:
    """The counters: the answer comes in the cycle of the question."""
    while True:
        await FallingEdge(dut.clk)
        dut.stall_cycles.value = 0x5A110000 + int(dut.stall.value)


def master(dut: Any, rng: Any, stall: float) -> AxiLiteMaster:
    host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "bus_"), dut.clk)
    for interface in (host.read_if, host.write_if):
        interface.log.setLevel("WARNING")
    channels = (host.write_if.aw_channel, host.write_if.w_channel, host.write_if.b_channel)
    for channel in (*channels, host.read_if.ar_channel, host.read_if.r_channel):
        channel.set_pause_generator(stalls(rng, stall))
    return host


async def read(host: AxiLiteMaster, address: int) -> tuple[int, int]:
    answer = await with_timeout(host.read(address, 4), 10, "us")
    return int.from_bytes(answer.data, "little"), int(answer.resp)


async def write(host: AxiLiteMaster, address: int, data: bytes) -> int:
    return int((await with_timeout(host.write(address, data), 10, "us")).resp)


def port(dut: Any, name: str) -> Any:
    return getattr(dut, name.lower())


class Pulses:
    """Every cycle in which CONTROL is not zero."""

    def __init__(self, dut: Any) -> None:
        self._dut = dut
        self.seen: list[int] = []
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        edge = RisingEdge(self._dut.clk)
        while True:
            await edge
            if value := int(self._dut.control.value):
                self.seen.append(value)


@cocotb.test()
async def random_access(dut: Any) -> None:
    """Writes of any bytes, reads and answers of every address against a model, with stalls on every channel."""
    rng = await prepare(dut)
    host = master(dut, rng, 0.3)
    pulses = Pulses(dut)
    values = {register.name: 0 for register in WRITABLE}
    expected_pulses = []
    for register in READ_ONLY:
        assert register.name in CONSTANTS or int(port(dut, register.name).value) == 0
    for _ in range(400):
        register = rng.choice(REGISTERS)
        first = rng.randint(0, 3)
        data = rng.randbytes(rng.randint(1, 4 - first))
        match rng.choice(["write", "read", "input", "hole"]):
            case "write":
                answer = await write(host, register.offset + first, data)
                if register.access is Access.RO:
                    assert answer == SLVERR, register.name
                    continue
                assert answer == OKAY, register.name
                value = bytearray(values.get(register.name, 0).to_bytes(4, "little"))
                value[first : first + len(data)] = data
                if register.name == "CONTROL":
                    if any(value):
                        expected_pulses.append(int.from_bytes(value, "little"))
                else:
                    values[register.name] = int.from_bytes(value, "little")
            case "read":
                known = {**values, **CONSTANTS, "CONTROL": 0}
                if register.name not in known:
                    known[register.name] = int(port(dut, register.name).value)
                assert await read(host, register.offset) == (known[register.name], OKAY), register.name
            case "input":
                register = rng.choice(READ_ONLY)
                if register.name not in CONSTANTS:
                    port(dut, register.name).value = rng.getrandbits(32)
                    await RisingEdge(dut.clk)
            case "hole":
                address = rng.choice(UNMAPPED)
                assert await write(host, address, rng.randbytes(4)) == DECERR
                assert await read(host, address) == (0, DECERR)
        for name, value in values.items():
            assert int(port(dut, name).value) == value, name
    assert pulses.seen == expected_pulses


@cocotb.test()
async def every_register(dut: Any) -> None:
    """Each register by name; no write reaches another one, reset clears."""
    rng = await prepare(dut)
    host = master(dut, rng, 0)
    for register in READ_ONLY:
        if register.name not in CONSTANTS:
            port(dut, register.name).value = rng.getrandbits(32)
    await RisingEdge(dut.clk)
    for register in READ_ONLY:
        value = CONSTANTS.get(register.name)
        if value is None:
            value = int(port(dut, register.name).value)
        assert await read(host, register.offset) == (value, OKAY), register.name
    for number, register in enumerate(WRITABLE):
        assert await write(host, register.offset, (0xA5000000 + number).to_bytes(4, "little")) == OKAY
    for number, register in enumerate(WRITABLE):
        assert await read(host, register.offset) == (0xA5000000 + number, OKAY), register.name
        assert int(port(dut, register.name).value) == 0xA5000000 + number
    for address in UNMAPPED:
        assert await read(host, address) == (0, DECERR)
        assert await write(host, address, b"\xff\xff\xff\xff") == DECERR
    dut.rst.value = 1
    await ClockCycles(dut.clk, 2)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    assert all(int(port(dut, register.name).value) == 0 for register in WRITABLE)


@cocotb.test()
async def channel_order(dut: Any) -> None:
    """AW before W, W before AW, both at once; an answer that waits; latency and the pulse of CONTROL by the cycle."""
    rng = await prepare(dut)
    edge = RisingEdge(dut.clk)
    for turn in range(60):
        delays = {"aw": rng.choice([0, 0, 1, 3]), "w": rng.choice([0, 0, 1, 3])}
        patience = rng.choice([0, 1, 4])
        value, strobes = rng.getrandbits(32) | 1, rng.choice([15, 1, rng.randint(1, 15)])
        control = turn % 2 == 0
        expected = sum(value & 0xFF << 8 * i for i in range(4) if strobes >> i & 1)
        dut.bus__awaddr.value = OFFSET["CONTROL" if control else "TOKEN"]
        dut.bus__wdata.value, dut.bus__wstrb.value = value, strobes
        dut.bus__bready.value = 0
        token = int(dut.token.value)
        taken: dict[str, int] = {}
        answered = 0
        for now in range(40):
            for channel, delay in delays.items():
                getattr(dut, f"bus__{channel}valid").value = int(now >= delay and channel not in taken)
            if answered:
                dut.bus__bready.value = int(now > answered + patience)
            await ReadOnly()
            if not control:
                kept = sum(token & 0xFF << 8 * i for i in range(4) if not strobes >> i & 1)
                done = len(taken) == 2 and now >= max(taken.values()) + 2
                assert int(dut.token.value) == (expected | kept if done else token), f"turn {turn}"
            pulse = len(taken) == 2 and now == max(taken.values()) + 2
            assert int(dut.control.value) == (expected if control and pulse else 0), f"turn {turn}"
            if int(dut.bus__bvalid.value):
                assert len(taken) == 2, "an answer before the write is complete"
                answered = answered or now
                assert answered == max(taken.values()) + 2
                assert int(dut.bus__bresp.value) == OKAY
                if int(dut.bus__bready.value):
                    await edge
                    break
            else:
                assert not answered, "bvalid fell before bready"
            for channel in delays:
                if int(getattr(dut, f"bus__{channel}valid").value) and int(getattr(dut, f"bus__{channel}ready").value):
                    taken[channel] = now
            await edge
        else:
            raise AssertionError(f"turn {turn}: no answer")


@cocotb.test()
async def reads_wait(dut: Any) -> None:
    """Read data is stable until rready, also while the register changes; latency by the cycle."""
    rng = await prepare(dut)
    edge = RisingEdge(dut.clk)
    for _ in range(20):
        value = rng.getrandbits(32)
        dut.status.value = value
        dut.bus__araddr.value, dut.bus__arvalid.value, dut.bus__rready.value = OFFSET["STATUS"], 1, 0
        await edge
        assert int(dut.bus__arready.value)
        dut.bus__arvalid.value = 0
        await edge
        assert not int(dut.bus__rvalid.value)
        for _ in range(rng.randint(1, 6)):
            dut.status.value = rng.getrandbits(32)
            await edge
            assert int(dut.bus__rvalid.value)
            assert (int(dut.bus__rdata.value), int(dut.bus__rresp.value)) == (value, OKAY)
        dut.bus__rready.value = 1
        await edge
        dut.bus__rready.value = 0
        await edge
        assert not int(dut.bus__rvalid.value)


@cocotb.test()
async def requests_behind_an_answer(dut: Any) -> None:
    """A second write and read wait while the answers of the first are not taken; then each is answered once."""
    rng = await prepare(dut)
    edge = RisingEdge(dut.clk)
    for turn in range(10):
        first, second = rng.getrandbits(32), rng.getrandbits(32)
        dut.status.value, dut.sampled.value = first, second
        dut.bus__wstrb.value = 15
        dut.bus__bready.value = dut.bus__rready.value = 0
        # The first write is fine and the second is not: their answers differ.
        for name, write_to, value in (("STATUS", "TOKEN", first), ("SAMPLED", "MAGIC", second)):
            dut.bus__araddr.value, dut.bus__awaddr.value, dut.bus__wdata.value = OFFSET[name], OFFSET[write_to], value
            dut.bus__awvalid.value = dut.bus__wvalid.value = dut.bus__arvalid.value = 1
            await edge
            assert int(dut.bus__awready.value) and int(dut.bus__wready.value) and int(dut.bus__arready.value)
            dut.bus__awvalid.value = dut.bus__wvalid.value = dut.bus__arvalid.value = 0
            await ClockCycles(dut.clk, rng.randint(2, 5))
        for data, answer in ((first, OKAY), (second, SLVERR)):
            assert int(dut.bus__bvalid.value) and int(dut.bus__rvalid.value), f"turn {turn}"
            assert (int(dut.bus__bresp.value), int(dut.bus__rdata.value)) == (answer, data), f"turn {turn}"
            dut.bus__bready.value = dut.bus__rready.value = 1
            await edge
            dut.bus__bready.value = dut.bus__rready.value = 0
            await ClockCycles(dut.clk, 4)
        assert not int(dut.bus__bvalid.value) and not int(dut.bus__rvalid.value), f"turn {turn}"
        assert int(dut.token.value) == first
