"""Boards whose memory and registers the host reaches directly: a Zynq's own processor, or PCI Express.

How is said by a device file (JSON) that `make bitstream` writes beside what it emits for the vendor's tool.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sterna.engines.transport import Transport, register_offset
from sterna.errors import DeviceError, SternaError
from sterna.link.transport import number
from sterna.link.windows import MappedWindow, QueueWindow, StripedWindow, Window
from sterna.spec.config import HardwareConfig
from sterna.spec.registers import Control, Status

POLL_SECONDS = 2e-4
RESET_SECONDS = 5.0

Opener = Callable[[dict[str, Any]], Window]


class MappedTransport(Transport):
    """An accelerator behind windows that the host may read and write at once.

    Args:
        address: Path of the device file.
        timeout: Seconds that :meth:`wait` allows when its caller names none.
        opener: Opens a window from its entry in the device file.

    Raises:
        SternaError: the device file is missing or not one.
        DeviceError: the device's files cannot be opened.
    """

    def __init__(self, address: Path | str, *, timeout: float | str = 60.0, opener: Opener | None = None) -> None:
        opener = opener or open_window
        self._timeout = number("timeout", timeout)
        path = Path(address)
        try:
            fields = json.loads(path.read_text())
            self._config = HardwareConfig(**fields["config"])
            memory, registers, stripe = fields["memory"], fields["registers"], fields["stripe"]
            bases, part = [int(base) for base in stripe["bases"]], int(stripe["part"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SternaError(
                f"{path} is no device file ({error}): name the device.json that make bitstream wrote for the board"
            ) from error
        self._registers = opener(registers)
        try:
            inner = opener(memory)
        except BaseException:
            self._registers.close()
            raise
        self._memory = StripedWindow(inner, bases=bases, part=part, beat_bytes=self._config.beat_bytes)
        self._closed = False

    @property
    def memory_bytes(self) -> int:
        """See :attr:`Transport.memory_bytes`."""
        return self._memory.size

    @property
    def config(self) -> HardwareConfig:
        """The configuration of the device file."""
        return self._config

    @property
    def fast_memory(self) -> bool:
        """See :attr:`Transport.fast_memory`."""
        return True

    def read_memory(self, address: int, size: int) -> bytes:
        """See :meth:`Transport.read_memory`."""
        self._require(address, size)
        return self._memory.read(address, size) if size else b""

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """See :meth:`Transport.write_memory`."""
        self._require(address, len(data))
        if len(data):
            self._memory.write(address, memoryview(data))

    def read_register(self, name: str) -> int:
        """See :meth:`Transport.read_register`."""
        offset = register_offset(name)
        self._require_open()
        return int.from_bytes(self._registers.read(offset, 4), "little")

    def write_register(self, name: str, value: int) -> None:
        """See :meth:`Transport.write_register`; the read that follows waits for the write."""
        offset = register_offset(name, value=value)
        self._require_open()
        self._registers.write(offset, value.to_bytes(4, "little"))
        self._registers.read(offset, 4)

    def wait(self, mask: Status, timeout: float | None = None) -> Status:
        """See :meth:`Transport.wait`."""
        limit = self._timeout if timeout is None else timeout
        started = time.monotonic()
        while True:
            late = time.monotonic() - started >= limit
            status = Status(self.read_register("STATUS") & sum(Status))
            if status & mask:
                return status
            if late:
                raise DeviceError(
                    f"time-out: the accelerator did not reach {mask!r} in {limit:g} s; STATUS is {status!r}"
                )
            time.sleep(POLL_SECONDS)

    def reset(self) -> None:
        """See :meth:`Transport.reset`: abandons the token and waits until the memory port is at rest."""
        self.write_register("CONTROL", Control.RESET)
        started = time.monotonic()
        while self.read_register("STATUS") & Status.BUSY:
            if time.monotonic() - started >= RESET_SECONDS:
                raise DeviceError("the accelerator does not come to rest: configure the board again")
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """See :meth:`Transport.close`."""
        if not self._closed:
            self._closed = True
            self._registers.close()
            self._memory.close()

    def _require(self, address: int, size: int) -> None:
        self._require_open()
        if address < 0 or address + size > self._memory.size:
            raise DeviceError(
                f"{size} bytes at 0x{address:x} lie outside the board's memory of {self._memory.size} bytes"
            )

    def _require_open(self) -> None:
        if self._closed:
            raise DeviceError("the connection to the board is closed")


def open_window(entry: dict[str, Any]) -> Window:
    """A window of a device file: ``{"map": path, "size": …}`` or ``{"reads": …, "writes": …, "base": …, "size": …}``.

    Raises:
        SternaError: the entry is neither.
        DeviceError: its files cannot be opened.
    """
    try:
        if "map" in entry:
            return MappedWindow(Path(entry["map"]), int(entry["size"]))
        base, size = int(entry["base"]), int(entry["size"])
        return QueueWindow(reads=Path(entry["reads"]), writes=Path(entry["writes"]), base=base, size=size)
    except KeyError as error:
        raise SternaError(f"a window of the device file lacks {error}: emit it again with make bitstream") from error
