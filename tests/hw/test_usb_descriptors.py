"""What the gateware tells a USB host, read by libraries that did not write it, and by the host's own code."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import pytest
from usb_protocol.types.descriptors import standard

from sterna.spec.link import USB_ENDPOINT, USB_PRODUCT, USB_VENDOR
from sterna_hw.link.usb_descriptors import FULL_SPEED_PACKET, HIGH_SPEED_PACKET, usb_descriptors

pytest.importorskip("usb.core", reason="pyusb comes with the extra `board`")
import usb.backend
import usb.core

from sterna.link.usb import READ_BYTES, UsbPipe, usb_boards

BUILD_ID = 0x0123_4567_89AB_CDEF_0011_2233_4455_6677
DEVICE, CONFIGURATION, STRING, OTHER_SPEED = 1, 2, 3, 7


@pytest.fixture
def stored() -> dict[tuple[int, int], bytes]:
    """Descriptors by type and index."""
    descriptors = usb_descriptors(board="ecpix5", build_id=BUILD_ID)
    return {(int(kind), index): bytes(descriptor) for kind, index, descriptor in descriptors}


def parts(configuration: bytes) -> list[bytes]:
    """The descriptors in a configuration, by their own lengths."""
    found = []
    while configuration:
        found.append(configuration[: configuration[0]])
        configuration = configuration[configuration[0] :]
    return found


class Backend(usb.backend.IBackend):  # type: ignore[misc]
    """A device at high speed with the given descriptors, as libusb would show it to pyusb."""

    def __init__(self, stored: dict[tuple[int, int], bytes]) -> None:
        super().__init__()
        self.stored, self.calls = stored, []  # type: ignore[var-annotated]
        self.parts = parts(stored[CONFIGURATION, 0])

    def enumerate_devices(self) -> Any:
        return iter(["device"])

    def _shown(self, layout: Any, raw: bytes, **more: Any) -> SimpleNamespace:
        fields = {name: value for name, value in layout.parse(raw).items() if not name.startswith("_")}
        return SimpleNamespace(**{**fields, "extra_descriptors": [], **more})

    def get_device_descriptor(self, dev: Any) -> SimpleNamespace:
        raw = self.stored[DEVICE, 0]
        bcd = int.from_bytes(raw[2:4], "little")
        where = {"address": 5, "bus": 1, "port_number": 1, "port_numbers": (1,), "speed": 3}
        renamed = {"bDeviceSubClass": raw[5], "bcdUSB": bcd, "bcdDevice": 0}
        return self._shown(standard.DeviceDescriptor, raw, **where, **renamed)

    def get_configuration_descriptor(self, dev: Any, config: int) -> SimpleNamespace:
        if config:
            raise IndexError(config)
        return self._shown(standard.ConfigurationDescriptor, self.parts[0])

    def get_interface_descriptor(self, dev: Any, intf: int, alt: int, config: int) -> SimpleNamespace:
        if intf or alt:
            raise IndexError(intf)
        return self._shown(standard.InterfaceDescriptor, self.parts[1], bInterfaceSubClass=self.parts[1][6])

    def get_endpoint_descriptor(self, dev: Any, ep: int, intf: int, alt: int, config: int) -> SimpleNamespace:
        return self._shown(standard.EndpointDescriptor, self.parts[2 + ep], bRefresh=0, bSynchAddress=0)

    def open_device(self, dev: Any) -> str:
        return "handle"

    def close_device(self, dev_handle: Any) -> None:
        pass

    def set_configuration(self, dev_handle: Any, config_value: int) -> None:
        self.calls.append(("configuration", config_value))

    def get_configuration(self, dev_handle: Any) -> int:
        return 0

    def claim_interface(self, dev_handle: Any, intf: int) -> None:
        self.calls.append(("interface", intf))

    def release_interface(self, dev_handle: Any, intf: int) -> None:
        pass

    def ctrl_transfer(
        self, handle: Any, request_type: int, request: int, value: int, index: int, data: Any, _: int
    ) -> int:
        raw = self.stored[value >> 8, value & 0xFF]
        data[: len(raw)] = type(data)("B", raw)
        return len(raw)

    def bulk_write(self, dev_handle: Any, ep: int, intf: int, data: Any, timeout: int) -> int:
        self.calls.append(("write", ep))
        return len(data)

    def bulk_read(self, dev_handle: Any, ep: int, intf: int, buff: Any, timeout: int) -> int:
        self.calls.append(("read", ep))
        buff[:5] = type(buff)("B", b"reply")
        return 5


def test_the_host_finds_and_opens_the_board(
    stored: dict[tuple[int, int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Backend(stored)
    monkeypatch.setattr(usb.core, "find", functools.partial(usb.core.find, backend=backend))
    serial = f"{BUILD_ID:032x}"
    assert usb_boards() == (serial,)
    pipe = UsbPipe(serial)
    assert pipe.name == f"usb:{serial}"
    pipe.write(b"request")
    assert pipe.read(0.1) == b"reply"
    calls = [("configuration", 1), ("interface", 0), ("write", USB_ENDPOINT), ("read", 0x80 | USB_ENDPOINT)]
    assert backend.calls == calls
    assert READ_BYTES % HIGH_SPEED_PACKET == 0, "libusb could overflow"


def test_device_and_strings(stored: dict[tuple[int, int], bytes]) -> None:
    device = standard.DeviceDescriptor.parse(stored[DEVICE, 0])
    assert (device.idVendor, device.idProduct) == (USB_VENDOR, USB_PRODUCT)
    indices = (device.iManufacturer, device.iProduct, device.iSerialNumber)
    strings = [standard.StringDescriptor.parse(stored[STRING, index]).bString for index in indices]
    assert strings == ["Sterna", "ecpix5", f"{BUILD_ID:032x}"]
    for (kind, _), raw in stored.items():
        assert raw[1] == kind
        assert len(raw) == (int.from_bytes(raw[2:4], "little") if kind in (CONFIGURATION, OTHER_SPEED) else raw[0])
    assert stored[6, 0] == bytes([10, 6]) + stored[DEVICE, 0][2:8] + bytes([1, 0])  # USB 2.0, table 9-9


@pytest.mark.parametrize(
    ("index", "here", "elsewhere"),
    [(0, HIGH_SPEED_PACKET, FULL_SPEED_PACKET), (1, FULL_SPEED_PACKET, HIGH_SPEED_PACKET)],
)
def test_configurations(stored: dict[tuple[int, int], bytes], index: int, here: int, elsewhere: int) -> None:
    for kind, packet in ((CONFIGURATION, here), (OTHER_SPEED, elsewhere)):
        head, interface, *endpoints = parts(stored[kind, index])
        assert head[1] == kind
        assert standard.InterfaceDescriptor.parse(interface).bNumEndpoints == len(endpoints) == 2
        ends = [standard.EndpointDescriptor.parse(endpoint) for endpoint in endpoints]
        assert [end.bEndpointAddress for end in ends] == [USB_ENDPOINT, 0x80 | USB_ENDPOINT]
        assert all((end.bmAttributes, end.wMaxPacketSize) == (2, packet) for end in ends)
