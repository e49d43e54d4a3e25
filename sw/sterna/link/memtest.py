"""Tests a board's memory from the host: address lines over its whole size, data lines, contents of a range."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sterna.errors import DeviceError, SternaError
from sterna.progress import Progress, counting
from sterna.spec.board import DramDescription

BLOCK = 1 << 16  # bytes written and read at once
SHORT = range(0, 2 * BLOCK)  # contents that a quick test covers
_SEED = 1_207_4207

Bytes = npt.NDArray[np.uint8]


class Memory(Protocol):
    """What is tested."""

    def read_memory(self, address: int, size: int) -> bytes:
        """``size`` bytes from ``address``."""

    def write_memory(self, address: int, data: bytes) -> None:
        """Store ``data`` from ``address`` on."""


def check_memory(
    memory: Memory, dram: DramDescription, part: range = SHORT, *, progress: Progress | None = None
) -> None:
    """Overwrite memory and read it back.

    Args:
        memory: The open board.
        dram: What its memory is.
        part: Bytes whose contents are tested; the address lines are tested over the whole memory.
        progress: Makes a bar of the bytes moved.

    Raises:
        SternaError: ``part`` is not inside the memory.
        DeviceError: something was read otherwise than written; the message names bits, lanes or addresses.
    """
    if part.step != 1 or not 0 <= part.start <= part.stop <= dram.bytes:
        raise SternaError(f"the range to test, {part}, is not inside the board's memory of {dram.bytes} bytes")
    _check_address_lines(memory, dram)
    _check_data_lines(memory, dram)
    with counting(progress, total=4 * len(part), label="memory test", unit="B") as count:
        for inverted in (False, True):  # so that each cell holds both values
            for address, data in _blocks(part, inverted=inverted):
                memory.write_memory(address, data)
                count(len(data))
            for address, data in _blocks(part, inverted=inverted):
                _compare(address, data, memory.read_memory(address, len(data)), dram)
                count(len(data))


def _check_data_lines(memory: Memory, dram: DramDescription) -> None:
    """Each bit of the port alone one, then alone zero."""
    bits = 8 * dram.data_bytes
    ones = np.packbits(np.eye(bits, dtype=np.uint8), axis=1, bitorder="little")
    block = np.concatenate((ones, ~ones)).tobytes()
    memory.write_memory(0, block)
    _compare(0, block, memory.read_memory(0, len(block)), dram)


def _check_address_lines(memory: Memory, dram: DramDescription) -> None:
    """A mark at 0 and at each power of two: a bit that has no effect, or another one's, lets two marks meet."""
    rng = np.random.default_rng(_SEED)
    places = [0, *(1 << bit for bit in range((dram.data_bytes - 1).bit_length(), (dram.bytes - 1).bit_length()))]
    marks = {place: rng.bytes(dram.data_bytes) for place in places}
    for place, mark in marks.items():
        memory.write_memory(place, mark)
    for place, mark in marks.items():
        read = memory.read_memory(place, dram.data_bytes)
        if read == mark:
            continue
        for other, theirs in marks.items():
            if read == theirs:
                raise DeviceError(
                    f"the board's memory fails its test: addresses 0x{place:X} and 0x{other:X} are one place, so an "
                    "address line is broken or the bitstream takes the chip for a larger one; "
                    "use the bitstream of this very board, or mend the board"
                )
        _compare(place, mark, read, dram)


def _blocks(part: range, *, inverted: bool) -> Iterator[tuple[int, bytes]]:
    """Address and pseudo-random contents of each block; no two blocks are alike."""
    for address in range(part.start, part.stop, BLOCK):
        data = np.random.default_rng((_SEED, address)).bytes(min(BLOCK, part.stop - address))
        yield address, (~np.frombuffer(data, np.uint8)).tobytes() if inverted else data


def _compare(address: int, wrote: bytes, read: bytes, dram: DramDescription) -> None:
    """Raise an error that says what is wrong with the bytes read from ``address``."""
    wrong = np.frombuffer(wrote, np.uint8) ^ np.frombuffer(read, np.uint8)
    if not wrong.any():
        return
    places = [address + index for index in np.flatnonzero(wrong).tolist()]
    first = places[0]
    bits = sorted(
        {8 * (at % dram.data_bytes) + bit for at in places for bit in range(8) if wrong[at - address] >> bit & 1}
    )
    lanes = sorted({bit // 8 % dram.byte_lanes for bit in bits})
    raise DeviceError(
        f"the board's memory fails its test: {len(places)} of {len(wrote)} bytes from 0x{address:X} on were read wrong,"
        f" first 0x{first:X} as 0x{read[first - address]:02X} instead of 0x{wrote[first - address]:02X}; {_some(bits)} "
        f"of {8 * dram.data_bytes} data bits, in byte lane {' and '.join(map(str, lanes))} of the chip: switch the "
        "board off and on and try again; if that does not help, its memory is faulty"
    )


def _some(bits: list[int]) -> str:
    if len(bits) > 4:
        return f"{len(bits)}"
    return f"bit{'s' * (len(bits) > 1)} {' and '.join(map(str, bits))}"
