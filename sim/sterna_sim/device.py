"""The compiled model as Python sees it: a thin, typed layer over the C ABI of ``harness.cpp``."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.errors import DeviceError
from sterna_sim.native import MemoryConfig

POLL_INTERVAL = 60  # cycles between two looks at a register while waiting


class Outcome(IntEnum):
    """How a wait ended (``Outcome`` in harness.cpp)."""

    FAULT = -1
    RUNNING = 0  # the cycles are spent
    MET = 1
    QUIET = 2  # the memory port has been idle for too long


class _Counters(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in ("read_bursts", "read_beats", "write_bursts", "write_beats", "last_transfer")
    )


@dataclass(frozen=True)
class Traffic:
    """What passed the memory ports since the device was made, counted by the memories themselves."""

    read_bursts: int
    read_beats: int
    write_bursts: int
    write_beats: int


def _load(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise DeviceError(
            f"the compiled simulator does not load ({error}); remove {path.parent} and try again"
        ) from error
    u32, u64, handle, text = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_char_p
    pointer = ctypes.c_void_p
    table: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("beat_bytes", u32, ()),
        ("ports", u32, ()),
        ("create", handle, (ctypes.POINTER(MemoryConfig), u64, text, u64, u64)),
        ("destroy", None, (handle,)),
        ("reset", None, (handle,)),
        ("cycle", u64, (handle,)),
        ("fault", text, (handle,)),
        ("memory_read", ctypes.c_int, (handle, u64, pointer, u64)),
        ("memory_write", ctypes.c_int, (handle, u64, pointer, u64)),
        ("memory_fail", ctypes.c_int, (handle, ctypes.c_int, u64, u64)),
        ("memory_counters", None, (handle, ctypes.POINTER(_Counters))),
        ("register_read", ctypes.c_int, (handle, u32, ctypes.POINTER(u32))),
        ("register_write", ctypes.c_int, (handle, u32, u32)),
        ("run", None, (handle, u64)),
        ("wait_begin", None, (handle,)),
        ("wait", ctypes.c_int, (handle, u32, u32, u64, u64, u64, ctypes.POINTER(u32))),
        ("trace_size", u64, (handle, u32)),
        ("trace_take", None, (handle, u32, pointer)),
        ("trace_clear", None, (handle,)),
    )
    for name, result, arguments in table:
        function = getattr(library, f"sterna_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class Device:
    """One simulated accelerator with a memory behind each of its ports. Addresses and sizes in bytes, time in cycles.

    Every method that clocks the model raises :class:`DeviceError` when a protocol rule was broken or a register did
    not answer; the error stays until :meth:`reset`.

    Args:
        library: What ``sterna_sim.build.library`` made.
        memories: That behind each port, of equal sizes.
        window: Bytes of the host's addresses from the memory of a port to the next one's.
        waves: File for the waves.
        wave_cycles: Cycles to record; all when None.

    Raises:
        DeviceError: the library does not load or has another number of ports, or the host has no memory.
    """

    def __init__(
        self,
        library: Path,
        memories: Sequence[MemoryConfig],
        *,
        window: int,
        waves: Path | None = None,
        wave_cycles: range | None = None,
    ):
        self._library = _load(library)
        if self._library.sterna_ports() != len(memories):
            raise DeviceError(f"the simulator was built for {self._library.sterna_ports()} ports, not {len(memories)}")
        recorded = wave_cycles if wave_cycles is not None else range(0, (1 << 64) - 1)
        path = os.fsencode(waves) if waves else None
        array = (MemoryConfig * len(memories))(*memories)
        handle = self._library.sterna_create(array, window, path, recorded.start, recorded.stop)
        if not handle:
            size = sum(memory.bytes for memory in memories)
            raise DeviceError(f"the host has no room for a simulated memory of {size} bytes")
        self._handle = ctypes.c_void_p(handle)
        self._close: Callable[[], object] = weakref.finalize(self, self._library.sterna_destroy, self._handle)

    @property
    def beat_bytes(self) -> int:
        """Bytes of the data of a memory port."""
        return int(self._library.sterna_beat_bytes())

    @property
    def cycle(self) -> int:
        """Clock cycles since the device was made."""
        return int(self._library.sterna_cycle(self._live()))

    @property
    def traffic(self) -> Traffic:
        """Bursts and beats that passed all memory ports since the device was made."""
        counters = _Counters()
        self._library.sterna_memory_counters(self._live(), ctypes.byref(counters))
        return Traffic(counters.read_bursts, counters.read_beats, counters.write_bursts, counters.write_beats)

    def close(self) -> None:
        """Free the model and finish its waves; twice is once."""
        self._close()
        self._handle = ctypes.c_void_p(None)

    def reset(self) -> None:
        """Pulse ``rst``, forget bursts in flight, the trace and any error; memory contents stay."""
        self._library.sterna_reset(self._live())

    def read_memory(self, address: int, size: int) -> bytes:
        """Bytes of memory, behind the back of the model."""
        data = ctypes.create_string_buffer(size)
        self._require(address, size, self._library.sterna_memory_read(self._live(), address, data, size))
        return data.raw

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store bytes, behind the back of the model."""
        view = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
        done = self._library.sterna_memory_write(self._live(), address, view.ctypes.data, view.size)
        self._require(address, view.size, done)

    def fail_reads(self, addresses: range | None) -> None:
        """Answer reads of these byte addresses with SLVERR; None ends it."""
        self._fail(0, addresses)

    def fail_writes(self, addresses: range | None) -> None:
        """Answer writes to these byte addresses with SLVERR and store nothing; None ends it."""
        self._fail(1, addresses)

    def read_register(self, offset: int) -> int:
        """Read a register through the pins."""
        value = ctypes.c_uint32()
        if not self._library.sterna_register_read(self._live(), offset, ctypes.byref(value)):
            self.check()
        return value.value

    def write_register(self, offset: int, value: int) -> None:
        """Write a register through the pins; returns when the response has come."""
        if not self._library.sterna_register_write(self._live(), offset, value):
            self.check()

    def run(self, cycles: int) -> None:
        """Clock the model."""
        self._library.sterna_run(self._live(), cycles)
        self.check()

    def wait_begin(self) -> None:
        """Count quiet cycles from now."""
        self._library.sterna_wait_begin(self._live())

    def wait(self, offset: int, mask: int, *, cycles: int, quiet: int) -> tuple[Outcome, int]:
        """Clock until the register at ``offset`` has a bit of ``mask``; its last value comes with the outcome.

        Ends early after about ``cycles``, or ``quiet`` cycles in which nothing passed the memory port.
        """
        value = ctypes.c_uint32()
        outcome = Outcome(
            self._library.sterna_wait(self._live(), offset, mask, cycles, quiet, POLL_INTERVAL, ctypes.byref(value))
        )
        self.check()
        return outcome, value.value

    def take_trace(self, slot: int = 0) -> npt.NDArray[np.int32]:
        """The row results of a slot, or of a cluster, since the last call, in order."""
        values = np.empty(self._library.sterna_trace_size(self._live(), slot), np.int32)
        self._library.sterna_trace_take(self._live(), slot, values.ctypes.data)
        return values

    def clear_trace(self) -> None:
        """Forget all traces."""
        self._library.sterna_trace_clear(self._live())

    def check(self) -> None:
        """Raise the error that the harness has noted, if any."""
        text = self._library.sterna_fault(self._live()).decode()
        if text:
            raise DeviceError(f"simulated accelerator: {text}; reset() clears this")

    def _fail(self, writes: int, addresses: range | None) -> None:
        window = addresses if addresses is not None else range(0)
        if not self._library.sterna_memory_fail(self._live(), writes, window.start, window.stop):
            raise DeviceError("the DRAM controller answers every access as good: no error can be injected behind it")

    def _require(self, address: int, size: int, done: int) -> None:
        if not done:
            raise DeviceError(
                f"{size} bytes at 0x{address:x} lie outside the simulated memory; choose a larger memory model"
            )

    def _live(self) -> ctypes.c_void_p:
        if not self._handle:
            raise DeviceError("the simulated accelerator is closed")
        return self._handle
