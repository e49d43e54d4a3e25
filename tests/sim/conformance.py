"""What every transport must do, whatever is behind it: functions that take a factory of open transports.

A test module of a new link imports :data:`CHECKS` and runs each with a factory; nothing here needs a model, and the
accelerator stays idle, so the suite runs on simulated and on real devices. ``scratch`` is a byte range of memory that
may be overwritten.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from sterna.engines.transport import Transport
from sterna.errors import DeviceError
from sterna.spec.registers import MAGIC, REGISTERS, VERSION, Access, Control, Status

Factory = Callable[[], Transport]

SCRATCH = range(0x10_0000, 0x11_0000)
# Registers that hold what the host writes; their widths differ, so values stay small and aligned to any beat.
STORED = ("TOKEN", "PROGRAM_ADDRESS", "PROGRAM_BEATS", "EMBED_ADDRESS", "EMBED_BEATS", "VOCABULARY", "LOGITS_ADDRESS")


def identity(factory: Factory, scratch: range) -> None:
    """The device says what it is, and that it is the configuration that the transport claims."""
    with factory() as transport:
        assert transport.read_register("MAGIC") == MAGIC
        assert transport.read_register("VERSION") >> 16 == VERSION >> 16
        assert transport.read_register("CONFIG_HASH") == transport.config.hash


def memory_holds_what_is_written(factory: Factory, scratch: range) -> None:
    """Ranges of any size and alignment, neighbours untouched."""
    rng = random.Random(1)
    with factory() as transport:
        shadow = bytearray(rng.randbytes(len(scratch)))
        transport.write_memory(scratch.start, shadow)
        for size in (1, 2, 3, 5, 8, 31, 64, 257, 4096, 5000):
            offset = rng.randrange(len(scratch) - size)
            piece = rng.randbytes(size)
            shadow[offset : offset + size] = piece
            transport.write_memory(scratch.start + offset, memoryview(piece))
            assert transport.read_memory(scratch.start + offset, size) == piece
        assert transport.read_memory(scratch.start, len(scratch)) == shadow
        transport.write_memory(scratch.start, b"")
        assert transport.read_memory(scratch.start, 0) == b""


def memory_survives_reset(factory: Factory, scratch: range) -> None:
    """Both kinds of reset leave memory alone."""
    with factory() as transport:
        transport.write_memory(scratch.start, b"still here")
        transport.write_register("CONTROL", Control.RESET)
        transport.reset()
        assert transport.read_memory(scratch.start, 10) == b"still here"


def memory_range_is_checked(factory: Factory, scratch: range) -> None:
    """Beyond the end of any address is an error, not a wrap."""
    with factory() as transport:
        with pytest.raises(DeviceError):
            transport.read_memory((1 << 64) - 4, 4)
        with pytest.raises(DeviceError):
            transport.write_memory((1 << 64) - 4, b"beyond")


def registers_hold_what_is_written(factory: Factory, scratch: range) -> None:
    """Each of its own, in any order."""
    with factory() as transport:
        for turn in range(2):
            values = {name: 4096 * (index + 1 + turn) for index, name in enumerate(STORED)}
            for name, value in values.items():
                transport.write_register(name, value)
            assert {name: transport.read_register(name) for name in reversed(STORED)} == values


def register_misuse_is_refused(factory: Factory, scratch: range) -> None:
    """Unknown names, read-only registers and wide values never reach the device."""
    with factory() as transport:
        with pytest.raises(ValueError, match="no register 'NOTHING'"):
            transport.read_register("NOTHING")
        with pytest.raises(ValueError, match="no register 'NOTHING'"):
            transport.write_register("NOTHING", 0)
        for register in REGISTERS:
            if register.access is Access.RO:
                with pytest.raises(ValueError, match="read-only"):
                    transport.write_register(register.name, 0)
        for value in (-1, 1 << 32):
            with pytest.raises(ValueError, match="TOKEN"):
                transport.write_register("TOKEN", value)


def idle_after_reset(factory: Factory, scratch: range) -> None:
    """A reset leaves nothing running, no error, and an answering register port."""
    with factory() as transport:
        transport.reset()
        assert transport.read_register("STATUS") == 0
        assert transport.read_register("ERROR_CAUSE") == 0
        assert transport.read_register("MAGIC") == MAGIC


def wait_times_out(factory: Factory, scratch: range) -> None:
    """Waiting for what cannot come ends with an error that says so, soon, and leaves the device usable."""
    with factory() as transport:
        transport.reset()
        started = time.monotonic()
        with pytest.raises(DeviceError, match="time-out"):
            transport.wait(Status.DONE | Status.ERROR, timeout=0.05)
        assert time.monotonic() - started < 10
        assert transport.read_register("MAGIC") == MAGIC


def closed_is_closed(factory: Factory, scratch: range) -> None:
    """Every use after close is an error, closing again is not; the device can be opened again."""
    transport = factory()
    transport.close()
    transport.close()
    uses: tuple[Callable[[], object], ...] = (
        lambda: transport.read_register("MAGIC"),
        lambda: transport.write_register("TOKEN", 0),
        lambda: transport.read_memory(scratch.start, 1),
        lambda: transport.write_memory(scratch.start, b"x"),
        lambda: transport.wait(Status.DONE, timeout=0.01),
        transport.reset,
    )
    for use in uses:
        with pytest.raises(DeviceError, match="closed"):
            use()
    with factory() as again:
        assert again.read_register("MAGIC") == MAGIC


CHECKS: tuple[Callable[[Factory, range], None], ...] = (
    identity,
    memory_holds_what_is_written,
    memory_survives_reset,
    memory_range_is_checked,
    registers_hold_what_is_written,
    register_misuse_is_refused,
    idle_after_reset,
    wait_times_out,
    closed_is_closed,
)
