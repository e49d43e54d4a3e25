"""Model of a ULPI transceiver in a USB device (ULPI 1.1), driven by a model of the host.

Packets cross as lists of bytes from PID to CRC. Times are cycles of the 60 MHz clock. What the link may not do fails
the test: a command that the PHY does not know, one that changes before it is taken, a packet that ends in an error.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, Event, First, RisingEdge, ValueChange
from cocotb.utils import get_sim_time

PERIOD_PS = 16_666
FUNCTION_CONTROL, OTG_CONTROL = 0x04, 0x0A
SE0, J, K = 0, 1, 2
CHIRPING = 2  # operating mode without bit stuffing
SYNC = 4  # cycles of a synchronisation pattern before a packet at high speed
CYCLES_PER_BYTE = {True: 1, False: 40}  # at high speed, at full speed


def now() -> float:
    """Cycles of the PHY's clock since the start of the simulation."""
    return float(get_sim_time("ps")) / PERIOD_PS


class UlpiPhy:
    """The PHY behind the ports ``ulpi__*`` and ``usb_clk`` of the device under test."""

    def __init__(self, dut: Any, rng: random.Random) -> None:
        self._dut, self._rng = dut, rng
        self._edge = RisingEdge(dut.usb_clk)
        self.registers = {FUNCTION_CONTROL: 0x41, OTG_CONTROL: 0x06}
        self.driven: int | None = None  # line state that the host drives
        self.plugged = False
        self._reported: int | None = None
        self._events: deque[list[int] | None] = deque()  # packets to receive; None: a change of the lines to report
        self._wake = Event()
        self.sent: deque[list[int]] = deque()  # packets of the device
        self.started, self.transmitted = Event(), Event()  # of a packet of the device
        self.transmitting = False
        self.ended = 0.0  # when the last packet to the device was over
        self.decision = 0  # most cycles from then to the device's answer
        self.received = Event()  # the last packet to the device is over
        self.chirps: list[tuple[float, float]] = []  # start and end of what the device drove in chirp mode
        self.stalls = True  # of NXT while the device transmits, and gaps while it receives
        for name in ("dir", "nxt", "data_i"):
            getattr(dut, f"ulpi__{name}").value = 0
        cocotb.start_soon(self._run())

    @property
    def high_speed(self) -> bool:
        """The transceiver is set to high speed, and the terminations too."""
        return self.registers[FUNCTION_CONTROL] & 0b111 == 0b000

    @property
    def mode(self) -> int:
        """Operating mode that the device has set."""
        return self.registers[FUNCTION_CONTROL] >> 3 & 3

    @property
    def lines(self) -> int:
        """Line state: what the host drives, else the pull-up of the device."""
        pulled_up = self.registers[FUNCTION_CONTROL] & 0b111 == 0b101 and self.plugged
        return self.driven if self.driven is not None else (J if pulled_up else SE0)

    def drive(self, state: int | None) -> None:
        """Let the host drive ``state``, or nothing."""
        self.driven = state
        self._report()

    def plug(self) -> None:
        """Put the cable in: VBUS is valid from now on."""
        self.plugged = True
        self._report()

    def unplug(self) -> None:
        """Pull the cable out."""
        self.plugged = False
        self._report()

    async def receive(self, packet: list[int]) -> None:
        """Let the device receive ``packet``; returns at its end on the bus."""
        self.received.clear()
        self._events.append(packet)
        self._wake.set()
        await self.received.wait()

    def _report(self) -> None:
        status = self._status()
        if status != self._reported:
            self._reported = status
            self._events.append(None)
            self._wake.set()

    def _status(self, lines: int | None = None, *, active: bool = False) -> int:
        """An RXCMD."""
        return (self.lines if lines is None else lines) | 0b1100 * self.plugged | 0b010000 * active | 0b1000000

    def _drive(self, *, direction: int, nxt: int = 0, data: int = 0) -> None:
        self._dut.ulpi__dir.value, self._dut.ulpi__nxt.value, self._dut.ulpi__data_i.value = direction, nxt, data

    async def _run(self) -> None:
        data, oe = self._dut.ulpi__data_o, self._dut.ulpi__data_oe
        while True:
            await self._edge
            assert int(oe.value), "the link does not drive the bus while DIR is low"
            if self._events:
                event = self._events.popleft()
                await (self._rxcmd() if event is None else self._receive(event))
            elif int(data.value):
                await self._command(int(data.value))
            else:
                self._wake.clear()
                await First(ValueChange(data), self._wake.wait())

    async def _rxcmd(self) -> None:
        self._drive(direction=1)
        await self._edge
        self._drive(direction=1, data=self._status())
        await self._edge
        await self._release()

    async def _release(self) -> None:
        self._drive(direction=0)
        await self._edge

    async def _receive(self, packet: list[int]) -> None:
        """A packet for the device, started and ended in one of the ways that ULPI allows."""
        high, between = self.high_speed, CYCLES_PER_BYTE[self.high_speed]
        busy = J if high else K  # a squelched bus reads as SE0, a busy one at high speed as J
        self._drive(direction=1)
        await self._edge
        self._drive(direction=1, data=self._status(busy))
        await ClockCycles(self._dut.usb_clk, SYNC * between - 1)
        if self._rng.random() < 0.5:
            self._drive(direction=1, data=self._status(busy, active=True))
            await ClockCycles(self._dut.usb_clk, 2)
        else:
            await self._release()
            self._drive(direction=1, nxt=1)
            await self._edge
        for byte in packet:
            self._drive(direction=1, nxt=1, data=byte)
            await self._edge
            gap = between - 1 + (high and self.stalls and self._rng.random() < 0.02)  # a stuffed byte's worth of bits
            if gap:
                self._drive(direction=1, data=self._status(busy, active=True))
                await ClockCycles(self._dut.usb_clk, gap)
        self.ended = now()
        self.received.set()
        if self._rng.random() < 0.5:
            self._drive(direction=1, data=self._status(SE0 if high else J))
            await self._edge
            await self._release()
        else:
            await self._release()
            await self._rxcmd()

    async def _command(self, command: int) -> None:
        kind = command >> 6
        if kind == 0b01:
            self.transmitting = True
            self.started.set()
            if self.mode != CHIRPING:
                self.decision = max(self.decision, round(now() - self.ended))
        for _ in range(self._rng.randrange(3) if self.stalls else 1):
            await self._edge
            assert int(self._dut.ulpi__data_o.value) == command, "a command changed before the PHY took it"
        self._drive(direction=0, nxt=1)
        await self._edge
        if kind == 0b01:
            await (self._chirp() if self.mode == CHIRPING else self._transmit(command & 0xF))
            self.transmitting = False
        else:
            assert kind == 0b10, f"the PHY does not know the command {command:#04x}"
            await self._write(command & 0x3F)

    async def _write(self, address: int) -> None:
        await self._edge
        value = int(self._dut.ulpi__data_o.value)
        self._drive(direction=0)
        await self._edge
        assert int(self._dut.ulpi__stp.value), "no STP after a register write"
        self.registers[address] = value
        self._report()

    async def _chirp(self) -> None:
        """The device drives a chirp: a constant K, reported when it is over."""
        start = now()
        await RisingEdge(self._dut.ulpi__stp)
        await self._edge
        self._drive(direction=0)
        self.chirps.append((start, now()))

    async def _transmit(self, pid: int) -> None:
        packet = [pid | (pid ^ 0xF) << 4]
        taken, between = False, CYCLES_PER_BYTE[self.high_speed]
        wait = SYNC * between
        self._drive(direction=0)
        while True:
            await self._edge
            if int(self._dut.ulpi__stp.value):
                break
            if taken:
                packet.append(int(self._dut.ulpi__data_o.value))
                wait = between - 1 + (between == 1 and self.stalls and self._rng.random() < 0.05)
            else:
                wait -= 1
            taken = wait <= 0
            self._drive(direction=0, nxt=int(taken))
        assert int(self._dut.ulpi__data_o.value) == 0, "a packet of the device ended in an error"
        self._drive(direction=0)
        self.sent.append(packet)
        self.transmitted.set()
        self._reported = None
        self._report()
