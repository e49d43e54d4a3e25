"""What the board tells a USB host about itself: descriptors for high and for full speed."""

from __future__ import annotations

import struct

from usb_protocol.emitters import DeviceDescriptorCollection
from usb_protocol.emitters.descriptors.standard import ConfigurationDescriptorEmitter
from usb_protocol.types import USBTransferType
from usb_protocol.types.descriptors.standard import StandardDescriptorNumbers as Number

from sterna.spec import link

MANUFACTURER = "Sterna"
HIGH_SPEED_PACKET = 512  # bytes, what the bulk endpoints of a device at high speed have to take
FULL_SPEED_PACKET = 64  # bytes, the most that they may take at full speed
CONTROL_PACKET = 64  # bytes of endpoint 0, at both speeds
CONFIGURATION = 1
VENDOR_CLASS = 0xFF  # no standard driver takes the interface; libusb does
LANGUAGES = 0  # index of the string descriptor that lists them

# Index under which the descriptors that depend on the speed are stored.
AT_HIGH_SPEED = 0  # the index that a host asks for
AT_FULL_SPEED = 1
BY_SPEED = (Number.CONFIGURATION, Number.OTHER_SPEED)


def usb_descriptors(*, board: str, build_id: int) -> DeviceDescriptorCollection:
    """All descriptors of the device: the serial number is the build id in hexadecimal.

    Types in :data:`BY_SPEED` are stored for a device that runs at high and at full speed, at the indices above.
    """
    all_of_them = DeviceDescriptorCollection()
    with all_of_them.DeviceDescriptor() as device:
        device.bcdUSB = 2.0
        device.idVendor = link.USB_VENDOR
        device.idProduct = link.USB_PRODUCT
        device.iManufacturer = MANUFACTURER
        device.iProduct = board
        device.iSerialNumber = f"{build_id:032x}"
        device.bMaxPacketSize0 = CONTROL_PACKET
        device.bNumConfigurations = 1
    # By hand, since usb_protocol makes this one of nine bytes instead of ten.
    qualifier = struct.pack("<BBHBBBBBx", 10, Number.DEVICE_QUALIFIER, 0x0200, 0, 0, 0, CONTROL_PACKET, 1)
    all_of_them.add_descriptor(qualifier)
    high, full = _configuration(HIGH_SPEED_PACKET), _configuration(FULL_SPEED_PACKET)
    for index, this, other in ((AT_HIGH_SPEED, high, full), (AT_FULL_SPEED, full, high)):
        all_of_them.add_descriptor(this, index=index)
        all_of_them.add_descriptor(bytes([other[0], Number.OTHER_SPEED, *other[2:]]), index=index)
    return all_of_them


def _configuration(packet: int) -> bytes:
    """The one configuration: an interface with two bulk endpoints of ``packet`` bytes."""
    configuration = ConfigurationDescriptorEmitter()
    configuration.bConfigurationValue = CONFIGURATION
    with configuration.InterfaceDescriptor() as interface:
        interface.bInterfaceNumber = 0
        interface.bInterfaceClass = interface.bInterfaceSubclass = interface.bInterfaceProtocol = VENDOR_CLASS
        for direction in (0x00, 0x80):  # from and to the host
            with interface.EndpointDescriptor() as endpoint:
                endpoint.bEndpointAddress = direction | link.USB_ENDPOINT
                endpoint.bmAttributes = USBTransferType.BULK
                endpoint.wMaxPacketSize = packet
                endpoint.bInterval = 0
    emitted: bytes = configuration.emit()
    return emitted
