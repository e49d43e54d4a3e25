"""Software boards at the end of faulty links, and what tests of the link ask of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sterna.emulator.board import SoftwareBoard
from sterna.emulator.pipes import MemoryPipe
from sterna.link.transport import LinkTransport

CUT = "cut"


@dataclass
class Faults:
    """Changes to single bytes, counted over all that pass: (position, kind) with kind drop, flip, repeat or cut."""

    plan: dict[int, str] = field(default_factory=dict)
    passed: int = 0

    def __call__(self, data: bytes) -> bytes | None:
        changed = bytearray()
        for byte in data:
            kind = self.plan.get(self.passed)
            self.passed += 1
            if kind == CUT:
                return None
            if kind == "drop":
                continue
            changed.append(byte ^ 0x10 if kind == "flip" else byte)
            if kind == "repeat":
                changed.append(byte)
        return bytes(changed)


class Frames:
    """Changes to whole writes, by their number: "drop" or "repeat"."""

    def __init__(self, plan: dict[int, str]) -> None:
        self.plan, self.passed = plan, 0

    def __call__(self, data: bytes) -> bytes:
        kind = self.plan.get(self.passed)
        self.passed += 1
        return {"drop": b"", "repeat": 2 * data}.get(kind or "", data)


class SlowPipe(MemoryPipe):
    """Gives few bytes at a time, as a line does."""

    step = 7

    def read(self, timeout: float) -> bytes:
        self._arrived = getattr(self, "_kept", b"") + self._arrived
        data = super().read(timeout)
        self._kept = data[self.step :]
        return data[: self.step]


def open_board(board: SoftwareBoard | None = None, **options: Any) -> LinkTransport:
    """A transport to a software board over a link without faults."""
    return LinkTransport(MemoryPipe(board or SoftwareBoard()), **options)
