"""Safetensors files: a checked, memory-mapped reader and a writer that streams.

The format is 8 bytes of header length, a JSON header that names every tensor with its type, shape and byte range, and
the tensors one after another. The reader accepts nothing that does not fit the file; types that NumPy lacks are no
obstacle because arrays are made from the byte ranges.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.model.dtypes import CONTAINERS

MAX_HEADER = 100_000_000  # bytes; the limit of the published readers
_ALIGNMENT = 8


@dataclass(frozen=True)
class TensorSpec:
    """Type (safetensors name, e.g. "U8") and shape of a stored tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * CONTAINERS[self.dtype].itemsize


@dataclass(frozen=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """A safetensors file, mapped read-only; arrays are views that are read from disk when touched.

    Raises:
        SternaError: the file is missing, truncated, or its header is not what the format says.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                self._entries, self._start = _read_header(file, size, path.name)
            self._map: npt.NDArray[np.uint8] = np.memmap(path, np.uint8, mode="r")
        except FileNotFoundError:
            raise SternaError(f"{path.name} is missing in {path.parent}") from None
        except OSError as error:
            raise SternaError(f"{path.name} cannot be read: {error.strerror or error}") from error

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._path

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """Type and shape of every tensor, in the order of the header."""
        return {name: TensorSpec(entry.dtype, entry.shape) for name, entry in self._entries.items()}

    def pieces(self, name: str, size: int = 1 << 22) -> Iterator[bytes]:
        """The bytes of a tensor, ``size`` at a time, read anew: of a map they would stay in this process's memory.

        Raises:
            SternaError: the file cannot be read.
        """
        entry = self._entries[name]
        try:
            with self._path.open("rb", buffering=0) as file:
                file.seek(self._start + entry.begin)
                for start in range(entry.begin, entry.end, size):
                    yield file.read(min(size, entry.end - start))
        except OSError as error:
            raise SternaError(f"{self._path.name} cannot be read: {error.strerror or error}") from error

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """The bytes of a tensor, flat."""
        entry = self._entries[name]
        return self._map[self._start + entry.begin : self._start + entry.end]

    def array(self, name: str) -> npt.NDArray[Any]:
        """A tensor as a read-only array; BF16 comes as its uint16 bits."""
        entry = self._entries[name]
        if entry.dtype not in CONTAINERS:
            raise SternaError(f"tensor {name} in {self._path.name} has the type {entry.dtype}, which is not supported")
        return np.asarray(self.raw(name).view(CONTAINERS[entry.dtype]).reshape(entry.shape))


def _read_header(file: BinaryIO, size: int, name: str) -> tuple[dict[str, _Entry], int]:
    """Entries and the byte where tensors start; refuses every header that does not describe the whole file."""
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise SternaError(
            f"{name} is truncated or no safetensors file: its header does not fit it; fetch the file again"
        )
    try:
        header = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise SternaError(f"{name} has a corrupt safetensors header ({error}); fetch the file again") from error
    if not isinstance(header, dict):
        raise SternaError(f"{name} has a corrupt safetensors header (no JSON object); fetch the file again")
    header.pop("__metadata__", None)
    entries = {tensor: _entry(tensor, value, name) for tensor, value in header.items()}
    start, room, expected = 8 + length, size - 8 - length, 0
    for tensor, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.end > room:
            raise SternaError(
                f"{name} is truncated: tensor {tensor} ends at byte {start + entry.end}, the file at {size}; refetch it"
            )
        if entry.begin != expected:
            raise SternaError(
                f"{name} has a corrupt safetensors header: tensor {tensor} leaves a gap or overlaps another"
            )
        expected = entry.end
    if expected != room:
        raise SternaError(f"{name} is corrupt: {room - expected} bytes belong to no tensor; fetch the file again")
    return entries, start


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _entry(tensor: str, value: Any, file: str) -> _Entry:
    broken = SternaError(f"{file} has a corrupt safetensors header: the entry of tensor {tensor} makes no sense")
    if not isinstance(value, dict):
        raise broken
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or not isinstance(shape, list) or not all(map(_is_size, shape)):
        raise broken
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)) or offsets[0] > offsets[1]:
        raise broken
    entry = _Entry(dtype, tuple(shape), offsets[0], offsets[1])
    if dtype in CONTAINERS and TensorSpec(dtype, entry.shape).nbytes != entry.end - entry.begin:
        raise broken
    return entry


class TensorWriter:
    """Writes a safetensors file whose tensors are known beforehand, in any order, each in as many pieces as liked.

    Tensors are laid out by falling element size, so that every one is aligned. Used as a context manager; leaving it
    without an exception flushes to disk and checks that every tensor is complete.
    """

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec]) -> None:
        order = sorted(specs, key=lambda name: -CONTAINERS[specs[name].dtype].itemsize)
        header: dict[str, Any] = {}
        self._next: dict[str, int] = {}  # where the next piece of each tensor goes
        self._end: dict[str, int] = {}
        offset = 0
        for name in order:
            end = offset + specs[name].nbytes
            header[name] = {
                "dtype": specs[name].dtype,
                "shape": list(specs[name].shape),
                "data_offsets": [offset, end],
            }
            self._next[name], self._end[name] = offset, end
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        self._start = 8 + len(text)
        self._dtypes = {name: CONTAINERS[spec.dtype] for name, spec in specs.items()}
        self._file = path.open("wb")
        self._file.write(struct.pack("<Q", len(text)) + text)

    def write(self, name: str, piece: npt.NDArray[Any]) -> bytes:
        """Append ``piece`` to tensor ``name`` and return its bytes.

        Raises:
            ValueError: the piece has another type, or is more than the tensor has room for.
        """
        if piece.dtype != self._dtypes[name]:
            raise ValueError(f"{name} is {self._dtypes[name]}, not {piece.dtype}")
        data = piece.tobytes()
        if self._next[name] + len(data) > self._end[name]:
            raise ValueError(f"{name}: more bytes than its shape has")
        self._file.seek(self._start + self._next[name])
        self._file.write(data)
        self._next[name] += len(data)
        return data

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is not None:
                return
            short = [name for name in self._next if self._next[name] != self._end[name]]
            if short:
                raise ValueError(f"tensors not written whole: {', '.join(short)}")
            self._file.flush()
            os.fsync(self._file.fileno())
