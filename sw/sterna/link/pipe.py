"""What the link runs on: something that carries bytes both ways, in order or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod


class BytePipe(ABC):
    """An open connection to a board's link.

    Bytes may be lost, damaged or repeated on the way; the frames above find that out. Time is the pipe's own: behind a
    simulated board it passes as the simulation does, so whoever uses a pipe looks at no clock.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What a user knows it by, such as "/dev/ttyUSB0"."""

    @abstractmethod
    def read(self, timeout: float) -> bytes:
        """All bytes that have arrived; when none has, the first that do within ``timeout`` seconds, or b"".

        Raises:
            DeviceError: the other end is gone, or the pipe is closed.
        """

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of ``data``; may return before it has left.

        Raises:
            DeviceError: the other end is gone, or the pipe is closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection; closing again does nothing."""
