"""The contract between the driver and a device: memory, registers, waiting, reset.

A transport is one open connection to one accelerator, a simulated one or one behind a cable. Implementations register
under the entry point group ``sterna.transports`` and pass the conformance suite in ``tests/sim/conformance.py``.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from importlib.metadata import entry_points
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.spec.config import HardwareConfig
from sterna.spec.registers import OFFSET, REGISTERS, Access, Status

ENTRY_POINTS = "sterna.transports"
_ACCESS = {register.name: register.access for register in REGISTERS}


class Transport(ABC):
    """One accelerator, from the host's side. Addresses and sizes in bytes; a method that fails raises ``DeviceError``.

    Memory may be read and written while no token runs. Not safe for use from two threads at once.
    """

    @property
    @abstractmethod
    def config(self) -> HardwareConfig:
        """The configuration that the host expects; the driver compares its hash with the device's."""

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of memory from address 0 on, with clusters from the first address of each; None: not known."""
        return None

    @property
    def fast_memory(self) -> bool:
        """Whether all of memory is read in seconds, so that what was loaded may be read back as a matter of course."""
        return False

    @abstractmethod
    def read_memory(self, address: int, size: int) -> bytes:
        """``size`` bytes from ``address``, of any alignment.

        Raises:
            DeviceError: the range is not inside the memory, or the link failed.
        """

    @abstractmethod
    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data`` from ``address`` on, of any alignment; it is in memory when the next token starts.

        Raises:
            DeviceError: the range is not inside the memory, or the link failed.
        """

    @abstractmethod
    def read_register(self, name: str) -> int:
        """The 32-bit value of a register of ``sterna.spec.registers``.

        Raises:
            ValueError: there is no such register.
            DeviceError: the device did not answer.
        """

    @abstractmethod
    def write_register(self, name: str, value: int) -> None:
        """Write a register; it has taken effect when this returns.

        Raises:
            ValueError: there is no such register, it is read-only, or the value is not one of 32 bits.
            DeviceError: the device did not answer.
        """

    @abstractmethod
    def wait(self, mask: Status, timeout: float | None = None) -> Status:
        """Block until STATUS has a bit of ``mask``, and return STATUS.

        Args:
            mask: Bits to wait for, any of them.
            timeout: Seconds; None for the transport's own limit.

        Raises:
            DeviceError: none came in time; the accelerator may still be running.
        """

    @abstractmethod
    def reset(self) -> None:
        """Bring the accelerator to the state after power-up as far as the link can; memory contents stay."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the device; every later call raises ``DeviceError``, closing again does nothing."""

    def take_trace(self, slot: int = 0) -> npt.NDArray[np.int32] | None:
        """Row results of a slot or cluster since the last START, in the order made; None where none can be shown."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def register_offset(name: str, *, value: int | None = None) -> int:
    """Byte offset of a register; with ``value``, checks that it may be written there.

    Raises:
        ValueError: there is no such register, it is read-only, or the value is not one of 32 bits.
    """
    if name not in OFFSET:
        raise ValueError(f"there is no register {name!r}; choose one of {', '.join(OFFSET)}")
    if value is not None:
        if _ACCESS[name] is not Access.RW:
            raise ValueError(f"register {name} is read-only")
        if not 0 <= value < 1 << 32:
            raise ValueError(f"{value} does not fit register {name}: 0..2**32 - 1")
    return OFFSET[name]


def transports() -> tuple[str, ...]:
    """Names that :func:`open_transport` takes."""
    return tuple(sorted(entry.name for entry in entry_points(group=ENTRY_POINTS)))


def parse_device(device: str) -> tuple[str, dict[str, str]]:
    """Name and options of a device such as "serial:/dev/ttyUSB0?baud=3000000"; what the colon begins is ``address``.

    Raises:
        SternaError: what follows the question mark is not "option=value", joined by "&".
    """
    place, mark, query = device.partition("?")
    name, colon, address = place.partition(":")
    options = {"address": address} if colon else {}
    try:
        return name, options | dict(parse_qsl(query, strict_parsing=bool(mark)))
    except ValueError:
        raise SternaError(
            f"device {device!r}: after the question mark stands option=value, as in ?baud=3000000"
        ) from None


def open_transport(device: str, **options: Any) -> Transport:
    """Open the transport that ``device`` names; its options and ``options`` go to the constructor.

    Raises:
        SternaError: there is no such transport or option, or what the transport needs is not installed.
    """
    name, given = parse_device(device)
    options = {**given, **options}
    known = transport_options(name)
    for option in options:
        if option not in known:
            raise SternaError(f"device {name!r} has no option {option!r}; its options: {', '.join(known)}")
    transport = _transport_class(name)(**options)
    assert isinstance(transport, Transport)
    return transport


def transport_options(name: str) -> tuple[str, ...]:
    """What the constructor of the transport called ``name`` takes.

    Raises:
        SternaError: there is no such transport, or what it needs is not installed.
    """
    return tuple(inspect.signature(_transport_class(name)).parameters)


def _transport_class(name: str) -> Any:
    found = [entry for entry in entry_points(group=ENTRY_POINTS) if entry.name == name]
    if not found:
        raise SternaError(f"there is no device {name!r}; transports installed: {', '.join(transports()) or 'none'}")
    try:
        return found[0].load()
    except ImportError as error:
        raise SternaError(f"device {name!r} needs more packages ({error}): pip install 'sterna[hw]'") from error
