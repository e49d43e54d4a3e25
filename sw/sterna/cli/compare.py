"""``sterna compare``: two models side by side, for example a reservoir model and its ordinary twin."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sterna.model.store import Model

NOTES_FILE = "notes.json"  # what `sterna train` leaves beside a checkpoint
_TRAINING = ("valid_bits_per_byte", "valid_nats_per_token", "tokens", "seconds", "memory_bytes", "device")

_EPILOG = f"""\
examples:
  sterna compare twin.sterna reservoir.sterna
      parameters, generated weights, bytes and the time of a token on the CPU engine; the last column is B against A
  sterna compare twin.sterna reservoir.sterna --checkpoints runs/twin runs/reservoir
      also validation loss, time and memory of the training, from the {NOTES_FILE} that `sterna train` wrote
  sterna compare twin.sterna reservoir.sterna --repeats 31 --threads 1 --json
      the same as one JSON object with the seconds of every repeat, for scripts

The models take turns, each repeat on the same random tokens; the time shown is the median, in brackets the fastest and
the slowest repeat. The ratio is the median over the repeats of B's time by A's."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``sterna``."""
    parser = subparsers.add_parser(
        "compare",
        help="show two models side by side: sizes, bytes and time of a token, training",
        description="Compare what two Sterna models store, generate, read for a token, and take on the CPU engine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", type=Path, metavar="A", help="directory that `sterna import` wrote")
    parser.add_argument("b", type=Path, metavar="B", help="another one")
    parser.add_argument("--checkpoints", type=Path, nargs=2, metavar=("A", "B"), help="where they were imported from")
    parser.add_argument("--repeats", type=int, default=11, metavar="N", help="texts timed on each model (default 11)")
    parser.add_argument("--tokens", type=int, default=64, metavar="N", help="tokens of a text (default 64)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the CPU engine (default all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from sterna.model.store import Model

    models = [Model.open(path) for path in (args.a, args.b)]
    columns = [_sizes(model) for model in models]
    if args.checkpoints:
        for column, checkpoint in zip(columns, args.checkpoints, strict=True):
            column["training"] = _training(checkpoint)
    times = _times(models, args)
    for column, seconds in zip(columns, times, strict=True):
        column["seconds_per_token"] = {
            "median": median(seconds),
            "low": min(seconds),
            "high": max(seconds),
            "repeats": seconds,
        }
    ratios = [b / a for a, b in zip(*times, strict=True)]
    found = {"models": columns, "time_ratio": median(ratios)}
    print(json.dumps(found) if args.json else _text(**found))
    return 0


def _sizes(model: Model) -> dict[str, Any]:
    from sterna.model.integer import IntegerModel
    from sterna.model.manifest import WEIGHTS_FILE

    integers = IntegerModel.from_model(model)
    return {
        "model": str(model.path),
        "parameters": model.geometry.parameters,
        "generated_weights": model.geometry.generated_weights,
        "file_bytes": (model.path / WEIGHTS_FILE).stat().st_size,
        "stored_weight_bytes": integers.stored_weight_bytes,
        "weight_bytes": integers.weight_bytes,
    }


def _training(checkpoint: Path) -> dict[str, Any]:
    """What the notes of a checkpoint say; what they leave out is null."""
    from sterna.model.manifest import read_json

    notes = read_json(checkpoint / NOTES_FILE, f"{checkpoint.name} tells nothing of its training")
    return {key: notes.get(key) for key in _TRAINING}


def _times(models: list[Model], args: argparse.Namespace) -> list[list[float]]:
    from sterna.cli.progress import progress
    from sterna.engines.cpu import CpuEngine
    from sterna.engines.speed import in_turns

    engines = [CpuEngine(model, threads=args.threads) for model in models]
    total = len(engines) * args.tokens * (args.repeats + 1)
    with progress(total=total, label="timing", unit="tokens") as bar:
        return in_turns(engines, tokens=args.tokens, repeats=args.repeats, progress=bar.update)


def _text(models: list[dict[str, Any]], time_ratio: float) -> str:
    """A table of the two models and what B has more or less than A."""
    lines = [("", *(Path(model["model"]).name for model in models), "B against A")]

    def add(label: str, values: list[Any], form: str = "{:,}") -> None:
        both = all(isinstance(value, int | float) for value in values)
        change = f"{100 * (values[1] / values[0] - 1):+.1f} %" if both and values[0] else ""
        texts = ["-" if value is None else value if isinstance(value, str) else form.format(value) for value in values]
        lines.append((label, *texts, change))

    for key, label in (
        ("parameters", "parameters, stored and trained"),
        ("generated_weights", "generated weights"),
        ("file_bytes", "model file, bytes"),
        ("stored_weight_bytes", "trits of a token with a generator, bytes"),
        ("weight_bytes", "trits of a token without, bytes"),
    ):
        add(label, [model[key] for model in models])
    times = [{key: 1e3 * model["seconds_per_token"][key] for key in ("median", "low", "high")} for model in models]
    shown = [f"{ms['median']:.3f} ({ms['low']:.3f}-{ms['high']:.3f})" for ms in times]
    lines.append(("cpu engine, ms a token", *shown, f"{100 * (time_ratio - 1):+.1f} %"))
    if "training" in models[0]:
        for key, label, form in (
            ("valid_bits_per_byte", "validation, bits a byte", "{:.4f}"),
            ("valid_nats_per_token", "validation, nats a token", "{:.4f}"),
            ("tokens", "training, tokens", "{:,}"),
            ("seconds", "training, seconds", "{:,.1f}"),
            ("memory_bytes", "training, memory in bytes", "{:,}"),
            ("device", "training, device", "{}"),
        ):
            add(label, [model["training"][key] for model in models], form)
    widths = [max(len(line[index]) for line in lines) for index in range(4)]
    return "\n".join(
        f"{line[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )
