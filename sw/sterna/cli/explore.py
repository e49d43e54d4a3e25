"""``sterna explore``: which builds of the accelerator are worth having for a model and a board."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sterna.errors import SternaError

if TYPE_CHECKING:
    from sterna.explore.boards import BoardLimits
    from sterna.explore.search import Candidate
    from sterna.model.geometry import Geometry

_DESCRIPTION = """\
Search lanes, slots, vector width, rows a word, tiles and buffers, and print the builds that no other beats in tokens a
second, LUTs, memory on chip and multipliers at once. Cycles come from a model of the accelerator that agrees with its
simulation within 2 %; memories and multipliers are counted, LUTs are estimated from synthesis for ECP5, and for other
devices compared as if theirs were no larger. Tokens a second are those of all slots together."""
_EPILOG = """\
examples:
  sterna explore 370m --board ecpix5
      clock, memory and what its FPGA has for the accelerator are the board's; options beside it change them
  sterna explore 370m --board kv260 --slots 1 --plot builds.png
      builds for one sequence at a time, and a picture of them
  sterna explore small.sterna --clock 75 --bandwidth 558 --beat-bytes 16 --block-rams 208 --multipliers 156
      a stored model on DDR3 x16 at 75 MHz: MB/s of a long sequential read, bytes of the memory port, limits
  sterna explore 2.7b --clock 300 --bandwidth 18240 --beat-bytes 64 --json
      a geometry by name, without limits, as one JSON object for scripts"""
_LIMITS = {
    "lanes": "most lanes",
    "slots": "most slots: sequences that share a pass over the weights",
    "luts": "LUT sites for the accelerator",
    "block-rams": "block RAMs of 18 kbit for it",
    "ultra-rams": "ultra RAMs, which then hold the recurrent state",
    "multipliers": "multipliers of 18 by 18 bits",
}


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
    parser.add_argument("--board", metavar="NAME", help="take clock, memory and limits from this board")
    parser.add_argument("--clock", type=float, metavar="MHZ", help="clock of the accelerator")
    parser.add_argument("--bandwidth", type=float, metavar="MB/S", help="of a long sequential read")
    parser.add_argument("--beat-bytes", type=int, metavar="N", help="width of the memory port (default: 16)")
    parser.add_argument("--latency", type=int, metavar="N", help="cycles to the first beat of a read (default: 24)")
    for name, text in _LIMITS.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=text)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the builds: .png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    try:
        from sterna.explore.plot import KINDS, plot
        from sterna.explore.search import SLOTS, candidates, evaluate, pareto
    except ImportError as error:
        raise SternaError(f"explore needs more packages ({error}): pip install 'sterna[hw,bitstream]'") from error
    from sterna.cli.progress import progress

    kind = args.plot.suffix.lstrip(".") if args.plot else ""
    if args.plot and kind not in KINDS:
        raise SternaError(f"there are no pictures of kind {kind!r}; name the file with one of .{', .'.join(KINDS)}")
    board = _board(args)
    geometry = _geometry(args.model)
    most = board.limits.slots or SLOTS[-1]
    configs = list(candidates(geometry, beat_bytes=board.beat_bytes, most_slots=most))
    found = evaluate(configs, geometry, board.memory, clock_mhz=board.clock_mhz, limits=board.limits)
    best = pareto(c for c in progress(found, total=len(configs), label="builds", unit="build") if c)
    if args.plot:
        picture = plot(best, title=f"{args.model} on {args.board or 'a board'}", kind=kind)
        scratch = args.plot.with_name(f".{args.plot.name}.part")
        scratch.write_bytes(picture)
        scratch.replace(args.plot)
    if args.json:
        builds = [asdict(candidate) for candidate in best]
        print(json.dumps({"model": args.model, "board": args.board, "limits": asdict(board.limits), "builds": builds}))
    else:
        print(_table(best))
    return 0


def _board(args: argparse.Namespace) -> BoardLimits:
    """The board that is named, with the options beside it, or one of options alone."""
    from sterna.explore.boards import LATENCY, BoardLimits, board_limits
    from sterna.explore.cycles import MemoryRate
    from sterna.explore.search import Limits

    if not args.board and (args.clock is None or args.bandwidth is None):
        raise SternaError("say for which --board, or give --clock and --bandwidth")
    for name in ("clock", "bandwidth", "beat_bytes", *(limit.replace("-", "_") for limit in _LIMITS)):
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise SternaError(f"--{name.replace('_', '-')} must be above 0, not {value:g}")
    base = board_limits(args.board) if args.board else None
    clock = args.clock or (base.clock_mhz if base else 0)
    beat = args.beat_bytes or (base.beat_bytes if base else 16)
    latency = args.latency if args.latency is not None else base.memory.latency if base else LATENCY
    if args.bandwidth:
        rate = args.bandwidth / clock
    else:
        assert base is not None  # or there would be a bandwidth
        rate = base.memory.bytes_per_cycle * base.clock_mhz / clock  # the memory is as fast as it was
    if rate > beat:
        raise SternaError(
            f"{rate * clock:g} MB/s at {clock:g} MHz is {rate:g} bytes a cycle, more than a beat of {beat}: choose a "
            "wider --beat-bytes"
        )
    names = [limit.replace("-", "_") for limit in _LIMITS]
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return BoardLimits(
        clock_mhz=clock,
        beat_bytes=beat,
        memory=MemoryRate(bytes_per_cycle=rate, latency=latency),
        limits=replace(base.limits if base else Limits(), **given),
    )


def _geometry(name: str) -> Geometry:
    from sterna.importer.synthetic import GEOMETRIES
    from sterna.model.store import Model

    return GEOMETRIES[name] if name in GEOMETRIES and not Path(name).exists() else Model.open(name).geometry


def _table(best: list[Candidate]) -> str:
    lines = [
        "tokens/s  roofline  slots  lanes  vector  rows/word  tile rows  prefetch  LUT sites  block RAMs  ultra RAMs"
        "  multipliers"
    ]
    for candidate in best:
        config = candidate.config
        lines.append(
            f"{candidate.tokens_per_second:8.2f}{100 * candidate.efficiency:8.2f} %{candidate.slots:7}"
            f"{candidate.lanes:7}{config.vector_width:8}{config.max_rows_per_word:11}{config.tile_rows:11}"
            f"{config.prefetch_words:10}{candidate.luts:11}{candidate.block_rams:12}{candidate.ultra_rams:12}"
            f"{candidate.multipliers:13}"
        )
    return "\n".join(lines)
