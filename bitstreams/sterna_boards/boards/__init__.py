"""The boards that a bitstream can be built for, by name."""

from __future__ import annotations

from sterna.errors import SternaError
from sterna_boards.boards.board import Board

BOARDS = {
    board.name: board
    for board in (
        Board(
            name="ecpix5",
            summary="ECPIX-5 85F: LFE5UM5G-85F, 512 MiB of DDR3 at 300 MT/s, 16 pins, FT2232H, USB 2.0 PHY.",
            recipe_name="ecpix5-ddr3",
            memory_bytes=512 << 20,
            links=("uart:12000000", "usb"),
            link_kinds=("uart", "usb"),
            programmer=("--board", "ecpix5"),
        ),
        Board(
            name="butterstick",
            summary="ButterStick 8G-85F: LFE5UM5G-85F, 1 GiB of DDR3L at 300 MT/s, 16 pins, two ranks, USB 2.0 PHY.",
            recipe_name="butterstick-ddr3",
            memory_bytes=1 << 30,
            links=("usb",),
            link_kinds=("usb", "uart"),
            programmer=("--dfu", "--vid", "0x1209", "--pid", "0x5af1", "--altsetting", "0"),  # its boot loader
        ),
        Board(
            name="ulx3s",
            summary="Radiona ULX3S 85F: LFE5U-85F, 32 MB of SDR SDRAM at 100 MHz on 16 pins, FT231X.",
            recipe_name="ulx3s-sdr",
            memory_bytes=32 << 20,
            links=("uart:3000000",),
            link_kinds=("uart",),
            programmer=("--board", "ulx3s"),
        ),
    )
}


def find_board(name: str) -> Board:
    """The board called ``name``; a clear error lists those there are."""
    try:
        return BOARDS[name]
    except KeyError:
        raise SternaError(f"there is no board {name!r}; choose one of {', '.join(BOARDS)}") from None
