"""The compiled twin as Python sees it: a thin, typed layer over the C ABI of ``twin.cpp``."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from sterna.errors import DeviceError, SternaError
from sterna_boards.recipe import DramCore, DramRecipe
from sterna_sim.memory import ControllerModel
from sterna_sim.native import ChipConfig, chip_config

CLOCK_TICKS = 4  # of the memory; TICKS_PER_CYCLE in twin_config.hpp is twice this
CYCLE_TICKS = 2 * CLOCK_TICKS
LANES = 2
LONGEST_FLIGHT = 63  # ticks
START_UP_SECONDS = 500e-6  # with CKE low, JEDEC JESD79-3


class _TwinConfig(ctypes.Structure):
    _fields_ = (
        ("bytes", ctypes.c_uint64),
        ("chip", ChipConfig),
        ("flight", ctypes.c_uint32 * LANES),
        ("dead_lanes", ctypes.c_uint32),
        ("clock_half_ticks", ctypes.c_uint32),
        ("bit_ticks_q16", ctypes.c_uint32),
        ("start_up_ticks", ctypes.c_int64),
    )


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What lies between FPGA and memory: of each byte lane, how late its reads come, and whether it is there at all.

    A delay is the whole way of a read there and back, in quarters of a clock of the memory.

    Raises:
        SternaError: not one delay for each lane, or one out of range.
    """

    flight: tuple[int, ...] = (2, 3)
    dead_lanes: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if len(self.flight) != LANES or not all(0 <= ticks <= LONGEST_FLIGHT for ticks in self.flight):
            raise SternaError(
                f"a twin's wiring has a delay of 0..{LONGEST_FLIGHT} for each of {LANES} byte lanes, not {self.flight}"
            )
        if not self.dead_lanes <= set(range(LANES)):
            raise SternaError(f"a twin has byte lanes 0..{LANES - 1}, not {sorted(self.dead_lanes)}")


class Twin:
    """One simulated board. Time is ticks, quarters of a clock of its memory.

    Every method that lets time pass raises ``DeviceError`` once a rule of the memory chip was broken.

    Args:
        library: From ``sterna_sim.board.build``.
        recipe: Of the memory controller.
        core: What was generated from it.
        baud: Of the serial line.
        wiring: Between FPGA and memory.
    """

    def __init__(
        self, library: Path, *, recipe: DramRecipe, core: DramCore, baud: int, wiring: Wiring | None = None
    ) -> None:
        wiring = wiring or Wiring()
        self.tick_rate = round(CYCLE_TICKS * recipe.clock)
        half = Fraction(self.tick_rate) / Fraction(2 * round(recipe.input_clock))
        if half.denominator != 1:
            raise SternaError(f"the twin cannot make a clock pin of {recipe.input_clock:g} Hz from its ticks")
        config = _TwinConfig(
            bytes=core.size,
            chip=chip_config(ControllerModel(recipe=recipe.name), core),
            dead_lanes=sum(1 << lane for lane in wiring.dead_lanes),
            clock_half_ticks=int(half),
            bit_ticks_q16=round((self.tick_rate << 16) / baud),
            start_up_ticks=ceil(START_UP_SECONDS * self.tick_rate),
        )
        config.flight[:] = wiring.flight
        self._library = _load(library)
        handle = self._library.twin_create(ctypes.byref(config))
        if not handle:
            raise DeviceError(f"the host has no room for a simulated memory of {core.size} bytes")
        self._handle = ctypes.c_void_p(handle)
        self._close: Callable[[], object] = weakref.finalize(self, self._library.twin_destroy, self._handle)

    @property
    def now(self) -> int:
        """Ticks since configuration."""
        return int(self._library.twin_now(self._live()))

    @property
    def waiting(self) -> int:
        """Bytes that have come from the board and were not taken."""
        return int(self._library.twin_received(self._live()))

    @property
    def sending(self) -> int:
        """Bytes that have not left for the board."""
        return int(self._library.twin_sending(self._live()))

    @property
    def broken(self) -> int:
        """Bytes from the board that had no stop bit."""
        return int(self._library.twin_broken(self._live()))

    def run(self, ticks: int) -> None:
        """Let time pass, until a byte comes at the latest."""
        self._library.twin_run(self._live(), ticks)
        self._check()

    def send(self, data: bytes) -> None:
        """Queue bytes for the serial line to the board."""
        self._library.twin_send(self._live(), data, len(data))

    def receive(self) -> bytes:
        """All bytes that have come."""
        data = ctypes.create_string_buffer(self.waiting)
        self._library.twin_receive(self._live(), data, len(data))
        return data.raw

    def control(self, address: int, value: int | None = None) -> int:
        """Read, or write ``value`` to, a register of a controller without a system around it."""
        write = value is not None
        word = self._library.twin_control(self._live(), address // 4, value if write else 0, write)
        self._check()
        return int(word)

    def close(self) -> None:
        """Free the model; twice is once."""
        self._close()
        self._handle = ctypes.c_void_p(None)

    def _check(self) -> None:
        text = self._library.twin_fault(self._live()).decode()
        if text:
            raise DeviceError(f"simulated board: {text}")

    def _live(self) -> ctypes.c_void_p:
        if not self._handle:
            raise DeviceError("the simulated board is closed")
        return self._handle


def _load(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise DeviceError(f"the compiled twin does not load ({error}); remove {path.parent} and try again") from error
    u32, u64, i64, handle = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64, ctypes.c_void_p
    table: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "create": (handle, (ctypes.POINTER(_TwinConfig),)),
        "destroy": (None, (handle,)),
        "fault": (ctypes.c_char_p, (handle,)),
        "now": (i64, (handle,)),
        "run": (None, (handle, i64)),
        "send": (None, (handle, ctypes.c_char_p, u64)),
        "sending": (u64, (handle,)),
        "received": (u64, (handle,)),
        "broken": (u64, (handle,)),
        "receive": (None, (handle, ctypes.c_char_p, u64)),
        "control": (u32, (handle, u32, u32, ctypes.c_int)),
    }
    for name, (result, arguments) in table.items():
        if function := getattr(library, f"twin_{name}", None):
            function.restype, function.argtypes = result, arguments
    return library
