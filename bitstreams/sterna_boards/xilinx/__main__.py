"""``python -m sterna_boards.xilinx BOARD``: emit everything that Vivado needs, and size it with Yosys."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from sterna.errors import SternaError
from sterna_boards.xilinx.emit import build, emit
from sterna_boards.xilinx.estimate import estimate
from sterna_boards.xilinx.targets import TARGETS, find_target

_EPILOG = """\
examples:
  python -m sterna_boards.xilinx kv260               emit, then run Vivado
  python -m sterna_boards.xilinx kv260 --emit-only   emit Verilog, constraints, Tcl and the host's device file
  python -m sterna_boards.xilinx kv260 --estimate    LUTs, registers, block RAMs, DSPs as Yosys maps them (minutes)"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    boards = "\n".join(f"  {target.name:6} {target.summary}" for target in TARGETS.values())
    parser = argparse.ArgumentParser(
        "python -m sterna_boards.xilinx",
        description=f"Boards that need Vivado:\n{boards}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("board", metavar="BOARD", help=", ".join(TARGETS))
    parser.add_argument("--out", type=Path, default=Path("build/bitstreams"), help="folder (default: build/bitstreams)")
    parser.add_argument("--emit-only", action="store_true", help="do not run Vivado")
    parser.add_argument(
        "--estimate", action="store_true", help="synthesise with Yosys and print what of the device is taken"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    try:
        target = find_target(args.board)
        folder = emit(target, root=args.out, progress=lambda text: print(text, file=sys.stderr))
        report = (
            estimate(target, folder=folder, progress=lambda text: print(text, file=sys.stderr)) if args.estimate else {}
        )
        if args.json:
            print(json.dumps({"board": target.name, "folder": str(folder), **report}))
        else:
            print(f"{target.name}: {folder}")
            for name, (used, there) in report.items():
                print(f"  {name:12} {used:>9,} of {there:>9,}  {100 * used / there:5.1f} %  (synthesis estimate)")
            if report and target.config.clusters > 1:
                print(f"  Yosys mapped one cluster, counted {target.config.clusters} times, and what is between them")
        if not (args.emit_only or args.estimate):
            build(folder)
    except SternaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
