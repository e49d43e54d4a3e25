"""``sterna generate``: text from a model, on any device."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sterna.cli.device_options import add_device_options, device_options, ids_of

if TYPE_CHECKING:
    from sterna.runtime.session import Generation, Session

_EPILOG = """\
examples:
  sterna generate model.sterna --prompt "The sea was" --tokens 64 --device cpu
      text to standard output as it is made, speed to standard error
  sterna generate model.sterna --prompt "The sea was" --tokens 8 --device verilator
      the same text from the simulated accelerator, with cycles per token
  sterna generate model.sterna --prompt "Once" --tokens 4 --device verilator --memory-latency 100 --memory-rate 1/2
      a slower memory: 100 cycles to the first data, a beat every second cycle
  sterna generate model.sterna --prompt "Once" --tokens 4 --device verilator --config ecpix5 --memory ecp5-ddr3
      the memory of an ECP5 board: DDR3 behind LiteDRAM (`ecp5-ddr3-litedram` simulates the controller's Verilog)
  sterna generate model.sterna --prompt "Once" --tokens 1 --device verilator --waves out.fst --wave-cycles 0:20000
      record every signal of the first 20,000 cycles (about 1 MB a thousand cycles)
  sterna generate model.sterna --prompt "The sea was" --device serial:/dev/ttyUSB0
      a board on a serial port (or --device usb); `sterna devices` lists them, docs/link.md has the options
  sterna generate model.sterna --prompt "The sea was" --device serial:/dev/ttyUSB0 --verify
      the same, once the board's memory has been read back and found equal to the model's checksums
  sterna generate model.sterna --prompt "443 345 695" --ids
      token ids in, token ids out; works without a tokenizer
  sterna generate model.sterna --prompt "Once" --json
      one JSON object: ids, text, seconds, tokens_per_second, counters, cycles_per_token

The most likely token is taken each time, so the same prompt gives the same text on every device."""

FAST = ("cpu", "cuda")  # their text comes so quickly that it is progress enough


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``sterna``."""
    parser = subparsers.add_parser(
        "generate",
        help="continue a prompt, on the host or on an accelerator",
        description="Continue a prompt with a model, on the host or on an accelerator.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="directory that `sterna import` wrote")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what to continue (default: a fresh sequence)")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="tokens to generate (default: 64)")
    parser.add_argument("--ids", action="store_true", help="the prompt and the output are token ids")
    parser.add_argument("--echo", action="store_true", help="print the prompt before the text")
    parser.add_argument("--ignore-eos", action="store_true", help="go on after the end-of-sequence token")
    add_device_options(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead of text")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from sterna.cli.progress import progress
    from sterna.runtime.load import load

    prompt = ids_of(args.prompt) if args.ids else args.prompt
    with load(args.model, args.device, loading=progress, **device_options(args)) as session:
        generation = _stream(session, prompt, args)
        result = _result(generation, args)
    if args.json:
        print(json.dumps(result))
    else:
        print(_summary(result), file=sys.stderr)
    return 0


def _stream(session: Session, prompt: str | list[int], args: argparse.Namespace) -> Generation:
    """Generate; without --json write each piece as it comes."""
    from sterna.cli.progress import progress

    bar: Any = None

    def count(tokens: int) -> None:
        if bar is not None:
            bar.update(tokens)

    generation = session.generate(prompt, tokens=args.tokens, stop_at_eos=not args.ignore_eos, progress=count)
    # On a terminal the text itself shows progress, and a bar beside it would tear it: only the prompt has one.
    torn = not args.json and sys.stdout.isatty() and sys.stderr.isatty()
    if args.device not in FAST:
        # The last token is generated and not read.
        total = len(generation.prompt_ids) + (0 if torn else args.tokens - 1)
        bar = progress(total=total, label=args.device, unit="token")
    try:
        if args.echo and not args.json:
            print(args.prompt, end=" " if args.ids else "", flush=True)
        for piece in generation:
            if torn and bar is not None:
                bar.close()
                bar = None
            if not args.json:
                print(f"{piece.id} " if args.ids else piece.text, end="", flush=True)
    finally:
        if bar is not None:
            bar.close()
    if not args.json:
        print()
    return generation


def _result(generation: Generation, args: argparse.Namespace) -> dict[str, Any]:
    counters = dict(generation.counters)
    result: dict[str, Any] = {
        "device": args.device,
        "prompt_ids": generation.prompt_ids,
        "ids": generation.ids,
        "text": generation.text,
        "tokens": len(generation.ids),
        "steps": generation.steps,
        "seconds": generation.seconds,
        "tokens_per_second": generation.steps / generation.seconds if generation.seconds else None,
        "counters": counters,
    }
    if counters.get("cycles"):  # the emulator has the counter and no clock
        result["cycles_per_token"] = counters["cycles"] / generation.steps
    return result


def _summary(result: dict[str, Any]) -> str:
    parts = [f"{result['tokens']} tokens after a prompt of {len(result['prompt_ids'])}"]
    if result["tokens_per_second"]:
        parts.append(f"{result['tokens_per_second']:.4g} tokens/s on {result['device']}")
    if "cycles_per_token" in result:
        parts.append(f"{result['cycles_per_token']:,.0f} cycles/token")
    return ", ".join(parts)
