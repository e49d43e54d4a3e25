"""``python -m sterna_boards.boards``: the boards, and what to expect of them."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from sterna.compiler.program import Placement
from sterna.errors import SternaError
from sterna.importer.synthetic import GEOMETRIES
from sterna.model.geometry import Geometry
from sterna_boards.boards import BOARDS, find_board
from sterna_boards.boards.board import Board
from sterna_boards.boards.expect import Expectation, expect, peak_bytes

EXAMPLES = """examples:
  python -m sterna_boards.boards                 a table of boards and models, as in docs/boards.md
  python -m sterna_boards.boards ecpix5 --json   one board, one JSON object a line"""
MODELS = {
    "gutenberg-31m": Geometry(hidden=512, layers=8, inner=1536, vocab=4096, rms_eps=1e-6),
    **{name: GEOMETRIES[name] for name in ("370m", "1.3b", "2.7b")},
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sterna_boards.boards",
        description="Boards and what to expect of them: computed, not measured; rates of memory and links are bounds.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("board", nargs="?", help="only this one")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    try:
        boards = [find_board(options.board)] if options.board else list(BOARDS.values())
    except SternaError as error:
        parser.exit(1, f"{error}\n")
    found = [(board, each) for board in boards for each in _expectations(board)]
    if options.json:
        for _, each in found:
            print(json.dumps(asdict(each)))
        return 0
    columns = ("board", "MHz", "memory, MB/s", "model", "image, MB", "cycles a token", "tokens/s", "loading, s")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for board, each in found:
        loading = ", ".join(f"{name.partition(':')[0]} {seconds:.1f}" for name, seconds in each.load_seconds.items())
        print(
            f"| {board.name} | {board.clock / 1e6:g} | {peak_bytes(board.recipe) / 1e6:.0f} | {each.model} "
            f"| {each.bytes / 1e6:.1f} | {each.cycles:,} | {each.tokens_per_second:.2f} | {loading} |"
        )
    return 0


def _expectations(board: Board) -> list[Expectation]:
    """Those of the models that fit."""
    fitting = []
    for name, geometry in MODELS.items():
        try:
            Placement.of(geometry, board.config)
        except SternaError:
            continue
        each = expect(board, name, geometry)
        if each.fits:
            fitting.append(each)
    return fitting


if __name__ == "__main__":
    raise SystemExit(main())
