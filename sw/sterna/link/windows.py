"""Ranges of addresses that the host reaches directly: mapped files of Linux drivers, DMA queues, striped memories."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sterna.errors import DeviceError

DMA_BYTES = 1 << 22  # of one request to a DMA queue


class Window(Protocol):
    """``size`` bytes of a device, by offset from 0; a failed access raises ``DeviceError``."""

    @property
    def size(self) -> int:
        """Bytes that can be reached."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes; registers are read as aligned 32-bit words."""
        ...

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Store ``data``; registers are written as aligned 32-bit words."""
        ...

    def close(self) -> None:
        """Let go of the device."""
        ...


class MappedWindow:
    """A file that a driver maps: ``/dev/uio0`` for registers, ``/dev/udmabuf0`` for memory.

    Accesses of one aligned word are single 32-bit accesses of the bus, as registers need them.

    Raises:
        DeviceError: there is no such file, no permission, or it cannot be mapped in this size.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_SYNC)
            try:
                self._map = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            raise DeviceError(
                f"{size} bytes of {path} cannot be mapped ({error}): is the driver loaded, and may this user open it?"
            ) from error
        self._words: npt.NDArray[np.uint32] | None = np.frombuffer(self._map, np.uint32, size // 4)

    @property
    def size(self) -> int:
        """See :class:`Window`."""
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        """See :class:`Window`."""
        words = self._open()
        if size == 4 and offset % 4 == 0:
            return int(words[offset // 4]).to_bytes(4, "little")
        return self._map[offset : offset + size]

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """See :class:`Window`."""
        words = self._open()
        if len(data) == 4 and offset % 4 == 0:
            words[offset // 4] = int.from_bytes(data, "little")
        else:
            self._map[offset : offset + len(data)] = bytes(data)

    def close(self) -> None:
        """See :class:`Window`."""
        if self._words is not None:
            self._words = None
            self._map.close()

    def _open(self) -> npt.NDArray[np.uint32]:
        if self._words is None:
            raise DeviceError(f"{self._path} is closed")
        return self._words


class QueueWindow:
    """A pair of DMA queues, or one character device for both ways: the XDMA driver's ``/dev/xdma0_h2c_0`` and so on.

    Raises:
        DeviceError: there is no such file, or no permission.
    """

    def __init__(self, *, reads: Path, writes: Path, base: int, size: int) -> None:
        self._base, self._size, self._paths = base, size, (reads, writes)
        self._files: list[int] = []
        try:
            self._files.append(os.open(reads, os.O_RDONLY))
            self._files.append(os.open(writes, os.O_WRONLY))
        except OSError as error:
            self.close()
            raise DeviceError(
                f"{error.filename} cannot be opened ({error.strerror}): is the driver loaded, may this user open it?"
            ) from error

    @property
    def size(self) -> int:
        """See :class:`Window`."""
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        """See :class:`Window`."""
        pieces = []
        for start in range(offset, offset + size, DMA_BYTES):
            wanted = min(DMA_BYTES, offset + size - start)
            piece = self._call(0, lambda at=start, n=wanted: os.pread(self._files[0], n, self._base + at))
            if len(piece) != wanted:
                raise DeviceError(
                    f"{self._paths[0]} gave {len(piece)} of {wanted} bytes at 0x{start:x}; reset the board"
                )
            pieces.append(piece)
        return b"".join(pieces)

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """See :class:`Window`."""
        view = memoryview(data)
        for start in range(0, len(view), DMA_BYTES):
            piece = view[start : start + DMA_BYTES]
            at = self._base + offset + start
            done = self._call(1, lambda at=at, piece=piece: os.pwrite(self._files[1], piece, at))
            if done != len(piece):
                raise DeviceError(f"{self._paths[1]} took {done} of {len(piece)} bytes; reset the board")

    def close(self) -> None:
        """See :class:`Window`."""
        while self._files:
            os.close(self._files.pop())

    def _call(self, index: int, transfer):  # type: ignore[no-untyped-def]
        if not self._files:
            raise DeviceError(f"{self._paths[index]} is closed")
        try:
            return transfer()
        except OSError as error:
            raise DeviceError(
                f"{self._paths[index]} failed ({error.strerror}): the board was lost or its memory does not answer; "
                "reset it and load the model again"
            ) from error


class StripedWindow:
    """The memory of a design with several memory ports (``sterna_hw.stripe``), in the order in which it sees it.

    Slice p of each beat lies in the part of ``inner`` at ``bases[p]``.

    Args:
        inner: What all parts lie in.
        bases: Offset of each part.
        part: Bytes of each.
        beat_bytes: Bytes of a beat over all parts.
    """

    def __init__(self, inner: Window, *, bases: Sequence[int], part: int, beat_bytes: int) -> None:
        self._inner, self._bases, self._part, self._beat = inner, tuple(bases), part, beat_bytes
        self._slice = beat_bytes // len(self._bases)

    @property
    def size(self) -> int:
        """See :class:`Window`."""
        return self._part * len(self._bases)

    def read(self, offset: int, size: int) -> bytes:
        """See :class:`Window`."""
        first, last = offset // self._beat, -(-(offset + size) // self._beat)
        skip = offset - first * self._beat
        return self._read_beats(first, last - first).tobytes()[skip : skip + size]

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """See :class:`Window`; the rest of the first and the last beat is read and written back."""
        size = len(data)
        first, last = offset // self._beat, -(-(offset + size) // self._beat)
        skip = offset - first * self._beat
        beats = np.empty((last - first) * self._beat, np.uint8)
        if skip or (offset + size) % self._beat:
            beats[: self._beat] = self._read_beats(first, 1).reshape(-1)
            beats[-self._beat :] = self._read_beats(last - 1, 1).reshape(-1)
        beats[skip : skip + size] = np.frombuffer(data, np.uint8)
        pieces = beats.reshape(last - first, len(self._bases), self._slice)
        for index, base in enumerate(self._bases):
            self._inner.write(base + first * self._slice, pieces[:, index].tobytes())

    def close(self) -> None:
        """See :class:`Window`."""
        self._inner.close()

    def _read_beats(self, first: int, count: int) -> npt.NDArray[np.uint8]:
        """Beats by port by byte of a slice."""
        beats = np.empty((count, len(self._bases), self._slice), np.uint8)
        for index, base in enumerate(self._bases):
            piece = self._inner.read(base + first * self._slice, count * self._slice)
            beats[:, index] = np.frombuffer(piece, np.uint8).reshape(count, self._slice)
        return beats
