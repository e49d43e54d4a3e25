"""``sterna import``: a Hugging Face checkpoint becomes a stored model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

_EPILOG = """\
examples:
  sterna import MMfreeLM-370M mmfree-370m.sterna
      read config.json, model.safetensors (or its shards) and the tokenizer from the directory
      MMfreeLM-370M; write the directory mmfree-370m.sterna
  sterna import checkpoints/last small.sterna --overwrite
      replace an earlier import; the old model stays until the new one is complete
  sterna import old-checkpoint old.sterna --allow-pickle
      read pytorch_model.bin; only for files from people you trust

Weights become trits and one scale a tensor, once; `sterna info MODEL` shows the result.
Whatever is wrong with the checkpoint is said in one sentence, with exit code 2 and no model written."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser of ``sterna``."""
    parser = subparsers.add_parser(
        "import",
        help="turn a Hugging Face hgrn_bit checkpoint into a Sterna model",
        description="Turn a Hugging Face hgrn_bit checkpoint into a Sterna model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="directory with config.json and weights")
    parser.add_argument("model", type=Path, metavar="MODEL", help="directory to write; must not exist")
    parser.add_argument("--overwrite", action="store_true", help="replace MODEL if it is a Sterna model")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read pytorch_model.bin if there are no safetensors. RISK: a pickle is a program that runs when read; "
        "torch's weights_only loader limits it to tensors, but use this only on files you trust",
    )
    parser.add_argument(
        "--no-calibrate",
        dest="calibrate",
        action="store_false",
        help="keep the default binary points instead of choosing them from data; larger models may saturate",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from sterna.cli.progress import progress
    from sterna.importer import import_checkpoint

    report = import_checkpoint(
        args.checkpoint,
        args.model,
        allow_pickle=args.allow_pickle,
        overwrite=args.overwrite,
        progress=progress,
        calibrate=args.calibrate,
    )
    size = sum(file.stat().st_size for file in report.path.iterdir())
    if args.json:
        result = {
            "model": str(report.path),
            "geometry": report.geometry.to_dict(),
            "parameters": report.geometry.parameters,
            "bytes": size,
            "tokenizer": report.tokenizer,
            "ignored": list(report.ignored),
        }
        print(json.dumps(result))
        return 0
    if report.ignored:
        print(f"warning: nothing uses these tensors: {', '.join(report.ignored)}", file=sys.stderr)
    if report.tokenizer is None:
        print("warning: the checkpoint has no tokenizer; the model runs on token ids only", file=sys.stderr)
    print(f"{report.path}: {report.geometry.parameters / 1e6:.1f} M parameters in {size / 1e6:.1f} MB")
    return 0
