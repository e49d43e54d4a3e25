"""Memory and time of training, fused against unfused: `python -m sterna.cli.bench_train --help`.

Every measurement runs in a process of its own, so that none sees the memory or the compiled code of another.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sterna.cli.progress import progress
from sterna.train.configfile import PRESETS

__all__ = ["main"]

_EXAMPLES = """examples:
  python -m sterna.cli.bench_train --geometry 1.3b --batch 8 --context 2048
  python -m sterna.cli.bench_train --geometry 30m --batch 128 --context 1024 --variants none,selective
  python -m sterna.cli.bench_train --check --curve 200 --variants ""
  python -m sterna.cli.bench_train --geometry 1.3b --variants "" --profile selective --json kernels.json
"""
_GIB = 1 << 30


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sterna.cli.bench_train",
        description="Memory and time of training steps of the fused model and of plain PyTorch modules.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--geometry", default="1.3b", help=f"one of {', '.join(PRESETS)} (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="sequences of a step (default: %(default)s)")
    parser.add_argument(
        "--second-batch", type=int, help="batch for the slope of memory (default: half of --batch; 0: none)"
    )
    parser.add_argument("--context", type=int, default=2048, help="tokens of a sequence (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="steps of a timed round (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed rounds (default: %(default)s)")
    parser.add_argument(
        "--variants", default="unfused,selective,none,full", help="what to measure, in order (default: %(default)s)"
    )
    parser.add_argument("--check", action="store_true", help="first compare products and gradients with exact ones")
    parser.add_argument("--curve", type=int, default=0, metavar="STEPS", help="compare the losses of so many steps")
    parser.add_argument("--curve-geometry", default="30m", help="geometry of the loss curves (default: %(default)s)")
    parser.add_argument("--tokens", type=Path, help="uint16 tokens (.npy) of the loss curves (default: a Markov chain)")
    parser.add_argument("--profile", metavar="VARIANT", help="list the kernels of a step of this variant by time")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: %(default)s)")
    parser.add_argument("--float32", action="store_true", help="products in float32 instead of bfloat16")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="run the fused model eagerly")
    parser.add_argument("--limit", type=float, default=1e9, metavar="SECONDS", help="start nothing after this time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results, after each measurement")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the measuring processes write to stderr")
    return parser


def _jobs(args: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """What to run: (label, function of `measure`, its task, its options)."""
    common = {"device": args.device, "bf16": not args.float32, "compile": args.compile}
    variants = [variant for variant in args.variants.split(",") if variant]
    if args.check:
        sizes = {"tokens": 300, "width": 64} if args.device == "cpu" else {}
        yield "products", "products", {}, {"device": args.device, **sizes}
        yield "agreement", "agreements", {}, {"device": args.device, "compiled": args.compile}
    main_task = common | {"geometry": args.geometry, "batch": args.batch, "context": args.context}
    second = args.batch // 2 if args.second_batch is None else args.second_batch
    batches = [args.batch] + [second] * (0 < second < args.batch)
    options = {"batches": batches, "count": args.steps, "repeats": args.repeats}
    for variant in variants:
        yield f"steps of {variant}", "steps", main_task | {"variant": variant}, options
    if args.profile:
        yield f"kernels of {args.profile}", "kernels", main_task | {"variant": args.profile}, {}
    if args.curve:
        task = common | {"geometry": args.curve_geometry, "batch": min(16, args.batch), "context": 512}
        if args.device == "cpu":
            task |= {"context": args.context}
        options = {"count": args.curve, "tokens": str(args.tokens) if args.tokens else None}
        yield "curve of unfused", "curve", task | {"variant": "unfused"}, options
        yield "curve of noise", "curve", task | {"variant": "unfused"}, options | {"jitter": 1e-6}
        yield "curve of selective", "curve", task | {"variant": "selective"}, options


def _child(function: str, task: dict[str, Any], options: dict[str, Any]) -> Any:
    """Run one measurement in this process."""
    from sterna.train import measure

    if not task:
        return getattr(measure, function)(**options)
    if function == "curve" and options["tokens"] is not None:
        options["tokens"] = np.load(options["tokens"], mmap_mode="r")
    return getattr(measure, function)(measure.Task(**task), **options)


def _run(function: str, task: dict[str, Any], options: dict[str, Any], log: Path | None) -> Any:
    """Run one measurement in a process of its own; an error of it is part of the result."""
    command = [sys.executable, "-m", __spec__.name, "--child", json.dumps([function, task, options])]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
    if log is not None:
        log.write_text(done.stderr, encoding="utf-8")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"error": "\n".join(lines[-12:])}
    return json.loads(done.stdout.splitlines()[-1])


def _lines(label: str, result: Any) -> Iterator[str]:
    """A measurement as text."""
    yield label
    if isinstance(result, dict) and "error" in result:
        yield from ("    " + line for line in result["error"].splitlines())
    elif label.startswith("products"):
        for row in result:
            shape = f"{row['tokens']} x {row['inputs']} x {row['outputs']}"
            rates = f"int8 {row['tera_int8']:.0f}, bfloat16 {row['tera_bf16']:.0f} TOP/s"
            yield f"    {shape:<24} exact: {row['exact']}, {rates}"
    elif label == "agreement":
        for row in result:
            numbers = f"loss {row['loss']:.2g}, gradients {row['median']:.2g}, at most {row['worst']:.2g} ({row['at']})"
            yield f"    {row['variant']:<10} {row['type']:<9} {numbers}"
    elif label.startswith("kernels"):
        yield f"    {sum(row['milliseconds'] for row in result):.2f} ms a step in {len(result)} kernels"
        for row in result[:60]:
            yield f"    {row['milliseconds']:9.3f} ms {row['calls']:7.0f} calls  {row['name'][:110]}"
    elif label.startswith("curve"):
        yield f"    first {result[0]:.4f}, last {result[-1]:.4f}"
    else:
        yield from _memory_and_time(result)


def _memory_and_time(result: dict[str, Any]) -> Iterator[str]:
    static = result["static_bytes"]
    yield f"    {result['parameters'] / 1e6:.1f} M parameters; weights and optimiser {static / _GIB:.2f} GiB"
    for batch, row in result["batches"].items():
        text = f"    batch {batch}: {row['seconds_per_step']:.4f} s a step (spread {row['spread']:.4f})"
        text += f", {row['tokens_per_second']:,.0f} tokens/s"
        if row["peak_bytes"] is not None:
            share = (row["peak_bytes"] - static) / int(batch) / _GIB
            text += f", peak {row['peak_bytes'] / _GIB:.2f} GiB, {share:.3f} GiB a sample beside weights and optimiser"
        yield f"{text}; loss {row['loss']:.4f}, warm-up {row['warmup_seconds']:.0f} s"
    if "bytes_per_sample" in result:
        yield f"    {result['bytes_per_sample'] / _GIB:.3f} GiB a sample (slope)"


def _curves(results: dict[str, Any]) -> dict[str, Any] | None:
    """How far apart the loss curves are, next to what a disturbance of 1e-6 of the initial weights does."""
    found = {name: results.get(f"curve of {name}") for name in ("unfused", "noise", "selective")}
    if not all(isinstance(losses, list) for losses in found.values()):
        return None
    base = np.array(found["unfused"])
    tail = slice(len(base) // 2, None)
    summary: dict[str, Any] = {}
    for name in ("noise", "selective"):
        apart = np.array(found[name]) - base
        summary[name] = {
            "largest": float(np.abs(apart).max()),
            "mean_second_half": float(apart[tail].mean()),
            "rms_second_half": float(np.sqrt((apart[tail] ** 2).mean())),
        }
    return summary


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; the exit status is 1 if a measurement failed."""
    if arguments is None and sys.argv[1:2] == ["--child"]:
        print(json.dumps(_child(*json.loads(sys.argv[2]))))
        return 0
    args = _parser().parse_args(arguments)
    started = time.monotonic()
    results: dict[str, Any] = {}
    if args.logs is not None:
        args.logs.mkdir(parents=True, exist_ok=True)
    jobs = list(_jobs(args))
    with progress(total=len(jobs), label="measuring", unit="runs") as bar:
        for label, function, task, options in jobs:
            if time.monotonic() - started > args.limit:
                print(f"{label}\n    not started: the limit of {args.limit:.0f} s has passed", flush=True)
                continue
            log = None if args.logs is None else args.logs / f"{label.replace(' ', '-')}.log"
            results[label] = _run(function, task, options, log)
            print("\n".join(_lines(label, results[label])), f"  [{time.monotonic() - started:.0f} s]", flush=True)
            if args.json is not None:
                _write(args.json, results | {"arguments": {k: str(v) for k, v in vars(args).items()}})
            bar.update(1)
    if summary := _curves(results):
        print(f"difference of the loss from the unfused one: {json.dumps(summary, indent=2)}")
        results["curves"] = summary
        if args.json is not None:
            _write(args.json, results)
    return int(any(isinstance(result, dict) and "error" in result for result in results.values()))


def _write(path: Path, results: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
