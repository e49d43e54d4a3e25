"""Speed and memory of the CUDA engine: ``python -m sterna.cli.bench_cuda MODEL``."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from sterna.cli.progress import progress
from sterna.engines.cuda.engine import CudaEngine
from sterna.errors import SternaError
from sterna.golden.model import GoldenModel, Trace
from sterna.importer.synthetic import GEOMETRIES
from sterna.model.geometry import Geometry
from sterna.model.integer import IntegerModel
from sterna.model.store import GLU, Embedding, Layer, Model, Projection
from sterna.spec.numerics import IntArray
from sterna.spec.packing import CODES, TRITS_PER_BYTE

_EPILOG = """\
examples:
  python -m sterna.cli.bench_cuda my-model
      tokens a second at batch 1, the time to read a prompt of 512 tokens, and device memory
  python -m sterna.cli.bench_cuda 1.3b --check 4 --json
      the same for random weights of a published size, after comparing four tokens with the golden model"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sterna.cli.bench_cuda",
        description="Measure the CUDA engine.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sizes = ", ".join(GEOMETRIES)
    parser.add_argument("model", metavar="MODEL", help=f"directory that `sterna import` wrote, or one of {sizes}")
    parser.add_argument("--gpu", type=int, default=0, metavar="N", help="index of the GPU (default: 0)")
    parser.add_argument("--tokens", type=int, default=512, metavar="N", help="tokens a run decodes (default: 512)")
    parser.add_argument("--prompt", type=int, default=512, metavar="N", help="tokens a run reads (default: 512)")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="runs after a first one (default: 7)")
    parser.add_argument(
        "--check", type=int, default=0, metavar="N", help="tokens to compare with the golden model first"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    try:
        result = measure(args)
    except SternaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result) if args.json else "\n".join(f"{name}: {value}" for name, value in result.items()))
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures; times in seconds, each the median, least and most of the runs."""
    for name in ("tokens", "prompt", "repeats"):
        if getattr(args, name) < 1:
            raise SternaError(f"--{name} must be a positive integer, not {getattr(args, name)}")
    stored = random_model(GEOMETRIES[args.model]) if args.model in GEOMETRIES else Model.open(args.model)
    model = IntegerModel.from_model(stored)
    began = time.perf_counter()
    engine = CudaEngine(model, gpu=args.gpu)
    loaded = time.perf_counter() - began
    try:
        if args.check:
            check(model, engine, args.check)
        ids = np.random.default_rng(0).integers(0, engine.geometry.vocab, args.prompt).tolist()
        decode: list[float] = []
        prefill: list[float] = []
        with progress(total=2 * (args.repeats + 1), label="bench", unit="run") as bar:
            for times, run in ((decode, lambda: _decode(engine, args.tokens)), (prefill, lambda: engine.prefill(ids))):
                for _ in range(args.repeats + 1):
                    engine.reset()
                    began = time.perf_counter()
                    run()
                    times.append(time.perf_counter() - began)
                    bar.update(1)
        return {
            "gpu": engine.device_name,
            "load_seconds": loaded,
            "memory_bytes": engine.memory_bytes,
            "memory_gib": engine.memory_bytes / 2**30,
            "checked_tokens": args.check,
            "decode_tokens_per_second": _spread([args.tokens / seconds for seconds in decode[1:]]),
            "prefill_tokens": args.prompt,
            "prefill_seconds": _spread(prefill[1:]),
        }
    finally:
        engine.close()


def random_model(geometry: Geometry, *, seed: int = 0) -> Model:
    """A model in memory with random trits, norm weights near one and embeddings near zero; its text is noise."""
    rng = np.random.default_rng(seed)
    hidden, inner, vocab = geometry.hidden, geometry.inner, geometry.vocab

    def norm(columns: int) -> Any:
        return (1 + 0.1 * rng.standard_normal(columns)).astype(np.float32)

    def projection(rows: int, columns: int) -> Projection:
        packed = rng.integers(0, CODES, (rows, -(-columns // TRITS_PER_BYTE)), np.uint8)
        return Projection(rows, columns, float(np.float32(0.8 * columns**-0.5)), norm(columns), lambda: packed)

    layers = []
    for _ in range(geometry.layers):
        f, i, g, o = (projection(hidden, hidden) for _ in range(4))
        glu = GLU(norm(hidden), projection(2 * inner, hidden), projection(hidden, inner), glu_frac=14)
        bound = rng.integers(0, 1 << 16, hidden).astype(np.uint16)
        layers.append(Layer(norm(hidden), bound, f, i, g, o, norm(hidden), product_frac=14, glu=glu))
    values = rng.standard_normal((vocab, hidden), np.float32)
    embedding = Embedding((values.view(np.uint32) >> 16).astype(np.uint16), "bfloat16", frac=12)
    head = projection(vocab, hidden)
    return Model(geometry, embedding, tuple(layers), norm(hidden), head, 14, None, None, Path())


def check(model: IntegerModel, engine: CudaEngine, tokens: int) -> None:
    """Compare random tokens, one by one and read at once, with the golden model.

    Raises:
        SternaError: they differ; the sentence names the first result that does.
    """
    golden, ids = GoldenModel(model), np.random.default_rng(1).integers(0, model.geometry.vocab, tokens).tolist()
    for position, token in enumerate(progress(ids, label="golden", unit="token")):
        before, trace = golden.state[:, 0].copy(), Trace()
        logits = golden.step([token], trace=trace)[0]
        step = engine.step(token, logits=True)
        assert step.logits is not None  # was asked for
        same = np.array_equal(step.logits, logits) and np.array_equal(engine.state, golden.state[:, 0])
        if not same or (step.sampled, step.counters["saturations"]) != (int(logits.argmax()), trace.saturations):
            raise SternaError(f"token {token} at position {position}: {_difference(engine, before, token, trace)}")
    engine.reset()
    engine.prefill(ids)
    for layer, (expected, found) in enumerate(zip(golden.state[:, 0], engine.state, strict=True)):
        if (expected != found).any():
            raise SternaError(f"{tokens} tokens at once: layer {layer} state {_rows(found, expected)}")
    engine.reset()


def _difference(engine: CudaEngine, state: IntArray, token: int, trace: Trace) -> str:
    """The first result of a token from this state that is not what golden traced."""
    expected = dict(trace.results)
    engine.state = state
    for name, values in engine.trace(token):
        if (values != expected[name][0]).any():
            return f"{name} {_rows(values, expected[name][0])}"
    return "results or counters differ, but not when the token runs phase by phase"


def _rows(found: IntArray, expected: IntArray) -> str:
    wrong = np.flatnonzero(found != expected)
    row = int(wrong[0])
    return f"differs in {len(wrong)} of {len(found)} rows, first in row {row}: {found[row]} is not {expected[row]}"


def _decode(engine: CudaEngine, tokens: int) -> None:
    token = 1 % engine.geometry.vocab
    for _ in range(tokens):
        token = engine.step(token).sampled


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


if __name__ == "__main__":
    sys.exit(main())
