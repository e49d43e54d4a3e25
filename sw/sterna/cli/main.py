"""Entry point of the command ``sterna``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from sterna.cli import batch, compare, devices, explore, flash, generate, import_, info, quality, train
from sterna.cli import eval as eval_
from sterna.errors import SternaError

_DESCRIPTION = "Ternary, MatMul-free language models: from a checkpoint to text made by an FPGA accelerator."
_EPILOG = """\
a first walk:
  sterna import CHECKPOINT_DIR model.sterna            turn a Hugging Face checkpoint into trits
  sterna info model.sterna                             see what is in it
  sterna generate model.sterna --prompt "The sea" --device cpu
  sterna generate model.sterna --prompt "The sea" --device verilator --tokens 8
  sterna eval model.sterna --text held-out.txt --device golden --against reference
  sterna train --train books.txt --valid held-out.txt --out my-checkpoint

All devices give the same integers: golden is the specification in NumPy, cpu is fast, emulator runs the compiled
program without timing, verilator simulates the accelerator cycle by cycle; serial:PORT and usb are boards.
`sterna COMMAND --help` explains each command with examples.

exit codes: 0 done, 2 the input or the model is at fault, 3 the device is, 130 stopped by Ctrl-C.
STERNA_PROGRESS=0 hides progress bars, STERNA_PROGRESS=1 draws them even where standard error is no terminal."""

INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + signal number, as shells have it


class _Version(argparse.Action):
    """Prints the version; looks it up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **keywords)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        import sterna

        print(f"sterna {sterna.__version__}")
        parser.exit()


def make_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser with all subcommands; those that are slow to describe are complete only if ``arguments`` name them."""
    parser = argparse.ArgumentParser(
        "sterna", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action=_Version, help="print the version")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    import_.add_parser(subparsers)
    info.add_parser(subparsers)
    compare.add_parser(subparsers)
    explore.add_parser(subparsers)
    generate.add_parser(subparsers)
    batch.add_parser(subparsers)
    devices.add_parser(subparsers)
    flash.add_parser(subparsers)
    eval_.add_parser(subparsers)
    quality.add_parser(subparsers)
    train.add_parser(subparsers, complete=next(iter(arguments), None) == train.NAME)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (default: of the process) and return the exit code."""
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except SternaError as error:
        print(f"sterna: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("sterna: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:  # a full disk, a file that cannot be written: the machine's fault, no defect to trace
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
        print(f"sterna: {name}{error.strerror or error}", file=sys.stderr)
        return SternaError.exit_code


def _run(arguments: Sequence[str]) -> int:
    parser = make_parser(arguments)
    try:
        args = parser.parse_args(arguments)
    except SystemExit as stop:  # after --help, --version or a usage error
        return stop.code if isinstance(stop.code, int) else 0
    if args.command is None:
        parser.print_help()
        return SternaError.exit_code
    code: int = args.func(args)
    return code


if __name__ == "__main__":
    sys.exit(main())
