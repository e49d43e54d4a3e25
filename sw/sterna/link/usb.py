"""A board on USB, through pyusb: two bulk endpoints that carry the bytes of the link."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from sterna.errors import DeviceError, SternaError
from sterna.link.pipe import BytePipe
from sterna.link.transport import TOKEN_SECONDS, LinkTransport
from sterna.progress import Progress
from sterna.spec.link import USB_ENDPOINT, USB_PRODUCT, USB_VENDOR

INTERFACE = 0
IN = 0x80 | USB_ENDPOINT
READ_BYTES = 512  # asked for at once: the largest packet, which then never waits for another one
WRITE_SECONDS = 5.0  # in which a board must take what is written


class UsbPipe(BytePipe):
    """A USB device of :data:`USB_VENDOR` and :data:`USB_PRODUCT`.

    Args:
        serial: Its serial number, which is the build id, or its place as "BUS-ADDRESS"; may be empty where there is
            only one.

    Raises:
        SternaError: pyusb or libusb is not installed, or several devices could be meant.
        DeviceError: there is no such device, or it cannot be opened.
    """

    def __init__(self, serial: str = "") -> None:
        self._usb = _pyusb()
        found = {name: device for name, device in _named(self._usb).items() if not serial or _is(device, serial)}
        if not found:
            raise DeviceError(
                f"no USB board {serial or f'{USB_VENDOR:04x}:{USB_PRODUCT:04x}'} is there: check the cable and that "
                "its bitstream is loaded (`sterna flash`)"
            )
        if len(found) > 1:
            raise SternaError(f'several USB boards are there ({", ".join(found)}): name one, as in "usb:{min(found)}"')
        ((name, device),) = found.items()
        self._name, self._device = f"usb:{name}", device
        try:
            self._device.set_configuration()
            self._usb.util.claim_interface(self._device, INTERFACE)
        except self._usb.core.USBError as error:
            raise DeviceError(
                f"the USB board {self._name} cannot be opened ({_reason(error)}): is another program using it, and "
                "may this user write to it (udev rule)?"
            ) from error

    @property
    def name(self) -> str:
        """ "usb:" and the serial number."""
        return self._name

    def read(self, timeout: float) -> bytes:
        """See :meth:`BytePipe.read`."""
        deadline = time.monotonic() + timeout
        try:
            while True:  # an empty packet is no end of the wait
                left = max(1, round(1000 * (deadline - time.monotonic())))
                if (data := bytes(self._open().read(IN, READ_BYTES, left))) or time.monotonic() > deadline:
                    return data
        except self._usb.core.USBTimeoutError:
            return b""
        except self._usb.core.USBError as error:
            raise self._lost(error) from error

    def write(self, data: bytes) -> None:
        """See :meth:`BytePipe.write`."""
        try:
            if self._open().write(USB_ENDPOINT, data, round(1000 * WRITE_SECONDS)) != len(data):
                raise DeviceError(f"the USB board {self._name} took only a part: plug it in again")
        except self._usb.core.USBError as error:
            raise self._lost(error) from error

    def close(self) -> None:
        """See :meth:`BytePipe.close`."""
        if self._device is not None:
            with contextlib.suppress(self._usb.core.USBError):
                self._usb.util.dispose_resources(self._device)  # lets go of the interface too
            self._device = None

    def _open(self) -> Any:
        if self._device is None:
            raise DeviceError(f"the USB board {self._name} is closed")
        return self._device

    def _lost(self, error: Exception) -> DeviceError:
        self.close()
        return DeviceError(f"the board {self._name} is gone ({_reason(error)}): plug it in and start again")


class UsbTransport(LinkTransport):
    """A board on USB; see :class:`LinkTransport`.

    Args:
        address: Serial number or place, see :class:`UsbPipe`; may be empty where there is one board.
        build: See :class:`LinkTransport`, as the others.
        memory_test: Likewise.
        timeout: Likewise.
        progress: Likewise.
    """

    def __init__(
        self,
        address: str = "",
        *,
        build: str | None = None,
        memory_test: str = "short",
        timeout: float | str = TOKEN_SECONDS,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(UsbPipe(address), build=build, memory_test=memory_test, timeout=timeout, progress=progress)


def usb_boards() -> tuple[str, ...]:
    """Names of the boards that are plugged in; () without pyusb."""
    try:
        return tuple(_named(_pyusb()))
    except SternaError:
        return ()


def _named(usb: Any) -> dict[str, Any]:
    """Boards by serial number, or by place where two have the same one: boards with one bitstream do."""
    devices = _devices(usb)
    numbers = [_serial(device) for device in devices]
    return {
        serial if serial and numbers.count(serial) == 1 else _place(device): device
        for serial, device in zip(numbers, devices, strict=True)
    }


def _is(device: Any, name: str) -> bool:
    return name in (_serial(device), _place(device))


def _serial(device: Any) -> str:
    try:
        return str(device.serial_number or "")
    except Exception:  # reading it may need rights, and pyusb raises what it likes
        return ""


def _place(device: Any) -> str:
    return f"{device.bus}-{device.address}"


def _devices(usb: Any) -> list[Any]:
    try:
        return list(usb.core.find(find_all=True, idVendor=USB_VENDOR, idProduct=USB_PRODUCT))
    except usb.core.NoBackendError as error:
        raise SternaError("USB boards need the library libusb-1.0: install it with the system's packages") from error


def _pyusb() -> Any:
    try:
        import usb.core
        import usb.util
    except ImportError as error:
        raise SternaError(f"USB boards need pyusb ({error}): pip install 'sterna[board]'") from error
    return usb


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
