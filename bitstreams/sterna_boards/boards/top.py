"""What the top levels of all boards share: the memory controller, the system, links and LEDs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from amaranth import ClockDomain, ClockSignal, Elaboratable, Module, ResetSignal, Signal
from amaranth.lib import io, wiring
from amaranth.lib.cdc import ResetSynchronizer

from sterna.spec.board import BoardDescription
from sterna.spec.config import HardwareConfig
from sterna_boards.recipe import DramCore
from sterna_hw.dram import Dram
from sterna_hw.link.uart import Uart
from sterna_hw.link.usb import UsbLink
from sterna_hw.system import System

USB_CLOCK = 60e6  # of a ULPI PHY, hertz


class BoardTop(Elaboratable):  # type: ignore[misc]  # amaranth: no types
    """A whole FPGA: ``Dram`` makes the clock of the ``sync`` domain, in which ``System`` and the links run.

    A board says in a subclass which of its pins are what.

    Args:
        name: Of the board.
        config: The accelerator's.
        clock: Of ``sync``, hertz.
        core: The memory controller.
        build_id: Of the bitstream.
        links: As in :class:`~sterna.spec.board.BoardDescription`.

    Attributes:
        core: The memory controller.
        description: What the bitstream tells the host about itself.
    """

    CLOCK: ClassVar[str]  # resource of the clock pin
    ULPI: ClassVar[str] = ""  # resource of the USB PHY
    RESET: ClassVar[str | None] = None  # resource of a reset button

    def __init__(
        self,
        *,
        name: str,
        config: HardwareConfig,
        clock: int,
        core: DramCore,
        build_id: int,
        links: tuple[str, ...],
    ) -> None:
        self.core, self._build_id = core, build_id
        self._clock_pin = Signal()
        self.description = BoardDescription(board=name, clock=clock, links=links, config=config, dram=core.description)

    def elaborate(self, platform: Any) -> Module:
        """Build the module."""
        m = Module()
        description, core = self.description, self.core
        m.submodules.dram = dram = Dram(
            core_address_width=core.address_width,
            address_width=description.config.address_width,
            data_bytes=core.data_bytes,
            verilog=core.verilog,
            pins=self._dram_pins(platform),
        )
        m.submodules.system = system = System(
            config=description.config,
            description=description,
            build_id=self._build_id,
            links=len(description.links),
        )
        m.domains.sync = ClockDomain()
        m.submodules.clock = clock = io.Buffer("i", platform.request(self.CLOCK, dir="-"))
        m.d.comb += [
            self._clock_pin.eq(clock.i),
            dram.clk_in.eq(self._clock_pin),
            ClockSignal().eq(dram.clk),
            ResetSignal().eq(dram.rst),
        ]
        if self.RESET:
            m.submodules.reset = reset = io.Buffer("i", platform.request(self.RESET, dir="-"))
            m.d.comb += dram.rst_in.eq(reset.i)

        wiring.connect(m, system.bus, dram.bus)
        wiring.connect(m, system.control, dram.control)
        m.d.comb += [
            system.memory_locked.eq(dram.locked),
            system.memory_ready.eq(dram.init_done),
            system.memory_failed.eq(dram.init_error),
        ]
        overflows = [
            self._connect_link(m, platform, link, getattr(system, f"rx{index}"), getattr(system, f"tx{index}"))
            for index, link in enumerate(description.links)
        ]
        error = Signal()  # stays
        with m.If(system.overflow | dram.init_error):
            m.d.sync += error.eq(1)
        m.d.comb += system.overflow.eq(sum(overflows) != 0)
        ready = dram.init_done & ~dram.init_error
        self._connect_leds(m, platform, [dram.locked, ready, system.activity | system.busy, error])
        self._connect_board(m, platform)
        return m

    def _connect_link(self, m: Module, platform: Any, link: str, received: Any, sent: Any) -> Signal:
        """The hardware of ``link`` between its pins and the streams of the system; returns its overflow."""
        kind, _, rate = link.partition(":")
        overflow = Signal(name=f"{kind}_overflow")
        if kind == "uart":
            rx, tx = self._uart_pins(platform)
            m.submodules.uart_rx = rx_buffer = io.Buffer("i", rx)
            m.submodules.uart_tx = tx_buffer = io.Buffer("o", tx)
            m.submodules.uart = uart = Uart(clock_hz=self.description.clock, baud=int(rate))
            m.d.comb += [uart.rx.eq(rx_buffer.i), tx_buffer.o.eq(uart.tx), overflow.eq(uart.overflow)]
            wiring.connect(m, uart.received, received)
            wiring.connect(m, sent, uart.sent)
        else:
            m.submodules.usb = usb = UsbLink(board=self.description.board, build_id=self._build_id)
            self._connect_ulpi(m, platform, usb.ulpi)
            wiring.connect(m, usb.rx, received)
            wiring.connect(m, sent, usb.tx)
        return overflow

    def _connect_ulpi(self, m: Module, platform: Any, ulpi: Any) -> None:
        """The PHY's pins, without registers as its protocol wants it, and its domain ``usb``."""
        pins = platform.request(self.ULPI, dir="-")
        m.domains.usb = ClockDomain()
        m.submodules.ulpi_data = data = io.Buffer("io", pins.data)
        m.d.comb += [ulpi.data_i.eq(data.i), data.o.eq(ulpi.data_o), data.oe.eq(ulpi.data_oe)]
        for name in ("dir", "nxt"):
            m.submodules[f"ulpi_{name}"] = buffer = io.Buffer("i", getattr(pins, name))
            m.d.comb += getattr(ulpi, name).eq(buffer.i)
        for name in ("stp", "rst"):
            m.submodules[f"ulpi_{name}"] = buffer = io.Buffer("o", getattr(pins, name))
            m.d.comb += buffer.o.eq(getattr(ulpi, name))
        self._connect_usb_clock(m, platform, pins.clk)

    def _connect_usb_clock(self, m: Module, platform: Any, port: Any) -> None:
        """Clock and reset of ``usb``: from the PHY's pin, which stands still while the PHY is in reset."""
        platform.add_clock_constraint(port.io, USB_CLOCK)
        m.submodules.usb_clock = buffer = io.Buffer("i", port)
        m.submodules.usb_reset = ResetSynchronizer(ResetSignal(), domain="usb")
        m.d.comb += ClockSignal("usb").eq(buffer.i)

    def _dram_pins(self, platform: Any) -> Mapping[str, Any]:
        """I/O ports by the names of the core."""
        raise NotImplementedError

    def _uart_pins(self, platform: Any) -> tuple[Any, Any]:
        """Ports of receiver and sender."""
        pins = platform.request("uart", 0, dir="-")
        return pins.rx, pins.tx

    def _connect_leds(self, m: Module, platform: Any, shown: list[Any]) -> None:
        """LEDs for: clocks locked, memory ready, at work, an error since the start."""
        raise NotImplementedError

    def _connect_board(self, m: Module, platform: Any) -> None:
        """What else the board wants driven."""
