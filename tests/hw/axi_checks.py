"""AXI4 protocol checkers for benches, and the way to put cocotbext-axi models on buses that have no ids."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from cocotb.types import LogicArray
from cocotbext.axi import AxiReadBus, AxiWriteBus
from streams import cycle

BOUNDARY = 4096
INCR = 1


def stalls(rng: random.Random, probability: float) -> Iterator[bool]:
    """For ``set_pause_generator`` of a cocotbext-axi channel: paused with ``probability`` in each cycle."""
    while True:
        yield rng.random() < probability


class _Id:
    """Stands for an id signal of one bit that no one looks at."""

    def __init__(self) -> None:
        self.value = LogicArray("0")

    def __len__(self) -> int:
        return 1

    def setimmediatevalue(self, value: LogicArray) -> None:
        self.value = value


class _WithIds:
    """``dut`` plus id signals, which the models of cocotbext-axi cannot do without."""

    def __init__(self, dut: Any, names: list[str]) -> None:
        self._dut = dut
        self._ids = {name: _Id() for name in names}

    def __getattr__(self, name: str) -> Any:
        return self._ids[name] if name in self._ids else getattr(self._dut, name)

    def __dir__(self) -> list[str]:
        return [*dir(self._dut), *self._ids]


def read_bus(dut: Any, prefix: str) -> AxiReadBus:
    """The read channels ``prefix__ar…``, ``prefix__r…`` for cocotbext-axi."""
    return AxiReadBus.from_prefix(_WithIds(dut, [f"{prefix}__arid", f"{prefix}__rid"]), f"{prefix}_")


def write_bus(dut: Any, prefix: str) -> AxiWriteBus:
    """The write channels ``prefix__aw…``, ``prefix__w…``, ``prefix__b…`` for cocotbext-axi."""
    return AxiWriteBus.from_prefix(_WithIds(dut, [f"{prefix}__awid", f"{prefix}__bid"]), f"{prefix}_")


class _Channel:
    """One channel: ``poll`` once a cycle gives the payload that is transferred, or None; checks that it is held."""

    def __init__(self, dut: Any, prefix: str, channel: str, payload: tuple[str, ...]) -> None:
        self.name = f"{prefix}__{channel}"
        self.valid = getattr(dut, f"{self.name}valid")
        self._ready = getattr(dut, f"{self.name}ready")
        self._payload = [getattr(dut, f"{prefix}__{name}") for name in payload]
        self._offered: list[int] | None = None

    def poll(self) -> list[int] | None:
        if not int(self.valid.value):
            assert self._offered is None, f"{self.name}: valid fell before ready"
            return None
        payload = [int(handle.value) for handle in self._payload]
        assert self._offered in (None, payload), f"{self.name}: payload changed before ready"
        taken = int(self._ready.value)
        self._offered = None if taken else payload
        return payload if taken else None


class _Checker:
    """What read and write have in common: legal bursts."""

    def __init__(self, dut: Any, prefix: str, outstanding: int, max_beats: int) -> None:
        self._clock = dut.clk
        self._outstanding = outstanding
        self._max_beats = max_beats
        self.in_flight = 0  # bursts
        self.bursts: list[tuple[int, int]] = []  # address and beats of each

    def _address(self, name: str, width_bytes: int, address: int, length: int, size: int, burst: int) -> int:
        beats = length + 1
        where = f"{name} {address:#x}, {beats} beats"
        assert 1 << size == width_bytes, f"{where}: size {size} is not the data width"
        assert burst == INCR, f"{where}: burst type {burst}"
        assert address % width_bytes == 0, f"{where}: not at the start of a beat"
        assert beats <= self._max_beats, f"{where}: longer than {self._max_beats}"
        assert address % BOUNDARY + beats * width_bytes <= BOUNDARY, f"{where}: crosses 4 KiB"
        self.in_flight += 1
        assert self.in_flight <= self._outstanding, f"{where}: more than {self._outstanding} bursts in flight"
        self.bursts.append((address, beats))
        return beats


class ReadChecker(_Checker):
    """Watches the read channels ``prefix``; breaking the protocol on either side fails the test.

    ``bursts`` holds (address, beats) of each burst, ``times`` the cycle of each R beat.
    """

    def __init__(self, dut: Any, prefix: str, *, outstanding: int, max_beats: int = 256) -> None:
        super().__init__(dut, prefix, outstanding, max_beats)
        self._ar = _Channel(dut, prefix, "ar", ("araddr", "arlen", "arsize", "arburst"))
        self._r = _Channel(dut, prefix, "r", ("rlast",))
        self._width_bytes = len(getattr(dut, f"{prefix}__rdata")) // 8
        self.times: list[int] = []
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        edge = RisingEdge(self._clock)
        due: deque[int] = deque()  # beats left of each burst
        while True:
            await edge
            data = self._r.poll()
            if data is not None:
                assert due, "R beat that no one asked for"
                due[0] -= 1
                assert data[0] == (due[0] == 0), "RLAST at the wrong beat"
                self.times.append(cycle())
                if not due[0]:
                    due.popleft()
            address = self._ar.poll()
            if address is not None:
                due.append(self._address("AR", self._width_bytes, *address))
            self.in_flight = len(due)


class WriteChecker(_Checker):
    """Watches the write channels ``prefix``; breaking the protocol on either side fails the test.

    ``bursts`` holds (address, beats) of each burst.
    """

    def __init__(self, dut: Any, prefix: str, *, outstanding: int, max_beats: int = 256) -> None:
        super().__init__(dut, prefix, outstanding, max_beats)
        self._aw = _Channel(dut, prefix, "aw", ("awaddr", "awlen", "awsize", "awburst"))
        self._w = _Channel(dut, prefix, "w", ("wlast", "wstrb", "wdata"))
        self._b = _Channel(dut, prefix, "b", ("bresp",))
        self._width_bytes = len(getattr(dut, f"{prefix}__wdata")) // 8
        cocotb.start_soon(self._run())

    async def _run(self) -> None:
        edge = RisingEdge(self._clock)
        asked: deque[int] = deque()  # lengths of bursts by AW, and by WLAST, not compared yet
        written: deque[int] = deque()
        beats = answerable = 0
        while True:
            await edge
            if self._b.poll() is not None:
                assert answerable, "B without a finished burst"
                answerable -= 1
                self.in_flight -= 1
            data = self._w.poll()
            if data is not None:
                beats += 1
                if data[0]:
                    written.append(beats)
                    beats = 0
            address = self._aw.poll()
            if address is not None:
                asked.append(self._address("AW", self._width_bytes, *address))
            while asked and written:
                length, sent = asked.popleft(), written.popleft()
                assert length == sent, f"burst of {length} beats got WLAST at beat {sent}"
                answerable += 1
            assert not asked or beats < asked[0], "WLAST is missing"
