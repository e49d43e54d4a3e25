"""What to expect of a board before it was built: size and speed of models, and how long loading them takes.

Nothing here is measured. Cycles are those of ``sterna.explore``, at the rate that long reads reach of the memory; the
links are bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from sterna.compiler.image import SEGMENT_ALIGNMENT
from sterna.explore.cycles import MemoryRate, token_cycles
from sterna.explore.program import image_bytes
from sterna.link.rates import UART_BITS, USB_BYTES_PER_SECOND, load_rate
from sterna.model.geometry import Geometry
from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna_boards.boards.board import Board
from sterna_boards.recipe import DramRecipe

# Share of the port's limit that long reads reach, simulated with the real controllers: DDR3 by
# ``python -m sterna_sim.traffic``, SDR by tests/hw/test_sdr_pins.py.
SEQUENTIAL = {"DDR3": 7.446 / 8, "SDR": 3.757 / 4}


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """A model on a board."""

    board: str
    model: str
    bytes: int  # that are loaded
    fits: bool
    cycles: int  # of a token
    tokens_per_second: float  # at the clock of the board's recipe
    load_seconds: dict[str, float]  # by link, as computed by sterna.link.rates


def peak_bytes(recipe: DramRecipe) -> float:
    """Most bytes a second that the memory's pins carry."""
    transfers = {"DDR3": 4, "SDR": 2}[recipe.kind]  # a pin in a cycle of the controller
    return recipe.clock * transfers * recipe.byte_lanes


def memory_bytes(geometry: Geometry, config: HardwareConfig) -> int:
    """Bytes of memory that a model takes at most: what is loaded, and the logits; segments are aligned."""
    return image_bytes(geometry, config) + geometry.vocab * numerics.LOGIT_BYTES + 3 * SEGMENT_ALIGNMENT


def line_rate(name: str) -> float:
    """Bytes a second on a link."""
    kind, _, baud = name.partition(":")
    return int(baud) / UART_BITS if kind == "uart" else USB_BYTES_PER_SECOND


def expect(board: Board, model: str, geometry: Geometry) -> Expectation:
    """What a model of this size does on ``board``.

    Raises:
        SternaError: the model does not fit the memories of the board's configuration.
    """
    recipe = board.recipe
    rate = SEQUENTIAL[recipe.kind] * peak_bytes(recipe) / recipe.clock
    cycles = token_cycles(geometry, board.config, MemoryRate(bytes_per_cycle=rate))
    size = image_bytes(geometry, board.config)
    return Expectation(
        board=board.name,
        model=model,
        bytes=size,
        fits=memory_bytes(geometry, board.config) <= board.memory_bytes,
        cycles=cycles,
        tokens_per_second=board.clock / cycles,
        load_seconds={name: size / load_rate(line_rate(name)) for name in board.links},
    )
