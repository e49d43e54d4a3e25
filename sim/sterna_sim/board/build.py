"""From a board to a shared library that simulates it: the elaborated top, models of the primitives, Verilator, C++."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from sterna.errors import SternaError
from sterna_boards.boards.board import Board
from sterna_boards.collisions import board_memories
from sterna_boards.dram import dram_core
from sterna_boards.recipe import DramCore
from sterna_sim.build import cache_root, kept_library, kept_text
from sterna_sim.compile import Design, Progress
from sterna_sim.netlist import colliding_verilog

HERE = Path(__file__).resolve().parent
HARNESS = "board/twin.cpp"
TOP = "twin"
_FLAGS = ("--pins-inout-enables",)
_SOURCES = [("sterna_hw", "**/*.py"), ("sterna", "spec/*.py"), ("sterna_boards", "**/*.py")]

# The pins of a board's top that the harness knows, by its names; other inputs keep a level.
PINS: Mapping[str, Mapping[str, str]] = {
    "ecpix5": {
        "clk": "clk100_0__io",
        "uart_rx": "uart_0__rx__io",
        "uart_tx": "uart_0__tx__io",
        "ck": "ddr3_0__clk__p",
        "cke": "ddr3_0__clk_en__io",
        "ras_n": "ddr3_0__ras__io",
        "cas_n": "ddr3_0__cas__io",
        "we_n": "ddr3_0__we__io",
        "ba": "ddr3_0__ba__io",
        "a": "ddr3_0__a__io",
        "dm": "ddr3_0__dm__io",
        "dq": "ddr3_0__dq__io",
        "dqs": "ddr3_0__dqs__p",
    },
}
LEVELS: Mapping[str, Mapping[str, str]] = {"ecpix5": {"rst_0__io": "1'b1"}}  # a button that nobody presses


def board_core(board: Board, *, progress: Progress | None = None) -> DramCore:
    """The memory controller of ``board``, with its PHY."""
    return dram_core(board.recipe, cache=cache_root() / "dram", progress=progress)


def board_library(board: Board, *, links: Sequence[str], build_id: int, progress: Progress | None = None) -> Path:
    """Path of the library that simulates the whole top of ``board``; built on the first call, in a few minutes.

    Raises:
        SternaError: the board has no twin, tools are missing, or the build failed.
    """
    if board.name not in PINS:
        raise SternaError(f"the board {board.name} has no twin; boards with one: {', '.join(PINS)}")
    core = board_core(board, progress=progress)
    top = kept_text(
        repr((board, tuple(links), build_id, hashlib.sha256(core.verilog.encode()).hexdigest())),
        [*_SOURCES],
        lambda: _elaborate(board, core, links, build_id),
        note=f"elaborating the top of {board.name}",
        progress=progress,
    )
    return _library(top + _top_wrapper(board) + core.verilog, alone=False, progress=progress)


def core_library(core: DramCore, *, progress: Progress | None = None) -> Path:
    """Path of the library that simulates a board's memory controller alone; see :func:`board_library`."""
    return _library((HERE / "core_twin.sv").read_text() + core.verilog, alone=True, progress=progress)


def _library(text: str, *, alone: bool, progress: Progress | None) -> Path:
    design = Design(TOP, TOP, (HERE / "primitives.sv").read_text() + text, flags=_FLAGS)
    return kept_library(HARNESS, [design], defines=[f"-DSTERNA_TWIN_CORE={alone:d}"], progress=progress)


def _elaborate(board: Board, core: DramCore, links: Sequence[str], build_id: int) -> str:
    """Verilog of the RTLIL that synthesis reads, memories as synthesis takes them."""
    top = board.top(core=core, build_id=build_id, links=tuple(links))
    plan = board.platform().prepare(top, name="top", emit_src=False)
    return colliding_verilog(str(plan.files["top.il"]), board_memories("top", links))


def _top_wrapper(board: Board) -> str:
    pins = "".join(f", .{theirs}({ours})" for ours, theirs in PINS[board.name].items())
    levels = "".join(f", .{pin}({level})" for pin, level in LEVELS[board.name].items())
    text = (HERE / "board_twin.sv").read_text()
    return text.replace("/* pins */", (pins + levels).removeprefix(", "))
