"""``sterna eval``: likelihood of a text, and agreement with the float32 reference."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  sterna eval model.sterna --text held-out.txt --device cpu --max-tokens 20000
      perplexity and bits per byte, by the fast engine
  sterna eval model.sterna --text held-out.txt.xz --device reference
      the same text by the float32 model in PyTorch; MODEL may be a Hugging Face checkpoint here
  sterna eval model.sterna --text held-out.txt --device golden --against reference --json
      both in one run: how much the integers cost, and where they choose another token
  sterna eval model.sterna --text held-out.txt --against reference --reference CHECKPOINT_DIR
      take the reference from the checkpoint that the model was imported from

The text is cut into chunks that start with a fresh state; the first token of a chunk is read and not scored. Bits per
byte divide by the UTF-8 bytes of the scored tokens, so models with other tokenizers can be compared.
golden runs many chunks side by side; cpu and accelerators run token by token."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``sterna``."""
    parser = subparsers.add_parser(
        "eval",
        help="score a text: perplexity, bits per byte, agreement with the reference",
        description="Score a text: perplexity, bits per byte, and agreement with the float32 reference.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="directory that `sterna import` wrote")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="UTF-8 text, plain or .xz")
    parser.add_argument(
        "--device", default="golden", metavar="D", help="golden (default), cpu, emulator, verilator, reference"
    )
    parser.add_argument("--max-tokens", type=int, metavar="N", help="read only the first N tokens of the text")
    parser.add_argument("--chunk", type=int, default=512, metavar="N", help="tokens to a fresh state (default: 512)")
    parser.add_argument("--against", choices=["reference"], help="also run the float32 reference and compare")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="checkpoint of the reference (default: MODEL)")
    parser.add_argument("--config", metavar="PRESET", help="configuration of an accelerator (default: sim-small)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of device cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from sterna.cli.progress import progress
    from sterna.errors import SternaError
    from sterna.runtime.evaluate import compare, evaluate

    if args.reference and not args.against:
        raise SternaError("--reference says where the reference comes from: add --against reference")
    options = {name: value for name in ("config", "threads") if (value := getattr(args, name)) is not None}
    common: dict[str, Any] = {"device": args.device, "max_tokens": args.max_tokens, "chunk": args.chunk}
    if args.against:
        result = compare(args.model, args.text, reference=args.reference, progress=progress, **common, **options)
    else:
        result = evaluate(args.model, args.text, progress=progress, **common, **options)
    print(json.dumps(result) if args.json else _text(result))
    return 0


def _text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['positions']:,} tokens read in chunks of {result['chunk']}, {result['tokens']:,} scored",
        _likelihood(result["device"], result, ""),
    ]
    if "reference_nll" in result:
        lines += [
            _likelihood("reference", result, "reference_"),
            f"perplexity      {result['perplexity_change_percent']:+.4f} % against the reference",
            f"same token      {100 * result['top1_equal']:.2f} % of all positions",
        ]
        for bound in ("0.1", "0.3"):
            suffix = bound.replace(".", "_")
            share, count = result[f"top1_equal_margin_{suffix}"], result[f"positions_margin_{suffix}"]
            if share is not None:
                lines.append(f"                {100 * share:.3f} % of {count:,} positions with a margin above {bound}")
        lines.append(f"logit cosine    {result['cosine_mean']:.6f} on average, {result['cosine_min']:.6f} at worst")
    return "\n".join(lines)


def _likelihood(name: str, result: dict[str, Any], prefix: str) -> str:
    bits = result[f"{prefix}bits_per_byte"]
    return f"{name:<15} {result[f'{prefix}nll']:.4f} nats/token, perplexity {result[f'{prefix}perplexity']:.3f}" + (
        "" if bits is None else f", {bits:.4f} bits/byte"
    )
