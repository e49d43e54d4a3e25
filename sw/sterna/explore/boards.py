"""What boards have for an accelerator: device, memory and clock."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.errors import SternaError
from sterna.explore.cycles import MemoryRate
from sterna.explore.search import Limits
from sterna_boards.boards import BOARDS
from sterna_boards.boards.expect import SEQUENTIAL, peak_bytes
from sterna_boards.xilinx.targets import TARGETS

USABLE = 0.8  # of a device's LUTs; a fuller one seldom meets timing
LATENCY = 24  # cycles to the first beat of a read
# An LFE5U-85F, and what a board's other gateware takes of it (memory controller, links): a whole bitstream of
# bitstreams/README.md less its accelerator, rounded up.
ECP5_LUTS, ECP5_BLOCK_RAMS, ECP5_MULTIPLIERS = 83_640, 208, 156
REST = {"ecpix5": (8_000, 8), "butterstick": (9_500, 8), "ulx3s": (3_700, 4)}  # LUT sites, block RAMs
# Memories of the boards that need Vivado: bytes a second at the pins, the part of the port's rate that long reads
# reach, seconds to the first beat. They are those of docs/memory.md: four ports of DDR4, two channels' rate of HBM.
BANKED = {"kv260": (19.2e9, 0.9502, 150e-9), "u55c": (28.8e9, 0.9215, 106.7e-9)}
NAMES = (*BOARDS, *BANKED)


@dataclass(frozen=True, kw_only=True)
class BoardLimits:
    """What ``sterna explore`` needs of a board."""

    clock_mhz: float
    beat_bytes: int
    memory: MemoryRate
    limits: Limits


def board_limits(name: str) -> BoardLimits:
    """Of the board called ``name``: clock and memory of its bitstream, and what its device has for the accelerator.

    Raises:
        SternaError: there is none, or it is not known how fast its memory is.
    """
    if name in BOARDS:
        board = BOARDS[name]
        luts, rams = REST[name]
        rate = SEQUENTIAL[board.recipe.kind] * peak_bytes(board.recipe) / board.recipe.clock
        return BoardLimits(
            clock_mhz=board.clock / 1e6,
            beat_bytes=board.config.beat_bytes,
            memory=MemoryRate(bytes_per_cycle=rate, latency=LATENCY),
            limits=Limits(
                luts=round(USABLE * ECP5_LUTS) - luts,
                block_rams=ECP5_BLOCK_RAMS - rams,
                multipliers=ECP5_MULTIPLIERS,
            ),
        )
    if name in BANKED:
        target = TARGETS[name]
        pins, sequential, latency = BANKED[name]
        beat = target.config.beat_bytes
        return BoardLimits(
            clock_mhz=target.clock / 1e6,
            beat_bytes=beat,
            memory=MemoryRate(
                bytes_per_cycle=sequential * min(beat, pins / target.clock), latency=round(latency * target.clock)
            ),
            limits=Limits(
                luts=round(USABLE * target.luts),
                block_rams=target.block_rams,
                ultra_rams=target.ultra_rams,
                multipliers=target.dsps,
            ),
        )
    raise SternaError(f"there is no board {name!r} to explore; choose one of {', '.join(NAMES)}")
