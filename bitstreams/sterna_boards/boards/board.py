# amaranth: UnusedElaboratable=no
"""What a board is to the build flow and to the host's tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sterna.errors import SternaError
from sterna.spec.config import HardwareConfig, preset
from sterna_boards.boards.top import BoardTop
from sterna_boards.recipe import RECIPES, DramCore, DramRecipe


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board with its FPGA, memory and links."""

    name: str
    summary: str  # one sentence about the hardware
    platform: Callable[[], Any]  # makes a fresh amaranth platform: pins, device, speed grade
    top_class: type[BoardTop]
    recipe_name: str
    memory_bytes: int
    links: tuple[str, ...]  # of its bitstream: "uart:" and the rate in baud, "usb"
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
        known = self.top_class.LINKS
        wrong = [link for link in links if link.partition(":")[0] not in known]
        if wrong or not 1 <= len(links) <= 2:
            raise SternaError(f"{self.name} takes one or two links out of {', '.join(known)}, not {', '.join(links)!r}")
        return self.top_class(
            name=self.name, config=self.config, clock=self.clock, core=core, build_id=build_id, links=links
        )
