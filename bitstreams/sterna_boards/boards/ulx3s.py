"""Radiona ULX3S with an LFE5U-85F."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth import Module
from amaranth.lib import io
from amaranth_boards.ulx3s import ULX3S_85F_Platform as Platform

from sterna_boards.boards.top import BoardTop

__all__ = ["Platform", "Top"]


class Top(BoardTop):
    """The UART is the FT231X; its RTS# and DTR# are not looked at."""

    CLOCK = "clk25"

    def _dram_pins(self, platform: Any) -> Mapping[str, Any]:
        sdram = platform.request("sdram", dir="-")
        pins = {
            **{name: name for name in ("clk", "a", "ba", "dq")},
            **{"ras_n": "ras", "cas_n": "cas", "we_n": "we", "cs_n": "cs", "cke": "clk_en", "dm": "dqm"},
        }
        return {f"sdram_{name}": getattr(sdram, pin).io for name, pin in pins.items()}

    def _connect_leds(self, m: Module, platform: Any, shown: list[Any]) -> None:
        for index, value in enumerate(shown):
            m.submodules[f"led_{index}"] = buffer = io.Buffer("o", platform.request("led", index, dir="-"))
            m.d.comb += buffer.o.eq(value)

    def _connect_board(self, m: Module, platform: Any) -> None:
        # Low would let the ESP32 on the board take the UART pins and reload the FPGA.
        m.submodules.esp32 = gpio0 = io.Buffer("o", platform.request("esp32", dir="-").gpio0)
        m.d.comb += gpio0.o.eq(1)
