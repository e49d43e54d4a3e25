"""Random reads and writes of all memories, all ports at once, against plain lists of elements."""

from __future__ import annotations

import dataclasses
import json
import os
import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from streams import seeded, start

from sterna.spec.config import HardwareConfig

CONFIG = HardwareConfig(**json.loads(os.environ["STERNA_TEST_CONFIG"]))
CYCLES = 6000


@dataclasses.dataclass(frozen=True)
class Port:
    """A port and the elements that one address of it covers."""

    name: str
    elements: int


@dataclasses.dataclass(frozen=True)
class Case:
    """A memory: depth in elements, bits of an element, the write port, the read ports (one physical port)."""

    name: str
    depth: int
    bits: int
    write: Port
    reads: tuple[Port, ...]


WIDTH = CONFIG.vector_width
CASES = [
    Case(
        "vector", CONFIG.vector_depth, 24, Port("element_write", 1), (Port("element_read", 1), Port("row_read", WIDTH))
    ),
    Case("state", CONFIG.state_depth, 24, Port("write", 1), (Port("read", 1),)),
    Case(
        "parameter",
        CONFIG.param_depth,
        16,
        Port("word_write", CONFIG.word_bytes // 2),
        (Port("element_read", 1), Port("row_read", WIDTH)),
    ),
    Case(
        "activation",
        CONFIG.activation_depth,
        8,
        Port("write", WIDTH * CONFIG.clusters),
        (Port("read", CONFIG.word_bytes),),
    ),
]


class Model:
    """One memory: drives its ports every cycle and knows what they must show."""

    def __init__(self, dut: Any, case: Case, rng: random.Random) -> None:
        self._dut, self._case, self._rng = dut, case, rng
        self._elements = [0] * case.depth
        self._pending: tuple[Port, int] | None = None  # the read that the next edge samples
        self._write: tuple[int, list[int]] | None = None
        self._shown: dict[str, int] = {}
        self.checks = 0

    def _signal(self, port: Port, field: str) -> Any:
        return getattr(self._dut, f"{self._case.name}__{port.name}__{field}")

    def _pack(self, elements: list[int]) -> int:
        return sum(element << number * self._case.bits for number, element in enumerate(elements))

    def after_edge(self) -> None:
        """The edge has sampled what was driven: a read sees what was there before the write."""
        if self._pending:
            port, address = self._pending
            self._shown.clear()  # the other port shares the physical one
            at = address * port.elements
            self._shown[port.name] = self._pack(self._elements[at : at + port.elements])
        if self._write:
            at, values = self._write
            self._elements[at : at + len(values)] = values

    def check(self) -> None:
        """Values before an edge: data of the last read, held."""
        for port in self._case.reads:
            if port.name in self._shown:
                got = int(self._signal(port, "data").value)
                assert got == self._shown[port.name], (
                    f"{self._case.name}.{port.name}: {got:#x}, not {self._shown[port.name]:#x}"
                )
                self.checks += 1

    def drive(self, writing: float, reading: float) -> None:
        """Choose the ports' inputs for the next edge; addresses and data are random even when not enabled."""
        rng, case = self._rng, self._case
        count = case.write.elements
        address = rng.randrange(case.depth // count)
        values = [rng.choice([0, (1 << case.bits) - 1, rng.getrandbits(case.bits)]) for _ in range(count)]
        self._write = (address * count, values) if rng.random() < writing else None
        self._signal(case.write, "enable").value = int(self._write is not None)
        self._signal(case.write, "address").value = address
        self._signal(case.write, "data").value = self._pack(values)

        chosen = rng.choice(case.reads) if rng.random() < reading else None
        self._pending = None
        for port in case.reads:
            address = rng.randrange(case.depth // port.elements)
            if self._write and rng.random() < 0.3:  # the place that is written
                address = self._write[0] // port.elements
            self._signal(port, "enable").value = int(port is chosen)
            self._signal(port, "address").value = address
            if port is chosen:
                self._pending = port, address


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(writing=[0.1, 0.9], reading=[0.2, 1.0])
async def random_traffic(dut: Any, writing: float, reading: float) -> None:
    models = [Model(dut, case, seeded(dut, f"{case.name}/{writing}/{reading}")) for case in CASES]
    for case in CASES:
        for port in (case.write, *case.reads):
            getattr(dut, f"{case.name}__{port.name}__enable").value = 0
    await start(dut)
    edge = RisingEdge(dut.clk)
    # Memories are not cleared by reset: write everything before the first check.
    for address in range(max(case.depth for case in CASES)):
        for model, case in zip(models, CASES, strict=True):
            model.drive(1.0, 0.0)
            count = case.write.elements
            at = address % (case.depth // count)
            getattr(dut, f"{case.name}__{case.write.name}__address").value = at
            model._write = (at * count, model._write[1])
        await edge
        for model in models:
            model.after_edge()
    for _ in range(CYCLES):
        for model in models:
            model.drive(writing, reading)
        await edge
        for model in models:
            model.check()
            model.after_edge()
    assert all(model.checks > CYCLES // 10 for model in models)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def elements_go_before_rows(dut: Any) -> None:
    """Not for use, but defined: both ports enabled, the element is read."""
    rng = seeded(dut)
    for case in CASES:
        for port in (case.write, *case.reads):
            getattr(dut, f"{case.name}__{port.name}__enable").value = 0
    await start(dut)
    for case in (CASES[0], CASES[2]):
        write = f"{case.name}__{case.write.name}"
        count = case.write.elements
        image = [rng.getrandbits(case.bits) for _ in range(case.depth)]
        getattr(dut, f"{write}__enable").value = 1
        for address in range(case.depth // count):
            packed = sum(value << number * case.bits for number, value in enumerate(image[address * count :][:count]))
            getattr(dut, f"{write}__address").value = address
            getattr(dut, f"{write}__data").value = packed
            await RisingEdge(dut.clk)
        getattr(dut, f"{write}__enable").value = 0
        for _ in range(50):
            address = rng.randrange(case.depth)
            getattr(dut, f"{case.name}__element_read__address").value = address
            getattr(dut, f"{case.name}__row_read__address").value = rng.randrange(case.depth // WIDTH)
            for port in case.reads:
                getattr(dut, f"{case.name}__{port.name}__enable").value = 1
            await RisingEdge(dut.clk)
            for port in case.reads:
                getattr(dut, f"{case.name}__{port.name}__enable").value = 0
            await RisingEdge(dut.clk)
            assert int(getattr(dut, f"{case.name}__element_read__data").value) == image[address]
