"""The serial line of a simulated board as a pipe of bytes: what a serial port is to a real one."""

from __future__ import annotations

from sterna.errors import DeviceError
from sterna.link.pipe import BytePipe
from sterna_sim.board.twin import Twin

SLICE_SECONDS = 100e-6  # of the board's time, between two looks at whether the sender is done


class TwinPipe(BytePipe):
    """A pipe whose time is the board's: it passes while somebody waits for an answer, and only then.

    Args:
        twin: The board, which the pipe takes over.
        name: What a user knows it by.
    """

    def __init__(self, twin: Twin, *, name: str) -> None:
        self._twin: Twin | None = twin
        self._name = name
        self._left: int | None = None  # bytes until the plug is pulled

    @property
    def name(self) -> str:
        """See :attr:`BytePipe.name`."""
        return self._name

    @property
    def seconds(self) -> float:
        """Of the board's time, since its configuration."""
        twin = self._open()
        return twin.now / twin.tick_rate

    def unplug_after(self, sent: int) -> None:
        """For tests: pull the plug once the host has sent so many more bytes."""
        self._left = sent

    def read(self, timeout: float) -> bytes:
        """See :meth:`BytePipe.read`; time that bytes to the board take is not counted."""
        twin = self._open()
        while twin.sending and not twin.waiting:
            twin.run(round(SLICE_SECONDS * twin.tick_rate))
        if not twin.waiting:
            twin.run(round(timeout * twin.tick_rate))
        return twin.receive()

    def write(self, data: bytes) -> None:
        """See :meth:`BytePipe.write`."""
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.close()
        self._open().send(data)

    def close(self) -> None:
        """See :meth:`BytePipe.close`."""
        if self._twin:
            self._twin.close()
            self._twin = None

    def _open(self) -> Twin:
        if not self._twin:
            raise DeviceError(f"{self._name} is closed or was unplugged")
        return self._twin
