"""A board on a serial port, through pyserial."""

from __future__ import annotations

import contextlib
from typing import Any

from sterna.errors import DeviceError, SternaError
from sterna.link.client import LinkClient
from sterna.link.pipe import BytePipe
from sterna.link.transport import TOKEN_SECONDS, LinkTransport, number
from sterna.progress import Progress
from sterna.spec.link import UART_RATES

PROBE_SECONDS = 0.15  # in which a board at the right rate answers, adapters that collect bytes for 16 ms included
PROBES = 2  # of each rate
WRITE_SECONDS = 10.0  # in which a port must take what is written


class SerialPipe(BytePipe):
    """A serial port, 8N1 without flow control.

    Args:
        port: Path or name, such as "/dev/ttyUSB0" or "COM3".
        baud: Bits a second.

    Raises:
        SternaError: pyserial is not installed.
        DeviceError: the port cannot be opened, or not at this rate.
    """

    def __init__(self, port: str, *, baud: int) -> None:
        serial = _pyserial()
        self._name, self._baud, self._failure = port, baud, serial.SerialException
        try:
            self._port: Any = serial.Serial(port, baudrate=baud, timeout=0, write_timeout=WRITE_SECONDS, exclusive=True)
        except (serial.SerialException, OSError, ValueError) as error:
            raise DeviceError(f"the serial port {port} cannot be opened at {baud} baud: {_reason(error)}") from error
        with contextlib.suppress(Exception):  # a favour that not every system or adapter does
            self._port.set_low_latency_mode(True)

    @property
    def name(self) -> str:
        """The port."""
        return self._name

    @property
    def baud(self) -> int:
        """Its rate, bits a second."""
        return self._baud

    def read(self, timeout: float) -> bytes:
        """See :meth:`BytePipe.read`."""
        port = self._open()
        try:
            if waiting := port.in_waiting:
                return bytes(port.read(waiting))
            if port.timeout != timeout:  # setting it programs the port anew
                port.timeout = timeout
            first = bytes(port.read(1))
            return first + bytes(port.read(port.in_waiting)) if first else b""
        except (self._failure, OSError) as error:
            raise self._lost(error) from error

    def write(self, data: bytes) -> None:
        """See :meth:`BytePipe.write`."""
        port = self._open()
        try:
            port.write(data)
        except (self._failure, OSError) as error:
            raise self._lost(error) from error

    def close(self) -> None:
        """See :meth:`BytePipe.close`."""
        if self._port is not None:
            with contextlib.suppress(self._failure, OSError):
                self._port.close()
            self._port = None

    def _open(self) -> Any:
        if self._port is None:
            raise DeviceError(f"the serial port {self._name} is closed")
        return self._port

    def _lost(self, error: Exception) -> DeviceError:
        self.close()
        return DeviceError(f"the board at {self._name} is gone ({_reason(error)}): plug it in and start again")


class SerialTransport(LinkTransport):
    """A board on a serial port; see :class:`LinkTransport`.

    Args:
        address: The port, such as "/dev/ttyUSB0".
        baud: Bits a second; None tries the rates that boards have.
        build: See :class:`LinkTransport`, as the others.
        memory_test: Likewise.
        timeout: Likewise.
        progress: Likewise.
    """

    def __init__(
        self,
        address: str = "",
        *,
        baud: int | str | None = None,
        build: str | None = None,
        memory_test: str = "short",
        timeout: float | str = TOKEN_SECONDS,
        progress: Progress | None = None,
    ) -> None:
        if not address:
            raise SternaError('name the port, as in "serial:/dev/ttyUSB0" (`sterna devices` lists those that answer)')
        pipe = open_serial(address, baud=None if baud is None else int(number("baud", baud)))
        super().__init__(pipe, build=build, memory_test=memory_test, timeout=timeout, progress=progress)


def open_serial(port: str, *, baud: int | None = None) -> SerialPipe:
    """The port at ``baud``, or at the first rate of :data:`UART_RATES` at which a board answers.

    Raises:
        SternaError: pyserial is not installed.
        DeviceError: the port cannot be opened, or nothing answers at any rate.
    """
    if baud is not None:
        return SerialPipe(port, baud=baud)
    for rate in UART_RATES:
        try:
            pipe = SerialPipe(port, baud=rate)
        except DeviceError:
            if rate == UART_RATES[-1]:  # which every port has
                raise
            continue
        try:
            LinkClient(pipe, timeout=PROBE_SECONDS, attempts=PROBES).sync()
            return pipe
        except DeviceError:
            pipe.close()
    raise DeviceError(
        f"no Sterna board answers at {port} at any of {', '.join(map(str, UART_RATES))} baud: check the cable, the "
        "board's power and that its bitstream is loaded (`sterna flash`)"
    )


def serial_ports() -> tuple[str, ...]:
    """Ports of this machine that may have a board; () without pyserial."""
    try:
        from serial.tools.list_ports import comports
    except ImportError:
        return ()
    return tuple(sorted(port.device for port in comports() if port.vid is not None))


def _pyserial() -> Any:
    try:
        import serial
    except ImportError as error:
        raise SternaError(f"serial ports need pyserial ({error}): pip install 'sterna[board]'") from error
    return serial


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).rstrip(".")
