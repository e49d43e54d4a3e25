"""LUNA's USB device behind a ULPI PHY, with the two bulk endpoints of the link.

LUNA 0.2.3 is used as it is, but for five things that are mended here and nowhere else:

- Its bulk endpoints keep their data toggles over a bus reset and over SET_CONFIGURATION, where USB 2.0 (9.1.1.5) has
  both sides start from DATA0: the first packet after a second enumeration would be acknowledged and thrown away. So
  both endpoints are reset then.
- It answers one descriptor whatever the speed; a host at full speed would read endpoints of 512 bytes, which it may
  refuse. So the configuration follows the speed.
- An endpoint to the host has one packet size, fixed when it is built. So at full speed packets end after 63 bytes: the
  device never sends a packet of 64 bytes, and needs no empty one after it.
- Bytes to the PHY come through much logic, of which nothing is left for the way to the pins (a PHY wants them 5 to 6 ns
  before the next edge). So a register is put before LUNA's translator to ULPI.
- The PHY's reset follows the ``usb`` domain's, whose clock may come from that very PHY. So it is left to the caller.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth import Cat, Elaboratable, Module, ResetInserter, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from luna.gateware.usb.request.standard import StandardRequestHandler
from luna.gateware.usb.usb2 import USBSpeed
from luna.gateware.usb.usb2.descriptor import GetDescriptorHandlerBlock
from luna.gateware.usb.usb2.device import USBDevice
from luna.gateware.usb.usb2.endpoints.stream import USBStreamInEndpoint, USBStreamOutEndpoint

from sterna.spec import link
from sterna_hw.link.usb_descriptors import BY_SPEED, CONTROL_PACKET, HIGH_SPEED_PACKET, usb_descriptors

RECEIVE_BUFFER = 4 * HIGH_SPEED_PACKET - 1  # bytes; LUNA stores one more word than that


class UlpiSignature(wiring.Signature):
    """A ULPI PHY from the FPGA's side, in step with the 60 MHz clock of the ``usb`` domain; ``rst`` is active high."""

    def __init__(self) -> None:
        super().__init__(
            {
                "data_i": In(8),
                "data_o": Out(8),
                "data_oe": Out(1),
                "dir": In(1),
                "nxt": In(1),
                "stp": Out(1),
                "rst": Out(1),
            }
        )


class _Descriptors(Elaboratable):
    """LUNA's descriptor ROM; at full speed, the index of a descriptor of :data:`BY_SPEED` is one higher."""

    def __init__(self, descriptors: Any, full_speed: Any) -> None:
        self._handler = handler = GetDescriptorHandlerBlock(descriptors, max_packet_length=CONTROL_PACKET)
        self._full_speed = full_speed
        self.value = Signal(16)
        self.length, self.start, self.start_position = handler.length, handler.start, handler.start_position
        self.tx, self.stall = handler.tx, handler.stall

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.rom = self._handler
        index, kind = self.value[:8], self.value[8:]
        m.d.comb += self._handler.value.eq(Cat(index | (self._full_speed & kind.matches(*BY_SPEED)), kind))
        return m


class _StandardRequests(StandardRequestHandler):
    """Standard requests, with the configuration of the speed."""

    def __init__(self, descriptors: Any, full_speed: Any) -> None:
        super().__init__(descriptors, max_packet_size=CONTROL_PACKET)
        self._full_speed = full_speed

    def get_descriptor_handler_submodule(self) -> _Descriptors:
        """What LUNA asks for descriptors."""
        return _Descriptors(self.descriptors, self._full_speed)


class _BulkOut(USBStreamOutEndpoint):
    """From the host; begins anew, with DATA0 and empty, while ``restart`` is high.

    A class of its own, since LUNA names the submodule after it: the name is then the same in each run.
    """

    def __init__(self, restart: Signal) -> None:
        super().__init__(
            endpoint_number=link.USB_ENDPOINT, max_packet_size=HIGH_SPEED_PACKET, buffer_size=RECEIVE_BUFFER
        )
        self._restart = restart

    def elaborate(self, platform: Any) -> Any:
        return ResetInserter({"usb": self._restart})(super().elaborate(platform))


