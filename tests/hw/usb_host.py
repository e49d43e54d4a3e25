"""Model of a USB 2.0 host with one device: frames, transactions, control transfers, and faults on request.

CRCs are computed bit by bit here, from the polynomials of the standard, independent of the gateware.
"""

from __future__ import annotations

import random
from typing import Any

from cocotb.triggers import ClockCycles, First
from ulpi_phy import CYCLES_PER_BYTE, SE0, SYNC, J, K, UlpiPhy, now

OUT, IN, SOF, SETUP, PING = 0x1, 0x9, 0x5, 0xD, 0x4
DATA = (0x3, 0xB)
ACK, NAK, STALL, NYET = 0x2, 0xA, 0xE, 0x6
MICROFRAME, FRAME = 7_500, 60_000  # cycles of 60 MHz
GAP = 11  # cycles between two packets of the host at high speed: 88 bits
TIMEOUT = {True: 92 + 16, False: 80 + 1000}  # cycles: 736 and 16 bits, with what a PHY adds
TRIES = 3
LANGUAGE = 0x0409


def crc(bits: list[int], width: int, polynomial: int) -> int:
    """Of ``bits`` in the order sent, ones before, inverted; the first bit of the CRC to be sent is the lowest."""
    register = mask = (1 << width) - 1
    for bit in bits:
        feedback = register >> (width - 1) ^ bit
        register = register << 1 & mask ^ (polynomial if feedback else 0)
    return int(f"{register ^ mask:0{width}b}"[::-1], 2)


def _bits(value: int, count: int) -> list[int]:
    return [value >> i & 1 for i in range(count)]


def with_pid(pid: int, rest: list[int] | tuple[int, ...] = ()) -> list[int]:
    """A packet: PID, its complement, and the rest."""
    return [pid | (pid ^ 0xF) << 4, *rest]


def token(pid: int, fields: int) -> list[int]:
    """A token or start of frame with its eleven bits of ``fields``."""
    word = fields | crc(_bits(fields, 11), 5, 0b00101) << 11
    return with_pid(pid, [word & 0xFF, word >> 8])


def data_crc(payload: bytes) -> bytes:
    """CRC-16 of a data packet as sent."""
    return crc([bit for byte in payload for bit in _bits(byte, 8)], 16, 0x8005).to_bytes(2, "little")


def data_packet(toggle: int, payload: bytes) -> list[int]:
    """DATA0 or DATA1."""
    return with_pid(DATA[toggle], [*payload, *data_crc(payload)])


class Stalled(Exception):
    """The device answered STALL."""


