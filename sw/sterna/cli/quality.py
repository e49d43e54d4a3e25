"""``sterna quality``: what quantisation costs, for the whole model and layer by layer."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sterna.cli.eval import comparison
from sterna.errors import SternaError

_EPILOG = """\
examples:
  sterna quality model.sterna --text held-out.txt --max-tokens 20000
      a table: the whole model, then each layer
  sterna quality model.sterna --text held-out.txt --reference CHECKPOINT_DIR --out report
      against the checkpoint that the model was imported from; report/quality.json, quality.md and quality.png
  sterna quality model.sterna --text held-out.txt --json
      every value of every layer as one JSON object

The golden model and the float32 model read the same text, and every result of a token is compared.
  SQNR      power of the float value over the power of the difference, in dB; errors of earlier layers are included,
            so it falls with depth, most of it by 8-bit inputs that round the other way
  flipped   share of the 8-bit inputs of projections that differ from those of the float model
  (...)     the same for the float model in float64 against float32: what any other rounding costs
  outlier   largest magnitude of the residual over its root mean square
  headroom  bits between the largest integer seen and the limit of its format, for the result that has least
  clamped   results that did not fit their format; a good model has none"""

_COLUMNS = ("", "residual SQNR", "state SQNR", "flipped", "outlier", "headroom", "clamped")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``sterna``."""
    parser = subparsers.add_parser(
        "quality",
        help="report what quantisation costs against float32, layer by layer",
        description="Report what quantisation costs against float32: perplexity, agreement, and errors, outliers and "
        "headroom\nof each layer. Needs PyTorch (pip install 'sterna[train]').",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="directory that `sterna import` wrote")
    parser.add_argument("--text", type=Path, required=True, metavar="FILE", help="UTF-8 text, plain or .xz")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="checkpoint of the reference (default: MODEL)")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="read only the first N tokens of the text")
    parser.add_argument("--chunk", type=int, default=512, metavar="N", help="tokens to a fresh state (default: 512)")
    parser.add_argument("--no-baseline", action="store_true", help="do not run the reference in float64 too")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also write quality.json, quality.md and quality.png")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from sterna.cli.progress import progress
    from sterna.quality.report import measure

    if args.out and not find_spec("matplotlib"):
        raise SternaError("--out draws with matplotlib: pip install 'sterna[train]'")
    report = measure(
        args.model,
        args.text,
        reference=args.reference,
        max_tokens=args.max_tokens,
        chunk=args.chunk,
        baseline=not args.no_baseline,
        progress=progress,
    )
    if args.out:
        _write(report, args.out)
    print(json.dumps(report) if args.json else _text(report))
    return 0


def _write(report: dict[str, Any], directory: Path) -> None:
    from sterna.quality.plot import draw
    from sterna.train.files import atomic, write_text

    write_text(directory / "quality.json", f"{json.dumps(report, indent=1)}\n")
    write_text(directory / "quality.md", _markdown(report))
    with atomic(directory / "quality.png") as stream:
        draw(report, stream)


def _text(report: dict[str, Any]) -> str:
    rows = [_COLUMNS, *_layers(report)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([_whole(report["whole"]), "", *table])


def _whole(whole: dict[str, Any]) -> str:
    lines = [comparison(whole), f"widest flip     at a margin of {whole['widest_flip']:.3f}"]
    if (share := whole["baseline_top1_equal"]) is not None:
        flip = f"widest flip at a margin of {whole['baseline_widest_flip']:.3f}"
        lines.append(f"(float64)       {100 * share:.2f} % of all positions the same token as float32, {flip}")
    return "\n".join(lines)


def _markdown(report: dict[str, Any]) -> str:
    rows = [_COLUMNS, ("---",) * len(_COLUMNS), *_layers(report)]
    return "\n".join(
        [
            f"# What quantisation costs: {report['model']} against {report['reference']}",
            "",
            "```",
            _whole(report["whole"]),
            "```",
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            "![errors, flips and headroom of each layer](quality.png)",
            "",
        ]
    )


def _layers(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for the embedding, for each layer and for the logits."""
    values, activations = report["values"], report["activations"]
    last = max((value["layer"] for value in values if value["layer"] is not None), default=-1)
    inside = [
        _row(
            f"layer {layer}",
            [value for value in values if value["layer"] == layer],
            [activation for activation in activations if activation["layer"] == layer],
        )
        for layer in range(last + 1)
    ]
    outside = {value["quantity"]: value for value in values if value["layer"] is None}
    head = [activation for activation in activations if activation["layer"] is None]
    return [_row("embedding", [outside["embedding"]], []), *inside, _row("logits", [outside["logits"]], head)]


def _row(name: str, values: list[dict[str, Any]], activations: list[dict[str, Any]]) -> tuple[str, ...]:
    by_quantity = {value["quantity"]: value for value in values}
    result = values[-1]  # in program order: the residual after the layer, or the only one
    tight = min((value for value in values if value["headroom_bits"] is not None), key=_headroom, default=None)
    return (
        name,
        _decibels(result),
        _decibels(by_quantity["state"]) if "state" in by_quantity else "",
        _flips(activations) if activations else "",
        f"{result['largest'] / result['rms']:.1f}" if result["rms"] else "",
        "" if tight is None else f"{_headroom(tight):.1f} bits ({tight['quantity']})",
        f"{sum(value['clamped'] for value in values):,}",
    )


def _headroom(value: dict[str, Any]) -> float:
    return float(value["headroom_bits"])


def _decibels(value: dict[str, Any]) -> str:
    ratio, baseline = value["sqnr_db"], value["baseline_sqnr_db"]
    return ("exact" if ratio is None else f"{ratio:.1f} dB") + ("" if baseline is None else f" ({baseline:.1f})")


def _flips(activations: list[dict[str, Any]]) -> str:
    """The mean over projections."""

    def mean(key: str) -> float:
        return 100 * float(sum(activation[key] for activation in activations)) / len(activations)

    baseline = "" if activations[0]["baseline_flipped"] is None else f" ({mean('baseline_flipped'):.2f})"
    return f"{mean('flipped'):.2f} %{baseline}"
