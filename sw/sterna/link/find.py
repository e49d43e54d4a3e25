"""Boards that are plugged into this machine."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.engines.transport import parse_device
from sterna.errors import SternaError
from sterna.link.client import LinkClient
from sterna.link.identity import Identity, read_identity
from sterna.link.pipe import BytePipe
from sterna.link.serial import open_serial, serial_ports
from sterna.link.transport import number
from sterna.link.usb import UsbPipe, usb_boards

SERIAL, USB = "serial", "usb"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A board that answered."""

    device: str  # as sterna.load takes it
    baud: int | None  # of a serial link
    identity: Identity


def candidates() -> tuple[str, ...]:
    """Devices that may be boards: USB devices of ours, then serial ports of USB adapters."""
    return (*(f"{USB}:{serial}" for serial in usb_boards()), *(f"{SERIAL}:{port}" for port in serial_ports()))


def probe(device: str) -> Found:
    """Ask the board behind ``device`` what it is, and leave everything else as it is.

    Raises:
        DeviceError: nothing answers, or no board of ours.
        SternaError: ``device`` is no link to a board, or what the link needs is not installed.
    """
    pipe, baud = _open(device)
    try:
        return Found(device=device, baud=baud, identity=read_identity(LinkClient(pipe)))
    finally:
        pipe.close()


def _open(device: str) -> tuple[BytePipe, int | None]:
    name, options = parse_device(device)
    address, baud = options.get("address", ""), options.get("baud")
    if name == USB:
        return UsbPipe(address), None
    if name == SERIAL and address:
        port = open_serial(address, baud=None if baud is None else int(number("baud", baud)))
        return port, port.baud
    raise SternaError(f'{device!r} is no link to a board: name one as "serial:/dev/ttyUSB0", "usb" or "usb:NUMBER"')
