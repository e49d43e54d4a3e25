"""LambdaConcept ECPIX-5 with an LFE5UM5G-85F."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth import Module
from amaranth.lib import io
from amaranth_boards.ecpix5 import ECPIX585Platform as Platform

from sterna_boards.boards.top import BoardTop

__all__ = ["Platform", "Top"]


class Top(BoardTop):
    """The chip's CS# and RESET# are tied on the board; the UART is the FT2232H's second channel."""

    CLOCK = "clk100"
    ULPI = "ulpi"
    RESET = "rst"

    def _dram_pins(self, platform: Any) -> Mapping[str, Any]:
        ddr = platform.request("ddr3", dir="-")
        single = {
            **{name: name for name in ("a", "ba", "dq", "dm", "odt")},
            **{"ras_n": "ras", "cas_n": "cas", "we_n": "we", "cke": "clk_en"},
        }
        pins = {f"ddram_{name}": getattr(ddr, pin).io for name, pin in single.items()}
        return {**pins, "ddram_clk_p": ddr.clk.p, "ddram_dqs_p": ddr.dqs.p}

    def _connect_leds(self, m: Module, platform: Any, shown: list[Any]) -> None:
        for index, (colour, value) in enumerate(zip("ggbr", shown, strict=True)):
            led = platform.request("rgb_led", index, dir="-")
            for name in "rgb":
                m.submodules[f"led_{index}_{name}"] = buffer = io.Buffer("o", getattr(led, name))
                m.d.comb += buffer.o.eq(value if name == colour else 0)