class _BulkIn(USBStreamInEndpoint):
    """To the host; likewise."""

    def __init__(self, restart: Signal) -> None:
        super().__init__(endpoint_number=link.USB_ENDPOINT, max_packet_size=HIGH_SPEED_PACKET)
        self._restart = restart

    def elaborate(self, platform: Any) -> Any:
        return ResetInserter({"usb": self._restart})(super().elaborate(platform))


class UsbDevice(wiring.Component):
    """USB 2.0 device at high speed (full speed at a host that has no other), all in the ``usb`` domain.

    Parameters
    ----------
    board : str
        Product string.
    build_id : int
        Serial number.

    Ports
    -----
    rx : Out(stream of bytes)
        From the host, in the order sent; while it is held up the device answers NAK.
    tx : In(stream of {byte, last})
        To the host. ``last`` ends a packet, and with it the host's transfer; other packets leave when they are full.
        At full speed every packet has at most 63 bytes, see above; at high speed one of 512 with ``last`` is followed
        by an empty one.
    configured : Out(1)
        A host has chosen the configuration.
    high_speed : Out(1)
        The bus runs at 480 Mb/s.
    phy_reset : In(1)
        Goes to the PHY as it is.
    ulpi : Out(UlpiSignature)
    """

    def __init__(self, *, board: str, build_id: int) -> None:
        self._descriptors = usb_descriptors(board=board, build_id=build_id)
        super().__init__(
            {
                "rx": Out(stream.Signature(8)),
                "tx": In(stream.Signature(data.StructLayout({"byte": 8, "last": 1}))),
                "configured": Out(1),
                "high_speed": Out(1),
                "phy_reset": In(1),
                "ulpi": Out(UlpiSignature()),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        ulpi, tx, rx = self.ulpi, self.tx, self.rx
        pins = SimpleNamespace(
            data=SimpleNamespace(i=ulpi.data_i, o=ulpi.data_o, oe=ulpi.data_oe),
            dir=SimpleNamespace(i=ulpi.dir),
            nxt=SimpleNamespace(i=ulpi.nxt),
            stp=SimpleNamespace(o=ulpi.stp),
            rst=SimpleNamespace(o=Signal()),  # makes LUNA wait a millisecond before it uses the PHY; see the module
        )
        m.submodules.luna = luna = USBDevice(bus=pins, handle_clocking=False)
        luna.utmi = self._registered(m, luna.translator)
        control = luna.add_control_endpoint()
        control.add_request_handler(_StandardRequests(self._descriptors, luna.speed == USBSpeed.FULL))
        restart = Signal()
        bulk_out = _BulkOut(restart)
        bulk_in = _BulkIn(restart)
        luna.add_endpoint(bulk_out)
        luna.add_endpoint(bulk_in)
        m.d.comb += [
            luna.connect.eq(1),
            ulpi.rst.eq(self.phy_reset),
            restart.eq(luna.reset_detected | control.interface.config_changed),
            self.configured.eq(control.interface.active_config != 0),
            self.high_speed.eq(luna.speed == USBSpeed.HIGH),
            rx.payload.eq(bulk_out.stream.payload),
            rx.valid.eq(bulk_out.stream.valid),
            bulk_out.stream.ready.eq(rx.ready),
            bulk_in.stream.payload.eq(tx.payload.byte),
            bulk_in.stream.last.eq(tx.payload.last),
            bulk_in.stream.valid.eq(tx.valid),
            tx.ready.eq(bulk_in.stream.ready),
        ]
        return m

    def _registered(self, m: Module, translator: Any) -> SimpleNamespace:
        """UTMI as ``translator`` has it, with a register for the byte to be sent."""
        utmi = SimpleNamespace(**vars(translator))
        utmi.tx_valid, utmi.tx_data, utmi.tx_ready = Signal(), Signal(8), Signal()
        valid, byte = Signal(), Signal(8)
        m.d.comb += [
            translator.tx_valid.eq(valid),
            translator.tx_data.eq(byte),
            utmi.tx_ready.eq(~valid | translator.tx_ready),
        ]
        with m.If(utmi.tx_ready):
            m.d.usb += [valid.eq(utmi.tx_valid), byte.eq(utmi.tx_data)]
        return utmi
