"""The DRAM controller: LiteDRAM as a component with an AXI4 port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth import Cat, Const, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna_hw.axi import AXI4Read, AXI4Write

MODULE = "litedram"  # of the generated Verilog
PORT = "user_port_memory"


class Wishbone(wiring.Signature):
    """Classic Wishbone of 32 bits, seen from the initiator; ``adr`` counts words."""

    def __init__(self) -> None:
        super().__init__(
            {
                "adr": Out(30),
                "dat_w": Out(32),
                "dat_r": In(32),
                "we": Out(1),
                "cyc": Out(1),
                "stb": Out(1),
                "ack": In(1),
            }
        )


class Dfi(wiring.Signature):
    """One phase of the DFI, between controller and PHY, seen from the controller."""

    def __init__(self, *, row_bits: int, bank_bits: int, data_bits: int) -> None:
        super().__init__(
            {
                "address": Out(row_bits),
                "bank": Out(bank_bits),
                "cs_n": Out(1),
                "ras_n": Out(1),
                "cas_n": Out(1),
                "we_n": Out(1),
                "wrdata_en": Out(1),
                "wrdata": Out(data_bits),
                "wrdata_mask": Out(data_bits // 8),
                "rddata_en": Out(1),
                "rddata": In(data_bits),
                "rddata_valid": In(1),
            }
        )


class Dram(wiring.Component):
    """A core that LiteDRAM generated, by the names of ``sterna_boards.recipe``; nothing else is in here.

    The core makes its user's clock. Both buses refuse transfers until ``init_done``, which the host sets through
    ``control`` when it has initialised the chip; LiteDRAM has no error responses, and an address beyond the memory
    wraps around.

    Args:
        core_address_width: Bits of a byte address that the core takes.
        address_width: Bits of a byte address on ``bus``; bits above the core's are ignored.
        data_bytes: Width of ``bus``.
        verilog: Text of the core, handed to the platform of a board.
        dfi: One phase, and phases, of a core generated for simulation; None for a core with a PHY.
        pins: Names of the core's pins to I/O ports of a board.

    Attributes:
        clk_in, rst_in: In The clock pin; of a simulated core, the user's clock itself.
        clk, rst: Out The clock of ``bus`` and ``control``.
        locked: Out The PLL's.
        bus: In AXI4; INCR bursts of full beats, answered in order.
        control: In Registers of the controller.
        init_done, init_error: Out What the host has written to the registers of these names.
        dfi0, dfi1, …: Out The memory side of a simulated core.
    """

    def __init__(
        self,
        *,
        core_address_width: int,
        address_width: int,
        data_bytes: int,
        verilog: str = "",
        dfi: tuple[Dfi, int] | None = None,
        pins: Mapping[str, Any] | None = None,
    ) -> None:
        if address_width < core_address_width:
            raise ValueError(f"address_width must be at least the core's {core_address_width}, not {address_width!r}")
        self._core_address_width, self._verilog, self._pins = core_address_width, verilog, pins or {}
        read, write = AXI4Read(address_width, data_bytes), AXI4Write(address_width, data_bytes)
        phase, self._phases = dfi if dfi else (None, 0)
        super().__init__(
            {
                "clk_in": In(1),
                "rst_in": In(1),
                "clk": Out(1),
                "rst": Out(1),
                "locked": Out(1),
                "init_done": Out(1),
                "init_error": Out(1),
                "bus": In(wiring.Signature({**dict(read.members), **dict(write.members)})),
                "control": In(Wishbone()),
                **{f"dfi{index}": Out(phase) for index in range(self._phases)},
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        ports = {
            "i_clk": self.clk_in,
            "i_rst": self.rst_in,
            "o_user_clk": self.clk,
            "o_user_rst": self.rst,
            "o_pll_locked": self.locked,
            "o_init_done": self.init_done,
            "o_init_error": self.init_error,
            f"i_{PORT}_arid": Const(0, 1),
            f"i_{PORT}_awid": Const(0, 1),
            "i_wb_ctrl_sel": Const(0b1111, 4),
            "i_wb_ctrl_cti": Const(0, 3),
            "i_wb_ctrl_bte": Const(0, 2),
        }
        for name, member in self.bus.signature.members.items():
            value = getattr(self.bus, name)
            if name in ("araddr", "awaddr"):
                value = value[: self._core_address_width]
            elif name in ("arsize", "awsize"):
                value = Cat(value, Const(0, 1))  # the core's port has a bit more than AXI4
            ports[f"{'i' if member.flow is In else 'o'}_{PORT}_{name}"] = value
        for name, member in self.control.signature.members.items():
            ports[f"{'i' if member.flow is In else 'o'}_wb_ctrl_{name}"] = getattr(self.control, name)
        for index in range(self._phases):
            phase = getattr(self, f"dfi{index}")
            for name, member in phase.signature.members.items():
                ports[f"{'i' if member.flow is In else 'o'}_dfi{index}_{name}"] = getattr(phase, name)
        for name, port in self._pins.items():
            ports[f"io_{name}"] = port
        m.submodules.core = Instance(MODULE, **ports)
        if platform is not None:
            platform.add_file(f"{MODULE}.v", self._verilog)
        return m
