"""USB devices for pyusb that are not there: software boards behind bulk endpoints, at the level of libusb."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import usb.backend
import usb.core

from sterna.emulator.board import SoftwareBoard
from sterna.spec.link import USB_ENDPOINT, USB_PRODUCT, USB_VENDOR

PACKET = 512
LANGUAGE = 0x0409


class Plugged:
    """A board in a socket, whose serial number is ``serial``."""

    def __init__(self, board: SoftwareBoard, *, serial: str, address: int = 5) -> None:
        self.board, self.serial, self.address = board, serial, address
        self.waiting = bytearray()
        self.gone = self.empty_packet = False
        self.configured = 0
        self.claimed: set[int] = set()


class FakeBackend(usb.backend.IBackend):
    """Boards by the methods that pyusb asks of libusb."""

    def __init__(self, *devices: Plugged) -> None:
        super().__init__()
        self.devices = devices

    def enumerate_devices(self):
        return iter(self.devices)

    def get_device_descriptor(self, dev):
        return SimpleNamespace(
            bLength=18, bDescriptorType=1, bcdUSB=0x200, bDeviceClass=0, bDeviceSubClass=0, bDeviceProtocol=0,
            bMaxPacketSize0=64, idVendor=USB_VENDOR, idProduct=USB_PRODUCT, bcdDevice=0, iManufacturer=0, iProduct=0,
            iSerialNumber=3, bNumConfigurations=1, address=dev.address, bus=1, port_number=1, port_numbers=(1,),
            speed=3,
        )  # fmt: skip

    def get_configuration_descriptor(self, dev, config):
        if config:
            raise IndexError(config)
        return SimpleNamespace(
            bLength=9, bDescriptorType=2, wTotalLength=32, bNumInterfaces=1, bConfigurationValue=1, iConfiguration=0,
            bmAttributes=0x80, bMaxPower=50, extra_descriptors=[],
        )  # fmt: skip

    def get_interface_descriptor(self, dev, intf, alt, config):
        if intf or alt:
            raise IndexError(intf)
        return SimpleNamespace(
            bLength=9, bDescriptorType=4, bInterfaceNumber=0, bAlternateSetting=0, bNumEndpoints=2, bInterfaceClass=255,
            bInterfaceSubClass=255, bInterfaceProtocol=255, iInterface=0, extra_descriptors=[],
        )  # fmt: skip

    def get_endpoint_descriptor(self, dev, ep, intf, alt, config):
        return SimpleNamespace(
            bLength=7, bDescriptorType=5, bEndpointAddress=(USB_ENDPOINT, 0x80 | USB_ENDPOINT)[ep], bmAttributes=2,
            wMaxPacketSize=PACKET, bInterval=0, bRefresh=0, bSynchAddress=0, extra_descriptors=[],
        )  # fmt: skip

    def open_device(self, dev):
        self._require(dev)
        return dev

    def close_device(self, dev_handle):
        pass

    def set_configuration(self, dev_handle, config_value):
        self._require(dev_handle)
        dev_handle.configured = config_value

    def get_configuration(self, dev_handle):
        return dev_handle.configured

    def claim_interface(self, dev_handle, intf):
        if intf in dev_handle.claimed:
            raise usb.core.USBError("Resource busy", errno=errno.EBUSY)
        dev_handle.claimed.add(intf)

    def release_interface(self, dev_handle, intf):
        dev_handle.claimed.discard(intf)

    def ctrl_transfer(self, dev_handle, bmRequestType, bRequest, wValue, wIndex, data, timeout):
        """String descriptors: the languages, then the serial number."""
        text = dev_handle.serial.encode("utf-16-le") if wValue & 0xFF else LANGUAGE.to_bytes(2, "little")
        descriptor = bytes([len(text) + 2, 3]) + text
        data[: len(descriptor)] = type(data)("B", descriptor)
        return len(descriptor)

    def bulk_write(self, dev_handle, ep, intf, data, timeout):
        self._require(dev_handle)
        assert (ep, intf) == (USB_ENDPOINT, 0)
        dev_handle.waiting += dev_handle.board.receive(bytes(data))
        return len(data)

    def bulk_read(self, dev_handle, ep, intf, buff, timeout):
        self._require(dev_handle)
        assert (ep, intf) == (0x80 | USB_ENDPOINT, 0)
        if dev_handle.empty_packet:
            dev_handle.empty_packet = False
            return 0
        if not dev_handle.waiting:
            raise usb.core.USBTimeoutError("Operation timed out", errno=errno.ETIMEDOUT)
        data = dev_handle.waiting[: min(len(buff), PACKET)]
        buff[: len(data)] = type(buff)("B", data)
        del dev_handle.waiting[: len(data)]
        dev_handle.empty_packet = not dev_handle.waiting and len(data) == PACKET
        return len(data)

    def _require(self, dev):
        if dev.gone:
            raise usb.core.USBError("No such device (it may have been disconnected)", errno=errno.ENODEV)
