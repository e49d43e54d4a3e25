"""What to expect of a board before it was built: size and speed of models, and how long loading them takes.

Nothing here is measured. Cycles are those of ``sterna.explore``, at the rate that long reads reach of the memory; the
links are bounds.
"""

from __future__ import annotations

from dataclasses import dataclass

from sterna.compiler.image import SEGMENT_ALIGNMENT
from sterna.explore.cycles import MemoryRate, token_cycles
from sterna.explore.program import token
from sterna.model.geometry import Geometry
from sterna.spec import link, numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.isa import Opcode
from sterna_boards.boards.board import Board
from sterna_boards.recipe import DramRecipe

# Share of the port's limit that long reads reach: simulated for DDR3 (python -m sterna_sim.traffic); of SDR the limit.
SEQUENTIAL = {"DDR3": 7.446 / 8, "SDR": 1.0}
UART_FRAME_BITS = 10
USB_BYTES = 13 * 512 * 8000  # a second: bulk packets in a microframe, at most


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """A model on a board."""

    board: str
    model: str
    bytes: int  # of its image
    fits: bool
    cycles: int  # of a token
    tokens_per_second: float  # at the clock of the board's recipe
    load_seconds: dict[str, float]  # by link, at least


def peak_bytes(recipe: DramRecipe) -> float:
    """Most bytes a second that the memory's pins carry."""
    transfers = {"DDR3": 4, "SDR": 2}[recipe.kind]  # a pin in a cycle of the controller
    return recipe.clock * transfers * recipe.byte_lanes


def image_bytes(geometry: Geometry, config: HardwareConfig) -> int:
    """Bytes of the memory image that the compiler makes of a model of this size."""
    words = 0
    steps = token(geometry, config)
    row = next(steps)  # of the embedding
    for step in steps:
        words += config.descriptor_words
        if step.opcode is Opcode.LOAD:
            words += step.count
        elif step.opcode is Opcode.MATMUL and step.cut is not None:
            words += step.cut.words(step.count)
    row_words = config.descriptor_words + -(-row.count // config.params_per_word)
    program, table = words * config.word_bytes, geometry.vocab * row_words * config.word_bytes
    logits = geometry.vocab * numerics.LOGIT_BYTES
    return sum(-(-part // SEGMENT_ALIGNMENT) * SEGMENT_ALIGNMENT for part in (program, table, logits))


def link_bytes(name: str) -> float:
    """Most bytes of memory a second that a link carries to the board."""
    kind, _, baud = name.partition(":")
    overhead = 1 + link.REQUEST.size + link.CRC.size
    share = link.PAYLOAD_BYTES / (link.PAYLOAD_BYTES + overhead)
    return share * (int(baud) / UART_FRAME_BITS if kind == "uart" else USB_BYTES)


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
        fits=size <= board.memory_bytes,
        cycles=cycles,
        tokens_per_second=board.clock / cycles,
        load_seconds={name: size / link_bytes(name) for name in board.links},
    )
