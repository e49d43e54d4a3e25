"""The memory that the simulated accelerator sees: how long it takes to answer and how much it can give."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from sterna.errors import SternaError


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """An AXI4 memory with bursts answered in order, up to 64 of them waiting in each direction.

    Reads and writes have a channel each, and each moves ``beats_numerator`` beats in ``beats_denominator`` cycles at
    most. ``stall`` and ``seed`` are for tests: they hold back ready and valid of every channel at random, within the
    rules of the protocol, and are not part of :attr:`peak`.

    Raises:
        SternaError: a value is out of range.
    """

    latency: int = (
        24  # cycles from the address handshake to the first beat, and from the last write beat to its response
    )
    beats_numerator: int = 1
    beats_denominator: int = 1
    stall: float = 0.0  # chance of a stall on a channel in a cycle, 0 <= stall < 1
    seed: int = 1
    refresh_interval: int = 0  # cycles from one refresh to the next; 0 for none
    refresh_cycles: int = 0  # cycles in which a refresh lets no data move
    size: int = 1 << 30  # bytes; host memory is taken only for what is written

    def __post_init__(self) -> None:
        checks = {
            "latency must be 1..1000000 cycles": 1 <= self.latency <= 1_000_000,
            "beats_numerator / beats_denominator must be above 0 and at most 1": (
                1 <= self.beats_numerator <= self.beats_denominator <= 1 << 16
            ),
            "stall must be at least 0 and below 1": 0 <= self.stall < 1,
            "seed must be 0..2**63 - 1": 0 <= self.seed < 1 << 63,
            "refresh_cycles must be below refresh_interval": (
                0 <= self.refresh_cycles < self.refresh_interval < 1 << 32
                or self.refresh_cycles == self.refresh_interval == 0
            ),
            "size must be at least 4096 bytes": self.size >= 4096,
        }
        for text, holds in checks.items():
            if not holds:
                raise SternaError(f"memory model: {text} ({self})")

    @property
    def peak(self) -> Fraction:
        """Beats a cycle of a long sequential read: the rate, less what refreshes take."""
        rate = Fraction(self.beats_numerator, self.beats_denominator)
        if not self.refresh_interval:
            return rate
        return rate * (self.refresh_interval - self.refresh_cycles) / self.refresh_interval

    def peak_bytes(self, beat_bytes: int) -> float:
        """Bytes a cycle of a long sequential read through a port of ``beat_bytes``."""
        return float(self.peak * beat_bytes)
