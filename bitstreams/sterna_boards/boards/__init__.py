"""The boards that a bitstream can be built for, by name."""

from __future__ import annotations

from sterna.errors import SternaError
from sterna_boards.boards.board import Board
from sterna_boards.boards.butterstick import BUTTERSTICK
from sterna_boards.boards.ecpix5 import ECPIX5
from sterna_boards.boards.ulx3s import ULX3S

BOARDS = {board.name: board for board in (ECPIX5, BUTTERSTICK, ULX3S)}


def find_board(name: str) -> Board:
    """The board called ``name``; a clear error lists those there are."""
    try:
        return BOARDS[name]
    except KeyError:
        raise SternaError(f"there is no board {name!r}; choose one of {', '.join(BOARDS)}") from None