class UsbHost:
    """A host whose only device is behind ``phy``. Counts what the device answered in ``answers``."""

    def __init__(self, dut: Any, phy: UlpiPhy, rng: random.Random) -> None:
        self._clock, self.phy, self._rng = dut.usb_clk, phy, rng
        self.address, self.frame = 0, 0
        self._next_frame = 0.0
        self.high_speed = False
        self.toggles: dict[int, int] = {}
        self.pinging = False  # the last OUT was not taken: ask with PING first
        self.answers: dict[str, int] = {}
        self.damage: str | None = None  # "token", "data", "answer": hit the next transaction there

    # The bus

    async def reset(self, *, high_speed: bool = True) -> None:
        """Reset the bus, and chirp when the device does and ``high_speed`` is wanted."""
        chirps = len(self.phy.chirps)
        self.phy.drive(SE0)
        for _ in range(100):
            await ClockCycles(self._clock, 6_000)
            if len(self.phy.chirps) > chirps:
                break
        else:
            raise AssertionError("no chirp of the device within 10 ms of a reset")
        if high_speed:
            for state in (K, J) * 4:
                self.phy.drive(state)
                await ClockCycles(self._clock, 3_000)  # 50 us
        else:
            await ClockCycles(self._clock, 200_000)  # longer than a device waits for an answer
        self.phy.drive(None)
        await ClockCycles(self._clock, 1_000)
        assert self.phy.high_speed == high_speed, f"function control {self.phy.registers}"
        assert self.phy.mode == 0
        self.high_speed, self.address, self.toggles, self.pinging = high_speed, 0, {}, False
        self._next_frame = now()

    async def idle(self, cycles: float) -> None:
        """Nothing but starts of frames for ``cycles``."""
        end = now() + cycles
        while now() < end:
            await self._room(0)
            rest = max(1, int(min(end, self._next_frame) - now()))
            await ClockCycles(self._clock, rest)

    async def _room(self, cycles: float) -> None:
        """Wait until a transaction of ``cycles`` fits before the next start of frame, which is sent when due."""
        if now() + cycles < self._next_frame:
            return
        if now() < self._next_frame:
            await ClockCycles(self._clock, max(1, int(self._next_frame - now())))
        self._next_frame += MICROFRAME if self.high_speed else FRAME
        await self._send(token(SOF, self.frame >> 3 & 0x7FF if self.high_speed else self.frame & 0x7FF))
        self.frame += 1
        await self._gap()

    async def _gap(self) -> None:
        await ClockCycles(self._clock, GAP * (1 if self.high_speed else 4))

    async def _send(self, packet: list[int]) -> None:
        await self.phy.receive(packet)

    async def _answer(self) -> list[int] | None:
        """What the device sends, or None when it keeps silent."""
        phy = self.phy
        if not phy.sent and not phy.transmitting:
            phy.started.clear()
            await First(phy.started.wait(), ClockCycles(self._clock, TIMEOUT[self.high_speed]))
            if not phy.transmitting:
                return None
        if not phy.sent:
            phy.transmitted.clear()
            await phy.transmitted.wait()
        packet = phy.sent.popleft()
        assert packet[0] & 0xF == packet[0] >> 4 ^ 0xF
        await ClockCycles(self._clock, SYNC)  # the end of the packet reaches the host later than the PHY took it
        return packet

    def _hit(self, where: str, packet: list[int]) -> list[int]:
        """``packet``, with one bit wrong when that is asked for."""
        if self.damage != where:
            return packet
        self.damage = None
        position, bit = self._rng.randrange(1, len(packet)), self._rng.randrange(8)
        return [byte ^ (1 << bit if i == position else 0) for i, byte in enumerate(packet)]

    def _count(self, name: str) -> None:
        self.answers[name] = self.answers.get(name, 0) + 1

    async def _transaction(self, pid: int, endpoint: int, packet: list[int] | None) -> list[int] | None:
        length = len(packet or []) or 64
        await self._room((length + 80) * CYCLES_PER_BYTE[self.high_speed] + 100)
        await self._send(self._hit("token", token(pid, self.address | endpoint << 7)))
        if packet is not None:
            await self._gap()
            await self._send(self._hit("data", packet))
        return await self._answer()

    # Transactions

    async def out(self, endpoint: int, payload: bytes, *, setup: bool = False) -> bool:
        """One data packet to the device, tried again on silence; False when the device answers NAK."""
        toggle = 0 if setup else self.toggles.get(endpoint, 0)
        for _ in range(TRIES):
            if self.pinging and not setup:
                answer = await self._transaction(PING, endpoint, None)
                await self._gap()
                assert answer in (with_pid(ACK), with_pid(NAK)), answer
                self._count("PING " + ("ACK" if answer == with_pid(ACK) else "NAK"))
                if answer == with_pid(NAK):
                    return False
                self.pinging = False
            answer = await self._transaction(SETUP if setup else OUT, endpoint, data_packet(toggle, payload))
            await self._gap()
            if answer is not None and self.damage == "answer":
                self.damage = answer = None
            if answer in (with_pid(ACK), with_pid(NYET)):
                self._count("ACK" if answer == with_pid(ACK) else "NYET")
                self.pinging = answer == with_pid(NYET)
                self.toggles[endpoint] = toggle ^ 1
                return True
            if answer == with_pid(NAK):
                self._count("NAK")
                self.pinging = self.high_speed
                return False
            if answer == with_pid(STALL):
                raise Stalled
            assert answer is None, f"the device answered {answer} to an OUT"
            self._count("silence")
        raise AssertionError(f"no answer in {TRIES} tries")

    async def take(self, endpoint: int, *, most: int) -> bytes | None:
        """One data packet from the device, of ``most`` bytes; None when it answers NAK."""
        for _ in range(TRIES):
            toggle = self.toggles.get(endpoint | 0x80, 0)
            answer = await self._transaction(IN, endpoint, None)
            if answer is None:
                self._count("silence")
                continue
            if answer == with_pid(NAK):
                await self._gap()
                return None
            if answer == with_pid(STALL):
                await self._gap()
                raise Stalled
            if self.damage == "in data":  # as if it had come with a wrong CRC: the host keeps silent
                self.damage = None
                await ClockCycles(self._clock, TIMEOUT[self.high_speed])
                continue
            payload = bytes(answer[1:-2])
            assert bytes(answer[-2:]) == data_crc(payload), "a data packet of the device has a wrong CRC"
            assert len(payload) <= most, f"a packet of {len(payload)} bytes, {most} allowed"
            if self.damage == "answer":
                self.damage = None
                await self._gap()
                await self._send([with_pid(ACK)[0] ^ 0x40])  # PID and complement differ
            else:
                await self._send(with_pid(ACK))
            await self._gap()
            if answer[0] & 0xF != DATA[toggle]:
                self._count("repeated")
                continue
            self.toggles[endpoint | 0x80] = toggle ^ 1
            return payload
        raise AssertionError(f"no new data in {TRIES} tries")

    # Transfers

    async def control(self, request_type: int, request: int, value: int, index: int = 0, length: int = 0) -> bytes:
        """A control transfer without data to the device; gives the data from it."""
        fields = (value, index, length)
        setup = bytes([request_type, request, *(byte for field in fields for byte in field.to_bytes(2, "little"))])
        assert await self.out(0, setup, setup=True)
        result = b""
        if length:
            self.toggles[0x80] = 1
            while len(result) < length:
                if (packet := await self._patient(0, most=64)) is not None:
                    result += packet
                    if len(packet) < 64:
                        break
            self.toggles[0] = 1
            assert await self.out(0, b"")
        else:
            self.toggles[0x80] = 1
            assert await self._patient(0, most=64) == b""
        return result

    async def _patient(self, endpoint: int, *, most: int) -> bytes:
        for _ in range(100):
            if (packet := await self.take(endpoint, most=most)) is not None:
                return packet
            await self.idle(200)
        raise AssertionError("nothing but NAK")

    async def descriptor(self, kind: int, index: int = 0, length: int = 255) -> bytes:
        """GET_DESCRIPTOR."""
        return await self.control(0x80, 6, kind << 8 | index, LANGUAGE if kind == 3 and index else 0, length)

    async def set_address(self, address: int) -> None:
        """SET_ADDRESS."""
        await self.control(0x00, 5, address)
        self.address = address

    async def set_configuration(self, value: int = 1) -> None:
        """SET_CONFIGURATION: endpoints begin with DATA0."""
        await self.control(0x00, 9, value)
        self.toggles, self.pinging = {}, False

    async def write(self, endpoint: int, payload: bytes, *, packet: int) -> None:
        """A bulk transfer to the device, however often it answers NAK."""
        for start in range(0, len(payload), packet):
            while not await self.out(endpoint, payload[start : start + packet]):
                await self.idle(self._rng.randrange(1, 400))

    async def read(self, endpoint: int, count: int, *, packet: int) -> list[bytes]:
        """Packets from the device, until they hold ``count`` bytes."""
        packets: list[bytes] = []
        silence = 0
        while sum(map(len, packets)) < count:
            if (got := await self.take(endpoint, most=packet)) is not None:
                packets.append(got)
                silence = 0
            else:
                silence += 1
                assert silence < 2000, f"{sum(map(len, packets))} of {count} bytes"
                await self.idle(100)
        return packets
