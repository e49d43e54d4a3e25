"""The host's end of the link for benches, written from the text of ``sterna.spec.link`` and sharing no code with it."""

from __future__ import annotations

import zlib
from typing import Any

from cocotb.triggers import RisingEdge
from streams import Sink, Source

READ, WRITE = 1, 2
MEMORY, CORE, BOARD, DRAM, DESCRIPTION = range(5)
OK, SEQUENCE, DAMAGED, BAD_REQUEST, NOT_READY, BUSY, BUS_ERROR = range(7)


def stuffed(body: bytes) -> bytes:
    """The body with its CRC and escapes."""
    whole = body + zlib.crc32(body).to_bytes(4, "little")
    return b"".join(bytes([0x7D, byte ^ 0x20]) if byte in (0x7D, 0x7E) else bytes([byte]) for byte in whole)


def framed(body: bytes) -> bytes:
    """A whole frame."""
    return b"\x7e" + stuffed(body) + b"\x7e"


def request(kind: int, space: int, sequence: int, length: int, address: int, payload: bytes = b"") -> bytes:
    """Body of a request."""
    header = bytes([space << 4 | kind, sequence]) + length.to_bytes(2, "little") + address.to_bytes(8, "little")
    return header + payload


class Host:
    """Talks over the streams ``received`` and ``sent`` of ``dut`` (or others)."""

    def __init__(
        self, dut: Any, rng: Any, *, stall: float = 0.0, received: str = "received", sent: str = "sent"
    ) -> None:
        self._dut = dut
        self.source = Source(dut, received, stall, rng)
        self.sink = Sink(dut, sent, stall, rng)
        self.sequence = 0
        self._seen = 0  # bytes of the sink that were looked at

    def send(self, raw: bytes) -> None:
        self.source.send_all(raw)

    async def reply(self, limit: int = 60_000) -> tuple[int, int, bytes]:
        """Status, number and payload of the next reply."""
        body: list[int] | None = None
        escaped = False
        for _ in range(limit):
            while self._seen < len(self.sink.received):
                byte = self.sink.received[self._seen]
                self._seen += 1
                if byte == 0x7E:
                    assert not escaped
                    if body:
                        return self._parsed(bytes(body))
                    body = []
                elif byte == 0x7D:
                    assert body is not None and not escaped
                    escaped = True
                else:
                    assert body is not None, "a byte outside a frame"
                    body.append(byte ^ 0x20 if escaped else byte)
                    assert not escaped or body[-1] in (0x7D, 0x7E), "an escape that was not needed"
                    escaped = False
            await RisingEdge(self._dut.clk)
        raise AssertionError(f"no reply within {limit} cycles")

    @staticmethod
    def _parsed(body: bytes) -> tuple[int, int, bytes]:
        assert int.from_bytes(body[-4:], "little") == zlib.crc32(body[:-4]), "CRC of a reply"
        assert int.from_bytes(body[2:4], "little") == len(body) - 8, "length of a reply"
        return body[0], body[1], body[4:-4]

    async def silent(self, cycles: int) -> None:
        """Nothing comes for some cycles."""
        before = len(self.sink.received)
        for _ in range(cycles):
            await RisingEdge(self._dut.clk)
        assert len(self.sink.received) == before

    async def sync(self, sequence: int = 255) -> None:
        """Make the number after ``sequence`` the next one."""
        self.send(framed(request(0, 0, sequence, 0, 0)))
        assert await self.reply() == (OK, sequence, b"")
        self.sequence = (sequence + 1) % 256

    async def call(self, kind: int, space: int, address: int, length: int, payload: bytes = b"") -> tuple[int, bytes]:
        """One request in its turn; status and payload."""
        sequence, self.sequence = self.sequence, (self.sequence + 1) % 256
        self.send(framed(request(kind, space, sequence, length, address, payload)))
        status, number, result = await self.reply()
        assert number == sequence
        assert len(result) == (length if kind == READ and status == OK else 0)
        return status, result

    async def read(self, space: int, address: int, length: int) -> bytes:
        status, result = await self.call(READ, space, address, length)
        assert status == OK, status
        return result

    async def write(self, space: int, address: int, payload: bytes) -> None:
        assert await self.call(WRITE, space, address, len(payload), payload) == (OK, b"")

    async def read_register(self, space: int, offset: int) -> int:
        return int.from_bytes(await self.read(space, offset, 4), "little")

    async def write_register(self, space: int, offset: int, value: int) -> None:
        await self.write(space, offset, value.to_bytes(4, "little"))
