"""``sterna info``: what a stored model is."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sterna.model.store import Model

_EPILOG = """\
examples:
  sterna info small.sterna
      sizes, parameters, bytes, how many weights are -1, 0 and 1, binary points, tokenizer
  sterna info small.sterna --verify
      also read every byte and compare it with its checksum; exit code 2 if one differs
  sterna info small.sterna --config ecpix5
      also compile it for a configuration: what a token reads from memory, and the efficiency that this allows
  sterna info small.sterna --json
      the same as one JSON object, for scripts"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``sterna``."""
    parser = subparsers.add_parser(
        "info",
        help="show what a Sterna model is",
        description="Show sizes, trit statistics, binary points and tokenizer of a Sterna model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="directory that `sterna import` wrote")
    parser.add_argument("--verify", action="store_true", help="compare every tensor and file with its checksum")
    parser.add_argument("--config", metavar="PRESET", help="account for the bytes of a token on this configuration")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from sterna.cli.progress import progress
    from sterna.model.store import Model
    from sterna.model.summary import summarise

    model = Model.open(args.model)
    if args.verify:
        model.verify(progress=progress)
    summary = {**summarise(model), "verified": args.verify}
    if args.config:
        summary["stream"] = _account(model, args.config)
    print(json.dumps(summary) if args.json else _text(summary))
    return 0


def _account(model: Model, name: str) -> dict[str, Any]:
    from sterna.cli.progress import progress
    from sterna.compiler.account import account
    from sterna.compiler.image import compile_model
    from sterna.spec.config import preset

    config = preset(name)
    found = account(compile_model(model, config, progress=progress), config)
    return {"config": name, "clusters": config.clusters, **asdict(found), "total": found.total, "bound": found.bound}


def _text(summary: dict[str, Any]) -> str:
    sizes = summary["geometry"]
    points = summary["binary_points"]
    token_bytes = summary["weight_bytes"]
    lines = [
        f"source        {summary['source']}",
        f"geometry      hidden {sizes['hidden']}, layers {sizes['layers']}, inner {sizes['inner']}, "
        f"vocabulary {sizes['vocab']}, norm epsilon {sizes['rms_eps']:g}",
        f"parameters    {summary['parameters']:,} "
        f"({summary['ternary_weights'] - summary['generated_weights']:,} ternary)",
        f"bytes         {summary['bytes']:,} on disk; {token_bytes:,} of trits at five a byte are read for a token",
        f"embedding     {summary['embedding']['dtype']}, {summary['embedding']['frac']} fractional bits as int16",
        f"binary points residual {points['residual_frac']}; product {_range(points['product_frac'])}; "
        f"glu {_range(points['glu_frac'])}",
        f"tokenizer     {summary['tokenizer'] or 'none'}; begin {summary['bos_id']}, end {summary['eos_id']}",
        "trits             -1      0      1   weights",
    ]
    if "reservoir" in sizes:
        lines[3:3] = _reservoir(summary)
    for name, share in summary["trits"].items():
        columns = "".join(f"{100 * share[trit]:6.1f}%" for trit in ("-1", "0", "1"))
        lines.append(f"  {name:<12}{columns}   {share['weights']:,}")
    if stream := summary.get("stream"):
        memories = f" from the memories of {stream['clusters']} clusters" if stream["clusters"] > 1 else ""
        lines.append(f"stream of {stream['config']}, bytes a token{memories}")
        for part in ("trits", "padding", "parameters", "descriptors", "embedding", "total"):
            lines.append(f"  {part:<12}{stream[part]:12,}{100 * stream[part] / stream['total']:8.2f}%")
        if stream["generated"]:
            lines.append(f"  generated   {stream['generated']:12,}   made, not read")
        lines.append(f"  efficiency at most {100 * stream['bound']:.2f} % of the memory roofline")
    if summary["verified"]:
        lines.append("checksums     all equal")
    return "\n".join(lines)


def _reservoir(summary: dict[str, Any]) -> list[str]:
    """What a reservoir model has instead of stored weights."""
    reservoir = summary["geometry"]["reservoir"]
    every, stored = summary["weight_bytes"], summary["stored_weight_bytes"]
    streams = "one stream a kind" if reservoir["shared"] else "each layer its own stream"
    fixed = "; ".join(f"{kind} in {_layers(layers)}" for kind, layers in reservoir["fixed"].items() if layers)
    return [
        f"reservoir     seed {reservoir['seed']}, {streams}; {summary['generated_weights']:,} weights generated",
        f"  fixed       {fixed or 'none'}",
        f"  mixer only  {_layers(reservoir['mixer_only']) if reservoir['mixer_only'] else 'none'}",
        f"  a token     reads {stored:,} bytes of trits with a generator at hand, {every:,} without "
        f"({100 * (1 - stored / every):.1f} % less)",
    ]


def _layers(layers: list[int]) -> str:
    """Layer numbers in order, runs as first-last."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][-1] == layer - 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ("layer " if len(layers) == 1 else "layers ") + ", ".join(
        str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs
    )


def _range(entries: list[int | None]) -> str:
    values = [entry for entry in entries if entry is not None]
    if not values:
        return "none"
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}..{high}"
