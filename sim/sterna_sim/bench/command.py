"""The command line of ``make bench``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sterna.errors import SternaError
from sterna.importer.synthetic import GEOMETRIES
from sterna.spec.config import PRESETS
from sterna_sim.bench.cases import DEFAULT_CASES, SMALL, STORED, SYNTAX, parse
from sterna_sim.bench.picture import picture
from sterna_sim.bench.report import markdown
from sterna_sim.bench.results import Results
from sterna_sim.build import cache_root
from sterna_sim.memory import MODELS

_EPILOG = f"""\
MODEL is one of {", ".join((*STORED, *GEOMETRIES, SMALL))};
CONFIG one of {", ".join(PRESETS)},
with changes behind it if wanted: +generator, -generator, or +FIELD=NUMBER of any field, as in kv260+slots=2;
MEMORY one of {", ".join(MODELS)}.

  MODEL:CONFIG[:MEMORY]               whole tokens: cycles, roofline efficiency, where each cycle went
  slots:MODEL:CONFIG[:MEMORY]:TOKENS  passes with one slot and with all, and a prompt of TOKENS read in both ways
  cpu:MODEL                           the CPU engine beside PyTorch on this machine

examples:
  make bench                                              {len(DEFAULT_CASES)} small cases, several minutes
  make bench CASES="1.3b:kv260:zynq-ddr4 cpu:1.3b"        large ones by name: 2.7b takes 6 GB of disk

default: {" ".join(DEFAULT_CASES)}"""


def main(arguments: list[str] | None = None) -> int:
    """Run the cases, print the tables, and write JSON, Markdown and picture; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="make bench",
        description="Run whole tokens of models on builds in simulation, each integer compared with the golden model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", default=DEFAULT_CASES, metavar="CASE", help=SYNTAX)
    parser.add_argument("--tokens", type=int, default=1, help="tokens of each case of whole tokens (default: 1)")
    parser.add_argument(
        "--json",
        type=Path,
        default=cache_root() / "bench.json",
        help="file for the figures; tables and picture go beside it (default: build/bench.json)",
    )
    options = parser.parse_args(arguments)
    results = Results()
    try:
        if options.tokens < 1:
            raise SternaError(f"--tokens must be a positive integer, not {options.tokens}")
        cases = [parse(case) for case in options.cases]
        for number, case in enumerate(cases, 1):
            _note(f"{case} ({number} of {len(cases)})")
            results.run(case, tokens=options.tokens, note=_note)
    except SternaError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    text = markdown(results)
    print(text)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    _write(options.json, results.json().encode())
    _write(options.json.with_suffix(".md"), f"{text}\n".encode())
    try:
        drawn = picture(results)
    except SternaError as error:
        _note(str(error))
        drawn = b""
    image = options.json.with_suffix(".png")
    if drawn:
        _write(image, drawn)
    else:
        image.unlink(missing_ok=True)  # of other cases
    return 0


def _write(path: Path, contents: bytes) -> None:
    """Write all or nothing."""
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(contents)
    scratch.replace(path)


def _note(words: str) -> None:
    print(f"bench: {words}", file=sys.stderr, flush=True)
