"""``sterna flash``: a bitstream onto a board."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sterna.errors import DeviceError, SternaError

if TYPE_CHECKING:
    from sterna.link.find import Found

_EPILOG = """\
examples:
  sterna flash ecpix5
      load the newest bitstream of `make bitstream BOARD=ecpix5`, then ask the board for its build id
  sterna flash ecpix5 --persist
      write it to the board's flash, so that it is there after the next power-up
  sterna flash other/ecpix5.bit --board ecpix5 --device serial:/dev/ttyUSB1
      this file, and look for the board there
  sterna flash ulx3s --json
      one JSON object: board, file, build, device

The board is programmed by openFPGALoader, which must be on the PATH (Debian and Ubuntu: apt install openfpgaloader)."""

PROGRAM = "openFPGALoader"
FOLDER = Path("build/bitstreams")  # of `make bitstream`: BOARD/BOARD.bit beside REPORT
REPORT = "report.json"
APPEAR_SECONDS = 15.0  # in which a programmed board must answer
STDERR = 2  # the file: a program takes no other stream
DFU = "--dfu"  # of boards that are programmed through a boot loader
PAUSE = 0.5  # seconds between two looks


@dataclass(frozen=True)
class Bitstream:
    """A file, and what is known of it."""

    path: Path
    board: str
    build: str | None  # None: no report beside it


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``sterna``."""
    parser = subparsers.add_parser(
        "flash",
        help="load a bitstream onto a board",
        description="Load a bitstream onto a board, and check that the board answers with its build id.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bitstream", metavar="BOARD|FILE", help="name of a board, or a bitstream file")
    parser.add_argument("--board", metavar="NAME", help="board of FILE (default: by the report beside it)")
    parser.add_argument("--device", metavar="D", help="where it must answer: serial:PORT or usb (default: anywhere)")
    parser.add_argument("--persist", action="store_true", help="write the board's flash memory instead of the FPGA")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    found = find(args.bitstream, board=args.board)
    program(found, persist=args.persist)
    board = await_build(found, args.device)
    result = {"board": found.board, "file": str(found.path), "build": board.identity.build, "device": board.device}
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{found.board} at {board.device} answers with build {board.identity.build}")
    return 0


def find(name: str, *, board: str | None, folder: Path = FOLDER) -> Bitstream:
    """The bitstream that ``name``, a board or a file, means.

    Raises:
        SternaError: there is none, or nothing says for which board it is.
    """
    path = Path(name)
    if path.suffix or path.is_file():
        if not path.is_file():
            raise SternaError(f"there is no bitstream {path}: build one with `make bitstream BOARD=...`")
    else:
        path = folder / name / f"{name}.bit"
        if not path.is_file():
            _programmer(name)  # knows whether there is such a board
            raise SternaError(f"there is no bitstream {path}: build it with `make bitstream BOARD={name}`")
    report = _report(path)
    owner = board or report.get("board")
    if not owner:
        raise SternaError(f"no {REPORT} beside {path} says for which board it is: name it with --board")
    return Bitstream(path, str(owner), report.get("build_id"))


def program(bitstream: Bitstream, *, persist: bool = False) -> None:
    """Hand the file to openFPGALoader, whose output goes to standard error.

    Raises:
        SternaError: there is no such board or program.
        DeviceError: the program failed.
    """
    options = _programmer(bitstream.board)
    loader = shutil.which(PROGRAM)
    if loader is None:
        raise SternaError(
            f"{PROGRAM} is not on the PATH: install it (Debian, Ubuntu: apt install openfpgaloader; macOS: brew "
            f"install openfpgaloader), or load {bitstream.path} with another programmer"
        )
    asked = persist and DFU not in options  # a boot loader always writes the flash
    command = [loader, *options, *(["--write-flash"] if asked else []), str(bitstream.path)]
    if (code := subprocess.run(command, stdout=STDERR, check=False).returncode) != 0:
        raise DeviceError(
            f"{PROGRAM} ended with code {code}: check the board's power and its programming cable, then try again"
        )


def await_build(bitstream: Bitstream, device: str | None, *, seconds: float = APPEAR_SECONDS) -> Found:
    """The board that answers with the bitstream's build id, when it does.

    Raises:
        DeviceError: none does in time, or another build answers.
    """
    from sterna.cli.progress import progress

    others: dict[str, str] = {}
    started, passed = time.monotonic(), 0.0
    with progress(total=round(seconds), label="waiting for the board", unit="s") as bar:
        while True:
            for board in _answering(device):
                of_board = board.identity.description.board == bitstream.board
                if of_board and bitstream.build in (None, board.identity.build):
                    return board
                others[board.device] = f"{board.identity.description.board} with build {board.identity.build}"
            before, passed = passed, time.monotonic() - started
            bar.update(int(passed) - int(before))
            if passed > seconds:
                break
            time.sleep(PAUSE)
    seen = ", ".join(f"{text} at {place}" for place, text in others.items()) or "nothing"
    raise DeviceError(
        f"the {bitstream.board} was programmed, but no board answers with build {bitstream.build or 'of that name'} "
        f"(found: {seen}): plug in the link's cable, or program it again"
    )


def _answering(device: str | None) -> list[Found]:
    from sterna.link.find import candidates, probe

    found = []
    for place in (device,) if device else candidates():
        try:
            found.append(probe(place))
        except DeviceError:
            continue
    return found


def _report(bitstream: Path) -> dict[str, Any]:
    path = bitstream.with_name(REPORT)
    if not path.is_file():
        return {}
    try:
        report = json.loads(path.read_text())
    except ValueError as error:
        raise SternaError(f"{path} is no report of a build ({error}): build the bitstream again") from error
    return report if isinstance(report, dict) and bitstream.stem == report.get("board") else {}


def _programmer(board: str) -> tuple[str, ...]:
    """Options by which openFPGALoader finds the board."""
    try:
        from sterna_boards.boards import find_board
    except ImportError as error:
        raise SternaError(f"flashing needs the boards' package ({error}): pip install 'sterna[hw]'") from error
    return find_board(board).programmer
