# amaranth: UnusedElaboratable=no
"""What a board is to the build flow and to the host's tools."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sterna.errors import SternaError
from sterna.spec.config import HardwareConfig, preset
from sterna_boards.recipe import RECIPES, DramCore, DramRecipe

if TYPE_CHECKING:
    from sterna_boards.boards.top import BoardTop


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board with its FPGA, memory and links.

    Pins and top level are in the module of this package that is called like the board. It is not imported before they
    are asked for: programming a board needs no packages of the gateware.
    """

    name: str
    summary: str  # one sentence about the hardware
    recipe_name: str
    memory_bytes: int
    links: tuple[str, ...]  # of its bitstream: "uart:" and the rate in baud, "usb"
    link_kinds: tuple[str, ...]  # that it has pins for
    programmer: tuple[str, ...]  # options by which openFPGALoader finds it

    @property
    def recipe(self) -> DramRecipe:
        """Of its memory controller, which makes the system's clock."""
        return RECIPES[self.recipe_name]

    @property
    def config(self) -> HardwareConfig:
        """Of its accelerator."""
        return preset(self.name)

    @property
    def clock(self) -> int:
        """Of accelerator, link and controller, hertz."""
        return round(self.recipe.clock)

    def platform(self) -> Any:
        """A fresh amaranth platform: pins, device, speed grade."""
        return import_module(f"{__package__}.{self.name}").Platform()

    def top(self, *, core: DramCore, build_id: int, links: tuple[str, ...] | None = None) -> BoardTop:
        """The top level; nothing is elaborated yet.

        Args:
            core: What was generated from :attr:`recipe`.
            build_id: 128 bits that name the bitstream.
            links: Others than the board's usual ones.

        Raises:
            SternaError: the board has no such link, or none is wanted.
        """
        links = self.links if links is None else links
        wrong = [link for link in links if link.partition(":")[0] not in self.link_kinds]
        if wrong or not 1 <= len(links) <= 2:
            kinds = ", ".join(self.link_kinds)
            raise SternaError(f"{self.name} takes one or two links out of {kinds}, not {', '.join(links)!r}")
        top: BoardTop = import_module(f"{__package__}.{self.name}").Top(
            name=self.name, config=self.config, clock=self.clock, core=core, build_id=build_id, links=links
        )
        return top
