"""Checksums of a memory image: one entry a tensor of the model, made by the compiler and compared by the driver."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ImageTensor:
    """Where a tensor stands in the accelerator's memory, with the descriptors that use it, and its checksum."""

    name: str  # of docs/model-format.md without ".trits": "layers.3.gate", "embedding"
    address: int
    size: int  # bytes
    checksum: int  # of those bytes, see checksum()

    @property
    def end(self) -> int:
        """The address behind its last byte."""
        return self.address + self.size

    def __str__(self) -> str:
        return f"tensor {self.name} (0x{self.address:X} to 0x{self.end:X})"


def checksum(pieces: Iterable[bytes | bytearray | memoryview]) -> int:
    """CRC-32 (IEEE 802.3, that of zlib) of ``pieces`` one after the other: finds every flipped bit and short burst."""
    value = 0
    for piece in pieces:
        value = zlib.crc32(piece, value)
    return value
