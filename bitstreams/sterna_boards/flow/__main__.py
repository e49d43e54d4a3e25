"""``python -m sterna_boards.flow``: the command behind ``make bitstream``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sterna.errors import SternaError
from sterna_boards.collisions import board_memories
from sterna_boards.flow import build as steps
from sterna_boards.flow.design import TOP, Target
from sterna_boards.flow.table import render, stored
from sterna_boards.xilinx.__main__ import main as xilinx
from sterna_boards.xilinx.targets import TARGETS

_EPILOG = """\
examples:
  python -m sterna_boards.flow ecpix5                 bitstream and report in build/bitstreams/ecpix5/
  python -m sterna_boards.flow ecpix5 --seed 7 8 9    try these placements in turn, until one meets timing
  python -m sterna_boards.flow ulx3s --dry-run        the build id, and whether that build is stored
  python -m sterna_boards.flow kv260                  what Vivado needs, and Vivado: python -m sterna_boards.xilinx
  python -m sterna_boards.flow --table                write the summary table of bitstreams/README.md

A build that misses timing ends with an error and leaves no bitstream. One whose inputs have not changed is not
repeated: its stored report is printed. exit codes: 0 done, 2 not built, 130 stopped by Ctrl-C."""
README = Path("bitstreams/README.md")
INTERRUPTED = 130


def target(name: str, cache: Path) -> Target:
    """What to build for the board called ``name``; ``cache`` keeps generated DRAM cores.

    Raises:
        SternaError: there is no such board, or what its top level is made of is not installed.
    """
    from sterna_boards.boards import find_board

    board = find_board(name)

    def top(build_id: int) -> object:
        from sterna_boards.dram import dram_core

        return board.top(core=dram_core(board.recipe, cache=cache), build_id=build_id, links=board.links)

    return Target(
        name=board.name,
        platform=board.platform,
        top=top,
        clock=board.clock,
        crossing=board.recipe.crossing,
        memories=board_memories(TOP, board.links),
    )


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        "python -m sterna_boards.flow",
        description="Build a board's bitstream with open tools, and report area and timing.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("board", nargs="?", default="", help="name of the board")
    parser.add_argument("--seed", type=int, nargs="+", default=list(steps.SEEDS), help="of placement, tried in order")
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder of builds and cores (build)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--dry-run", action="store_true", help="elaborate only, and print the build id")
    parser.add_argument("--table", action="store_true", help=f"write the table of {README} from the stored reports")
    return parser


def run(arguments: argparse.Namespace) -> None:
    """Do what the command line says.

    Raises:
        SternaError: one sentence for the user.
    """
    folder = arguments.out / "bitstreams"
    if arguments.table:
        README.write_text(render(README.read_text(), stored(folder)))
        return
    goal = target(arguments.board, arguments.out / "dram")
    if arguments.dry_run:
        build_id, _ = steps.identify(goal)
        kept = folder / goal.name / f"{build_id:032x}"
        print(f"{build_id:032x} {'stored' if (kept / steps.REPORT).exists() else 'not built'}: {kept}")
        return
    report = steps.build(goal, folder=folder, seeds=arguments.seed, note=lambda text: print(text, file=sys.stderr))
    print(report.json() if arguments.json else "\n".join(report.lines()), end="" if arguments.json else "\n")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line (default: of the process) and return the exit code."""
    arguments = make_parser().parse_args(words)
    try:
        if arguments.board in TARGETS:  # of Vivado, with a command line of its own
            return xilinx([arguments.board, "--out", str(arguments.out / "bitstreams")])
        run(arguments)
        return 0
    except SternaError as error:
        print(f"bitstream: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("bitstream: stopped", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
