"""Ways to a software board: within the process, and through a pseudo-terminal that looks like a serial port."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Self

from sterna.emulator.board import SoftwareBoard
from sterna.errors import DeviceError
from sterna.link.pipe import BytePipe

Change = Callable[[bytes], bytes | None]  # what becomes of bytes on their way; None cuts the cable


class MemoryPipe(BytePipe):
    """Bytes to a board and back without a wire: what is not there when it is read has timed out.

    Args:
        board: Answers.
        to_board: What happens to each write on its way.
        to_host: What happens to each answer.
    """

    def __init__(
        self, board: SoftwareBoard, *, to_board: Change = lambda data: data, to_host: Change = lambda data: data
    ) -> None:
        self._board, self._to_board, self._to_host = board, to_board, to_host
        self._arrived = b""
        self._gone = ""

    @property
    def name(self) -> str:
        """See :attr:`BytePipe.name`."""
        return "memory"

    def read(self, timeout: float) -> bytes:
        """See :meth:`BytePipe.read`; takes no time."""
        self._require()
        data, self._arrived = self._arrived, b""
        return data

    def write(self, data: bytes) -> None:
        """See :meth:`BytePipe.write`."""
        self._require()
        for change, then in ((self._to_board, self._board.receive), (self._to_host, bytes)):
            changed = change(data)
            if changed is None:
                self._gone = "the link memory was cut"
                return
            data = then(changed)
        self._arrived += data

    def close(self) -> None:
        """See :meth:`BytePipe.close`."""
        self._gone = self._gone or "the link memory is closed"

    def _require(self) -> None:
        if self._gone:
            raise DeviceError(self._gone)


class PtyBoard:
    """A software board behind a pseudo-terminal, in a thread of its own; a context manager.

    Attributes:
        port: Path that a serial library can open.
    """

    def __init__(self, board: SoftwareBoard) -> None:
        self._board = board
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._stop, self._stopped = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Pull the plug."""
        if self._thread.is_alive():
            os.write(self._stopped, b"x")
            self._thread.join()
            for file in (self._master, self._slave, self._stop, self._stopped):
                os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self) -> None:
        os.set_blocking(self._master, False)
        waiting = b""
        while True:
            readable, _, _ = select.select([self._master, self._stop], [self._master] if waiting else [], [])
            if self._stop in readable:
                return
            with contextlib.suppress(BlockingIOError):
                if self._master in readable:
                    waiting += self._board.receive(os.read(self._master, 65536))
                if waiting:
                    waiting = waiting[os.write(self._master, waiting) :]
