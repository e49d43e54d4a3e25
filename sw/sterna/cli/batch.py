"""``sterna batch``: many prompts on one device, sharing its slots."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sterna.cli.device_options import add_device_options, device_options, ids_of
from sterna.errors import SternaError

if TYPE_CHECKING:
    from sterna.runtime.batch import Batch

_EPILOG = """\
examples:
  sterna batch model.sterna prompts.txt --tokens 32 --device cpu
      continue each line of prompts.txt; every prompt is a sequence of its own
  sterna batch model.sterna prompts.txt --tokens 8 --device verilator --config sim-small-b4
      four sequences share each pass over the weights: they join and leave its slots as they come and end
  printf '443 345\\n695\\n' | sterna batch model.sterna - --ids --json
      token ids from standard input; one JSON object for each prompt, the last line sums up

The ids are those that `sterna generate` gives for each prompt alone."""

STDIN = "-"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``sterna``."""
    parser = subparsers.add_parser(
        "batch",
        help="continue many prompts, in the slots of an accelerator that has them",
        description="Continue each line of a file as a sequence of its own.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="directory that `sterna import` wrote")
    parser.add_argument("prompts", metavar="PROMPTS", help="text file with a prompt a line, - for standard input")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="tokens to generate for each (default: 64)")
    parser.add_argument("--ids", action="store_true", help="prompts and output are token ids")
    parser.add_argument("--ignore-eos", action="store_true", help="go on after the end-of-sequence token")
    add_device_options(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object a prompt, and one that sums up")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from sterna.cli.progress import progress
    from sterna.runtime.batch import continue_all
    from sterna.runtime.load import load

    lines = _lines(args.prompts)
    prompts = [ids_of(line) for line in lines] if args.ids else lines
    with (
        load(args.model, args.device, loading=progress, **device_options(args)) as session,
        progress(total=len(prompts), label=args.device, unit="prompt") as bar,
    ):
        batch = continue_all(session, prompts, tokens=args.tokens, stop_at_eos=not args.ignore_eos, progress=bar.update)
    for line, result in zip(lines, batch.results, strict=True):
        if args.json:
            print(json.dumps({"prompt_ids": result.prompt_ids, "ids": result.ids, "text": result.text}))
        else:
            print(f"{line} {' '.join(map(str, result.ids))}" if args.ids else f"{line}{result.text}")
    summary = _summary(batch, args.device)
    if args.json:
        print(json.dumps(summary))
    else:
        print(_sentence(summary), file=sys.stderr)
    return 0


def _lines(source: str) -> list[str]:
    try:
        text = sys.stdin.read() if source == STDIN else Path(source).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SternaError(f"{source} is not UTF-8 at byte {error.start}: save it as such") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise SternaError(f"{'standard input' if source == STDIN else source} has no prompt: write one a line")
    return lines


def _summary(batch: Batch, device: str) -> dict[str, Any]:
    return {
        "device": device,
        "prompts": len(batch.results),
        "tokens": sum(len(result.ids) for result in batch.results),
        "read": batch.read,
        "passes": batch.passes,
        "seconds": batch.seconds,
        "tokens_per_second": batch.read / batch.seconds if batch.seconds else None,
        "counters": dict(batch.counters),
    }


def _sentence(summary: dict[str, Any]) -> str:
    parts = [f"{summary['tokens']} tokens after {summary['prompts']} prompts"]
    parts.append(f"{summary['read']} tokens read in {summary['passes']} passes over the weights")
    if summary["tokens_per_second"]:
        parts.append(f"{summary['tokens_per_second']:.4g} tokens/s on {summary['device']}")
    if cycles := summary["counters"].get("cycles"):
        parts.append(f"{cycles / summary['read']:,.0f} cycles/token")
    return ", ".join(parts)
