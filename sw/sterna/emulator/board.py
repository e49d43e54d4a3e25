"""A board in software: the endpoint's rules of the link, board registers, a DRAM to be started, the emulator behind.

Written from the specification alone, so that the host's end has something independent to talk to.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Sequence

import numpy as np

from sterna.emulator.dram import SoftwareDram, software_dram
from sterna.emulator.transport import EmulatorTransport
from sterna.errors import DeviceError
from sterna.spec import board, link, registers
from sterna.spec.board import BoardDescription, DramDescription, MemoryState
from sterna.spec.config import HardwareConfig, preset
from sterna.spec.link import Kind, Reply, Space
from sterna.spec.registers import Access, Control, Status

CLOCK = 75_000_000
_BOARD = {register.offset: register for register in board.REGISTERS}
_CORE = {register.offset: register for register in registers.REGISTERS}


class SoftwareBoard:
    """Bytes in, bytes out.

    Args:
        config: The accelerator, or the name of a preset.
        dram: Its memory controller; default: DDR3 of 16 MiB.
        build_id: 128 bits.
        windows: See :class:`SoftwareDram`.
        stuck: A bit of the memory port and the value that it always reads as.
        ignored: A bit of the byte address that the memory does not look at.
        busy_reads: How often STATUS is read as BUSY after each START.
    """

    def __init__(
        self,
        config: HardwareConfig | str = "sim-tiny",
        *,
        dram: DramDescription | None = None,
        build_id: int = 0x0123_4567_89AB_CDEF_FEDC_BA98_7654_3210,
        windows: Sequence[tuple[int, range]] | None = None,
        stuck: tuple[int, int] | None = None,
        ignored: int | None = None,
        busy_reads: int = 0,
    ) -> None:
        config = preset(config) if isinstance(config, str) else config
        self.description = BoardDescription(
            board="software", clock=CLOCK, links=("uart:3000000",), config=config, dram=dram or software_dram()
        )
        self.dram = SoftwareDram(self.description.dram, clock=CLOCK, cycles=self._cycles, windows=windows)
        self._core = EmulatorTransport(config, size=self.description.dram.bytes)
        self._stuck, self._ignored, self._busy_reads = stuck, ignored, busy_reads
        self._busy = 0  # reads of STATUS that still show it
        packed = self.description.pack()
        self._text = struct.pack("<I", len(packed)) + packed
        words = {f"BUILD_ID_{i}": build_id >> 32 * i & 0xFFFF_FFFF for i in range(board.BUILD_ID_WORDS)}
        self._own = {"MAGIC": board.MAGIC, "LINK_VERSION": link.VERSION, "DAMAGED": 0, "OVERFLOWS": 0, "SCRATCH": 0}
        self._own |= words
        self._body = bytearray()
        self._escaped = self._broken = False
        self._expected = 0
        self._statuses = dict.fromkeys(range(link.SEQUENCES), Reply.OK)  # of requests, for repeated WRITEs
        self.executed: list[tuple[Kind, Space, int, int]] = []  # kind, space, address, length of each request done

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the host; returns those for it."""
        answers = bytearray()
        for byte in data:
            if byte == link.FLAG:
                if self._body or self._broken:
                    answers += self._frame()
                self._body, self._escaped, self._broken = bytearray(), False, False
            elif self._escaped:
                self._body.append(byte ^ link.ESCAPED)
                self._escaped = False
            elif byte == link.ESCAPE:
                self._escaped = True
            else:
                self._body.append(byte)
        return bytes(answers)

    def _frame(self) -> bytes:
        body, crc = bytes(self._body[:-4]), bytes(self._body[-4:])
        header = link.REQUEST.size
        if self._escaped or len(body) < header or struct.pack("<I", zlib.crc32(body)) != crc:
            return self._damaged()
        operation, sequence, length, address = link.REQUEST.unpack_from(body)
        payload = body[header:]
        kind, space = operation & 15, operation >> 4
        if len(payload) != (length if kind == Kind.WRITE else 0) or length > link.PAYLOAD_BYTES:
            return self._damaged()
        if kind == Kind.SYNC:
            self._expected = (sequence + 1) % link.SEQUENCES
            return _reply(Reply.OK, sequence)
        behind = (self._expected - sequence) % link.SEQUENCES
        if behind > link.WINDOW:
            return _reply(Reply.SEQUENCE, self._expected)
        if behind == 0:
            self._expected = (self._expected + 1) % link.SEQUENCES
        elif kind == Kind.WRITE:
            return _reply(self._statuses[sequence], sequence)
        status = self._statuses[sequence] = self._refusal(kind, space, length, address)
        if status is not Reply.OK:
            return _reply(status, sequence)
        self.executed.append((Kind(kind), Space(space), address, length))
        if kind == Kind.READ:
            return _reply(Reply.OK, sequence, self._read(Space(space), address, length))
        self._write(Space(space), address, payload)
        return _reply(Reply.OK, sequence)

    def _damaged(self) -> bytes:
        self._own["DAMAGED"] += 1
        return _reply(Reply.DAMAGED, self._expected)

    def _refusal(self, kind: int, space: int, length: int, address: int) -> Reply:
        """OK, or why a request is not executed."""
        if kind not in (Kind.READ, Kind.WRITE) or space not in tuple(Space) or not length:
            return Reply.BAD_REQUEST
        if space == Space.MEMORY:
            if not self.dram.ready:
                return Reply.NOT_READY
            if self._busy:
                return Reply.BUSY
            return Reply.OK if address + length <= self.description.dram.bytes else Reply.BUS_ERROR
        if address % 4 or length % 4:
            return Reply.BAD_REQUEST
        words = range(address, address + length, 4)
        known = all(self._knows(Space(space), word, write=kind == Kind.WRITE) for word in words)
        return Reply.OK if known else Reply.BAD_REQUEST

    def _knows(self, space: Space, address: int, *, write: bool) -> bool:
        if space in (Space.CORE, Space.BOARD):
            register = (_CORE if space is Space.CORE else _BOARD).get(address)
            return register is not None and (not write or register.access is Access.RW)
        if space is Space.DRAM:
            return self.dram.knows(address)
        return address < len(self._text) and not write

    def _read(self, space: Space, address: int, length: int) -> bytes:
        if space is Space.MEMORY:
            return self._read_memory(address, length)
        if space is Space.DESCRIPTION:
            return self._text[address : address + length].ljust(length, b"\0")
        read = {Space.CORE: self._read_core, Space.BOARD: self._read_own, Space.DRAM: self.dram.read}[space]
        return struct.pack(f"<{length // 4}I", *(read(word) for word in range(address, address + length, 4)))

    def _write(self, space: Space, address: int, payload: bytes) -> None:
        if space is Space.MEMORY:
            self._core.write_memory(self._seen_address(address), payload)
            return
        for index, (value,) in enumerate(struct.iter_unpack("<I", payload)):
            at = address + 4 * index
            if space is Space.CORE:
                self._write_core(at, value)
            elif space is Space.DRAM:
                self.dram.write(at, value)
            else:
                self._own[_BOARD[at].name] = value

    def _read_core(self, address: int) -> int:
        name = _CORE[address].name
        if name == "STATUS" and self._busy:
            self._busy -= 1
            return Status.BUSY
        return self._core.read_register(name)

    def _write_core(self, address: int, value: int) -> None:
        name = _CORE[address].name
        self._core.write_register(name, value)
        if name == "CONTROL":
            self._busy = 0 if value & Control.RESET else self._busy_reads if value & Control.START else self._busy

    def _read_own(self, address: int) -> int:
        name = _BOARD[address].name
        if name == "CYCLES":
            return self._cycles()
        if name == "MEMORY_STATE":
            done, failed = self.dram.ready, self.dram.failed
            return MemoryState.LOCKED | MemoryState.READY * done | MemoryState.FAILED * failed
        return self._own[name]

    def _read_memory(self, address: int, length: int) -> bytes:
        """What the chip gives: lanes out of their windows and a stuck bit read wrong."""
        try:
            data = np.frombuffer(self._core.read_memory(self._seen_address(address), length), np.uint8).copy()
        except DeviceError:
            return bytes(length)
        places = np.arange(address, address + length)
        lanes = np.array(self.dram.lanes) & self.dram.started
        data ^= np.where(lanes[places % len(lanes)], 0, 0x5A).astype(np.uint8)
        if self._stuck:
            bit, value = self._stuck
            hit = places % self.description.dram.data_bytes == bit // 8
            mask = np.uint8(1 << bit % 8)
            data[hit] = data[hit] | mask if value else data[hit] & ~mask
        return data.tobytes()

    def _seen_address(self, address: int) -> int:
        return address if self._ignored is None else address & ~(1 << self._ignored)

    def _cycles(self) -> int:
        return int(time.monotonic() * CLOCK) & 0xFFFF_FFFF


def _reply(status: Reply, sequence: int, contents: bytes = b"") -> bytes:
    body = link.REPLY.pack(status, sequence, len(contents)) + contents
    body += struct.pack("<I", zlib.crc32(body))
    escaped = bytearray()
    for byte in body:
        escaped += bytes([link.ESCAPE, byte ^ link.ESCAPED]) if byte in (link.FLAG, link.ESCAPE) else bytes([byte])
    return bytes([link.FLAG, *escaped, link.FLAG])
