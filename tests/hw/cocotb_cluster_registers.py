"""Bench of ``ClusterRegisters``: subordinates that stall on their own behind it, a host that stalls before it."""

from __future__ import annotations

from typing import Any

import cocotb
from axi_checks import stalls
from cocotb.triggers import with_timeout
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiLiteRam
from streams import seeded, start

from sterna.spec.config import preset
from sterna.spec.registers import OFFSET, REGISTER_SPACE_BITS, REGISTERS, ErrorCause, Status

COUNT = preset("sim-tiny-c4").clusters
MASK = (1 << 32) - 1
MERGED = ("STATUS", "ERROR_CAUSE", "SATURATIONS", "SAMPLED")


class Bench:
    """A host, and a memory of registers for each cluster."""

    def __init__(self, dut: Any, stall: float) -> None:
        self.dut, self.rng = dut, seeded(dut, stall)
        space = 1 << REGISTER_SPACE_BITS
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "bus_"), dut.clk)
        buses = [AxiLiteBus.from_prefix(dut, f"clusters__{number}_") for number in range(COUNT)]
        self.clusters = [AxiLiteRam(bus, dut.clk, size=space) for bus in buses]
        for end in (self.host, *self.clusters):
            for interface in (end.read_if, end.write_if):
                interface.log.setLevel("WARNING")
            channels = (end.write_if.aw_channel, end.write_if.w_channel, end.write_if.b_channel)
            for channel in (*channels, end.read_if.ar_channel, end.read_if.r_channel):
                channel.set_pause_generator(stalls(self.rng, stall))

    async def begin(self) -> None:
        for name in ("awvalid", "wvalid", "bready", "arvalid", "rready"):
            getattr(self.dut, f"bus__{name}").value = 0
        await start(self.dut, limit=200_000)

    async def read(self, name: str) -> int:
        answer = await with_timeout(self.host.read(OFFSET[name], 4), 20, "us")
        return int.from_bytes(answer.data, "little")

    def hold(self, name: str, values: list[int]) -> None:
        """What the register reads as, in each cluster."""
        for cluster, value in zip(self.clusters, values, strict=True):
            cluster.write(OFFSET[name], value.to_bytes(4, "little"))

    def score(self, largest: list[int], counted: list[int]) -> None:
        self.dut.largest.value = sum((value & 0xFFFFFF) << 24 * number for number, value in enumerate(largest))
        self.dut.counted.value = sum(value << 32 * number for number, value in enumerate(counted))


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.4])
async def answers_are_put_together(dut: Any, stall: float) -> None:
    bench = Bench(dut, stall)
    await bench.begin()
    rng = bench.rng
    for _ in range(60):
        status = [rng.randrange(8) for _ in range(COUNT)]
        bench.hold("STATUS", status)
        either, both = Status(0), Status(7)
        for value in status:
            either, both = either | value, both & value
        assert await bench.read("STATUS") == either & (Status.BUSY | Status.ERROR) | both & Status.DONE

        causes = [rng.choice((0, 0, *ErrorCause)) for _ in range(COUNT)]
        bench.hold("ERROR_CAUSE", causes)
        assert await bench.read("ERROR_CAUSE") == next(filter(None, causes), 0)

        saturations = [rng.getrandbits(rng.randint(1, 32)) for _ in range(COUNT)]
        bench.hold("SATURATIONS", saturations)
        assert await bench.read("SATURATIONS") == sum(saturations) & MASK

        rows = rng.choice((1, 7, 80_000))
        largest = [rng.choice((-(1 << 23), -1, 0, 5, (1 << 23) - 1)) for _ in range(COUNT)]
        own = [rng.randrange(rows) for _ in range(COUNT)]
        bench.score(largest, [rows] * COUNT)
        bench.hold("SAMPLED", own)
        best = largest.index(max(largest))  # the lowest on ties
        assert await bench.read("SAMPLED") == best * rows + own[best]


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.4])
async def other_registers_are_those_of_the_first(dut: Any, stall: float) -> None:
    """Reads that nothing is merged for, and writes, of any bytes and more than one at a time."""
    bench = Bench(dut, stall)
    await bench.begin()
    rng = bench.rng
    others = [register.name for register in REGISTERS if register.name not in MERGED]
    for name in rng.sample(others, 20):
        held = [rng.getrandbits(32) for _ in range(COUNT)]
        bench.hold(name, held)
        assert await bench.read(name) == held[0]
    for _ in range(20):
        names = rng.sample(others, 3)
        values = [rng.randbytes(rng.randint(1, 4)) for _ in names]
        tasks = [cocotb.start_soon(bench.host.write(OFFSET[n], v)) for n, v in zip(names, values, strict=True)]
        for task in tasks:
            assert int((await with_timeout(task, 20, "us")).resp) == 0
        for name, value in zip(names, values, strict=True):
            assert all(cluster.read(OFFSET[name], len(value)) == value for cluster in bench.clusters)
        reads = [cocotb.start_soon(bench.read(name)) for name in names]
        for name, task in zip(names, reads, strict=True):
            assert (await task).to_bytes(4, "little") == bench.clusters[0].read(OFFSET[name], 4)
