"""``sterna explore``: which builds of the accelerator are worth having for a model and a board."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sterna.errors import SternaError

if TYPE_CHECKING:
    from sterna.explore.search import Candidate
    from sterna.model.geometry import Geometry

_DESCRIPTION = """\
Search lanes, vector width, rows a word, tiles and buffers, and print the builds that no other beats in speed, lanes,
memory on chip and multipliers at once. Cycles come from a model of the accelerator that agrees with its simulation
within half a percent; memory and multipliers are counted exactly. LUTs are not estimated."""
_EPILOG = """\
examples:
  sterna explore 370m --clock 75 --bandwidth 558 --beat-bytes 16
      a geometry by name on DDR3 x16 at 75 MHz: MB/s of a long sequential read, bytes of the memory port
  sterna explore small.sterna --clock 75 --bandwidth 558 --beat-bytes 16 --ram-kbit 3744 --multipliers 156
      a stored model within the memory and the multipliers of an ECP5-85
  sterna explore 2.7b --clock 300 --bandwidth 19200 --beat-bytes 64 --json
      the same as one JSON object, for scripts"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``sterna``."""
    parser = subparsers.add_parser(
        "explore",
        help="find the builds of the accelerator that suit a model and a board",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="directory that `sterna import` wrote, or a geometry's name")
    parser.add_argument("--clock", type=float, required=True, metavar="MHZ", help="clock of the accelerator")
    parser.add_argument("--bandwidth", type=float, required=True, metavar="MB/S", help="of a long sequential read")
    parser.add_argument(
        "--beat-bytes", type=int, default=16, metavar="N", help="width of the memory port (default: 16)"
    )
    parser.add_argument(
        "--latency", type=int, default=24, metavar="N", help="cycles to the first beat of a read (default: 24)"
    )
    parser.add_argument("--lanes", type=int, metavar="N", help="most lanes")
    parser.add_argument("--ram-kbit", type=float, metavar="N", help="memory on chip")
    parser.add_argument("--multipliers", type=int, metavar="N", help="most multipliers of 18 by 18 bits")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    try:
        from sterna.explore.cycles import MemoryRate
        from sterna.explore.search import Limits, candidates, evaluate, pareto
    except ImportError as error:
        raise SternaError(f"explore needs more packages ({error}): pip install 'sterna[hw]'") from error
    from sterna.cli.progress import progress

    if not args.clock > 0 or not args.bandwidth > 0:
        raise SternaError("--clock and --bandwidth must be above 0")
    rate = args.bandwidth / args.clock
    if rate > args.beat_bytes:
        raise SternaError(
            f"{args.bandwidth:g} MB/s at {args.clock:g} MHz is {rate:g} bytes a cycle, more than a beat of "
            f"{args.beat_bytes}: choose a wider --beat-bytes"
        )
    geometry = _geometry(args.model)
    limits = Limits(lanes=args.lanes, ram_kbit=args.ram_kbit, multipliers=args.multipliers)
    memory = MemoryRate(bytes_per_cycle=rate, latency=args.latency)
    configs = list(candidates(geometry, beat_bytes=args.beat_bytes))
    found = evaluate(configs, geometry, memory, clock_mhz=args.clock, limits=limits)
    best = pareto(c for c in progress(found, total=len(configs), label="builds", unit="build") if c)
    if args.json:
        print(json.dumps({"model": args.model, "builds": [asdict(candidate) for candidate in best]}))
    else:
        print(_table(best))
    return 0


def _geometry(name: str) -> Geometry:
    from sterna.importer.synthetic import GEOMETRIES
    from sterna.model.store import Model

    return GEOMETRIES[name] if name in GEOMETRIES and not Path(name).exists() else Model.open(name).geometry


def _table(best: list[Candidate]) -> str:
    lines = ["tokens/s  roofline  lanes  vector  rows/word  tile rows  prefetch  RAM kbit  multipliers"]
    for candidate in best:
        config = candidate.config
        lines.append(
            f"{candidate.tokens_per_second:8.2f}{100 * candidate.efficiency:8.2f} %{candidate.lanes:7}"
            f"{config.vector_width:8}{config.max_rows_per_word:11}{config.tile_rows:11}{config.prefetch_words:10}"
            f"{candidate.ram_kbit:10.0f}{candidate.multipliers:13}"
        )
    return "\n".join(lines)
