"""ButterStick r1.0, variant 8G-85F."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from amaranth import Cat, ClockSignal, Const, Instance, Module, ResetSignal, Signal
from amaranth.build import Attrs, Pins, Resource, Subsignal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer
from amaranth_boards.butterstick import ButterStickPlatform

from sterna_boards.boards.io_voltage import IoVoltage
from sterna_boards.boards.top import USB_CLOCK, BoardTop

USB_PLL_DIVIDER = 8  # of an oscillator at 480 MHz
IO_VOLTS = (3.3, 1.8, 1.8)  # SYZYGY port 0, where a UART may be; port 1; port 2 with the USB PHY


def _resources() -> list[Resource]:
    """The library's, with fast pins at DRAM and USB PHY, and DRAM data terminated as on the ECPIX-5."""
    resources: list[Resource] = deepcopy(ButterStickPlatform.resources)
    for resource in resources:
        if resource.name in ("ddr3", "usb"):
            resource.attrs["SLEWRATE"] = "FAST"
        if resource.name == "ddr3":
            next(pins for pins in resource.ios if pins.name == "dq").attrs["TERMINATION"] = "75"
    return resources


class Platform(ButterStickPlatform):  # type: ignore[misc]  # amaranth-boards: no types
    """The library's board with all supplies set."""

    resources = (
        *_resources(),
        Resource(
            "uart",
            0,
            Subsignal("rx", Pins("S0", dir="i", conn=("syzygy", 0)), Attrs(PULLMODE="UP")),
            Subsignal("tx", Pins("S2", dir="o", conn=("syzygy", 0))),
            Attrs(IO_TYPE="LVCMOS33"),
        ),
    )

    def __init__(self) -> None:
        super().__init__(VCCIOA="3V3", VCCIOB="1V8", VCCIOC="1V8")

    def _vccio_to_iostandard(self, vccio: str) -> str:
        """The library takes 2.5 V levels at 1.8 V."""
        return "LVCMOS18" if vccio == "1V8" else str(super()._vccio_to_iostandard(vccio))


class Top(BoardTop):
    """Two ranks of DDR3 share all pins but clock, CS#, CKE and ODT."""

    CLOCK = "clk30"
    ULPI = "usb"

    def _dram_pins(self, platform: Any) -> Mapping[str, Any]:
        ddr = platform.request("ddr3", dir="-")
        single = {
            **{name: name for name in ("a", "ba", "dq", "dm", "odt")},
            **{"ras_n": "ras", "cas_n": "cas", "we_n": "we", "cke": "clk_en", "cs_n": "cs", "reset_n": "rst"},
        }
        pins = {f"ddram_{name}": getattr(ddr, pin).io for name, pin in single.items()}
        # The FPGA's port has an address pin more than the chips.
        return {**pins, "ddram_a": ddr.a.io[: self.core.row_bits], "ddram_clk_p": ddr.clk.p, "ddram_dqs_p": ddr.dqs.p}

    def _connect_leds(self, m: Module, platform: Any, shown: list[Any]) -> None:
        # The colours are common to the LEDs: all are blue, and after an error red.
        leds = platform.request("rgb_leds_muxed", dir="-")
        error = shown[-1]
        lit = {"leds": Cat(*shown), "r": error, "g": 0, "b": ~error}
        for name, value in lit.items():
            m.submodules[f"led_{name}"] = buffer = io.Buffer("o", getattr(leds, name))
            m.d.comb += buffer.o.eq(value)

    def _connect_usb_clock(self, m: Module, platform: Any, port: Any) -> None:
        # The PHY takes its clock from the FPGA: a PLL makes it, an output register hands it on.
        locked, clock = Signal(), Signal()
        m.submodules.usb_pll = Instance(
            "EHXPLLL",
            a_FREQUENCY_PIN_CLKI=str(platform.default_clk_frequency / 1e6),
            a_FREQUENCY_PIN_CLKOP=str(USB_CLOCK / 1e6),
            a_ICP_CURRENT="12",
            a_LPF_RESISTOR="8",
            p_FEEDBK_PATH="CLKOP",
            p_CLKI_DIV=1,
            p_CLKFB_DIV=round(USB_CLOCK / platform.default_clk_frequency),
            p_CLKOP_ENABLE="ENABLED",
            p_CLKOP_DIV=USB_PLL_DIVIDER,
            p_CLKOP_CPHASE=USB_PLL_DIVIDER - 1,
            i_CLKI=self._clock_pin,
            i_CLKFB=clock,
            i_RST=Const(0, 1),
            i_STDBY=Const(0, 1),
            o_CLKOP=clock,
            o_LOCK=locked,
        )
        m.submodules.usb_reset = ResetSynchronizer(ResetSignal() | ~locked, domain="usb")
        m.submodules.usb_clock = buffer = io.DDRBuffer("o", port, o_domain="usb")
        m.d.comb += [ClockSignal("usb").eq(clock), buffer.o[0].eq(1), buffer.o[1].eq(0)]

    def _connect_board(self, m: Module, platform: Any) -> None:
        supplies = platform.request("vccio_ctrl", dir="-")
        m.submodules.io_voltage = voltage = IoVoltage(clock=self.description.clock, volts=IO_VOLTS)
        m.submodules.io_voltage_pulses = pulses = io.Buffer("o", supplies.pdm)
        m.submodules.io_voltage_enable = enable = io.Buffer("o", supplies.en)
        m.d.comb += [pulses.o.eq(voltage.pulses), enable.o.eq(voltage.enable)]
