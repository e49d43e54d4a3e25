"""``sterna eval``: likelihood of a text, agreement with the float32 reference, and zero-shot tasks."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sterna.errors import SternaError

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
  sterna eval model.sterna --tasks arc_easy,piqa,lambada_openai --data DIR --device cpu --limit 200
      zero-shot accuracy on the first 200 documents of DIR/arc_easy.jsonl and so on
  sterna eval model.sterna --tasks advglue --data DIR
      accuracy on the adversarial sentences of DIR/advglue/dev.json, prompted; train the model on these prompts to
      measure a fine-tuned one
  sterna eval model.sterna --tasks list
      the names of the tasks, their files, and the fields of a document

A text is cut into chunks that start with a fresh state; the first token of a chunk is read and not scored. Bits per
byte divide by the UTF-8 bytes of the scored tokens, so models with other tokenizers can be compared.
Tasks take their prompts and metrics from lm-evaluation-harness (pip install 'sterna[eval]') and their documents from
your files: one JSON object a line, with the fields of the hub's data set or those of llm-foundry. acc takes the choice
of the largest log likelihood, acc_norm the one of the largest log likelihood a character.
golden and reference run many sequences side by side; cpu and accelerators run token by token."""

_TEXT_ONLY = ("max_tokens", "chunk", "against", "reference")
_TASKS_ONLY = ("data", "limit")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``sterna``."""
    parser = subparsers.add_parser(
        "eval",
        help="score a text or zero-shot tasks; agreement with the reference",
        description="Score a text (perplexity, bits per byte, agreement with the reference) or zero-shot tasks.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="directory that `sterna import` wrote")
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--text", type=Path, metavar="FILE", help="UTF-8 text, plain or .xz")
    subject.add_argument("--tasks", metavar="NAMES", help="tasks, separated by commas; `list` shows them")
    parser.add_argument(
        "--device", default="golden", metavar="D", help="golden (default), cpu, cuda, emulator, verilator, reference"
    )
    parser.add_argument("--config", metavar="PRESET", help="configuration of an accelerator (default: sim-small)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of device cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    text = parser.add_argument_group("a text")
    text.add_argument("--max-tokens", type=int, metavar="N", help="read only the first N tokens of the text")
    text.add_argument("--chunk", type=int, metavar="N", help="tokens to a fresh state (default: 512)")
    text.add_argument("--against", choices=["reference"], help="also run the float32 reference and compare")
    text.add_argument("--reference", type=Path, metavar="DIR", help="checkpoint of the reference (default: MODEL)")
    tasks = parser.add_argument_group("tasks")
    tasks.add_argument("--data", type=Path, metavar="DIR", help="directory with the files of the tasks")
    tasks.add_argument("--limit", type=int, metavar="N", help="only the first N documents of each file")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from sterna.cli import tasks
    from sterna.cli.progress import loading

    _refuse(args, _TASKS_ONLY if args.text else _TEXT_ONLY, "--tasks" if args.text else "--text")
    if args.tasks == tasks.LIST:
        print(json.dumps(tasks.listing()) if args.json else tasks.listing_text())
        return 0
    options: dict[str, Any] = loading(args.device)
    options |= {name: value for name in ("config", "threads") if (value := getattr(args, name)) is not None}
    result = _score_text(args, options) if args.text else tasks.score(args, options)
    print(json.dumps(result) if args.json else comparison(result) if args.text else tasks.text(result))
    return 0


def _refuse(args: argparse.Namespace, names: tuple[str, ...], subject: str) -> None:
    for name in names:
        if getattr(args, name) is not None:
            raise SternaError(f"--{name.replace('_', '-')} goes with {subject}: leave it out")


def _score_text(args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    from sterna.cli.progress import progress
    from sterna.runtime.evaluate import CHUNK, compare, evaluate

    if args.reference and not args.against:
        raise SternaError("--reference says where the reference comes from: add --against reference")
    common: dict[str, Any] = {
        "device": args.device,
        "max_tokens": args.max_tokens,
        "chunk": CHUNK if args.chunk is None else args.chunk,
        "progress": progress,
    }
    if args.against:
        return compare(args.model, args.text, reference=args.reference, **common, **options)
    return evaluate(args.model, args.text, **common, **options)


def comparison(result: dict[str, Any]) -> str:
    """What :func:`sterna.runtime.evaluate.evaluate` or ``compare`` found, for people."""
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
