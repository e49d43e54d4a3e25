"""Time as the board counts it, which a simulated board does too."""

from __future__ import annotations

from sterna.link.client import LinkClient, Request
from sterna.spec.board import OFFSET
from sterna.spec.link import Kind, Space

CYCLES = Request(Kind.READ, Space.BOARD, OFFSET["CYCLES"], 4)


class Stopwatch:
    """Adds up the board's cycles from the first reading of the counter on, past its wrapping round."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._passed = 0

    def advance(self, reading: bytes) -> int:
        """Cycles since the first reading, by what :data:`CYCLES` has read; at least one in its 2**32."""
        now = int.from_bytes(reading, "little")
        self._passed += (now - (now if self._last is None else self._last)) % (1 << 32)
        self._last = now
        return self._passed


def wait_cycles(client: LinkClient, cycles: int) -> None:
    """Return when at least ``cycles`` have passed on the board."""
    if cycles <= 0:
        return
    watch = Stopwatch()
    while watch.advance(*client.execute([CYCLES])) <= cycles:
        pass
