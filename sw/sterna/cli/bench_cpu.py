"""Speed and memory of the CPU engine beside PyTorch: ``python -m sterna.cli.bench_cpu MODEL``."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from sterna.cli.progress import progress
from sterna.engines.cpu import CpuEngine
from sterna.engines.golden import GoldenEngine
from sterna.errors import SternaError
from sterna.importer.synthetic import GEOMETRIES, source_bytes, write_synthetic
from sterna.model.manifest import WEIGHTS_FILE
from sterna.model.store import Model

ENGINES = ("cpu", "reference")
_SEED = 0

_EPILOG = """\
examples:
  python -m sterna.cli.bench_cpu my-model
      time of a token and resident memory, CPU engine and float32 PyTorch model in turns, each in its own process
  python -m sterna.cli.bench_cpu 1.3b --check 2 --json
      the same for random weights of a published size, which are written, imported and deleted again
  python -m sterna.cli.bench_cpu 2.7b --import --no-calibrate
      only the peak memory of the import

The ratio is the median over the repeats of PyTorch's time by the engine's on the same tokens."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sterna.cli.bench_cpu",
        description="Measure the CPU engine beside the float32 PyTorch model.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sizes = ", ".join(GEOMETRIES)
    parser.add_argument("model", metavar="MODEL", help=f"directory that `sterna import` wrote, or one of {sizes}")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of both (default: one a processor)")
    parser.add_argument("--tokens", type=int, default=8, metavar="N", help="tokens of a repeat (default: 8)")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="repeats after a first one (default: 7)")
    parser.add_argument("--check", type=int, default=1, metavar="N", help="tokens to compare with golden (default: 1)")
    parser.add_argument("--import", dest="only_import", action="store_true", help="import a published size, no more")
    parser.add_argument(
        "--no-calibrate", dest="calibrate", action="store_false", help="import as `sterna import --no-calibrate` does"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(arguments)
    try:
        result = measure(
            args.model,
            tokens=args.tokens,
            repeats=args.repeats,
            checked=args.check,
            threads=args.threads,
            only_import=args.only_import,
            calibrate=args.calibrate,
        )
    except SternaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result) if args.json else "\n".join(f"{name}: {value}" for name, value in result.items()))
    return 0


def measure(
    model: str,
    *,
    tokens: int = 8,
    repeats: int = 7,
    checked: int = 1,
    threads: int | None = None,
    only_import: bool = False,
    calibrate: bool = True,
) -> dict[str, Any]:
    """All figures: memory in bytes, times in milliseconds a token. The arguments are the options of the command.

    Raises:
        SternaError: an option is out of range, or the engine's integers are not golden's.
    """
    for name, value in (("tokens", tokens), ("repeats", repeats), ("threads", threads)):
        if value is not None and value < 1:
            raise SternaError(f"--{name} must be a positive integer, not {value}")
    if checked < 0:
        raise SternaError(f"--check must not be negative, but is {checked}")

    def engines(path: Path) -> dict[str, Any]:
        count = threads or len(os.sched_getaffinity(0))
        return _engines(path, tokens=tokens, repeats=repeats, checked=checked, threads=count)

    if model not in GEOMETRIES:
        if only_import:
            raise SternaError(f"--import takes one of {', '.join(GEOMETRIES)}, not {model}")
        return engines(Path(model))
    with tempfile.TemporaryDirectory(prefix="bench-cpu-") as directory:
        source, target = Path(directory, "source"), Path(directory, "model")
        geometry = GEOMETRIES[model]
        with progress(total=source_bytes(geometry), label="random weights", unit="B") as bar:
            write_synthetic(source, geometry, progress=bar.update)
        with _Worker(_import, source, target, calibrate) as worker:
            peak = worker.receive()["peak_bytes"]
        found = {"source_bytes": source_bytes(geometry), "calibrated": calibrate, "import_peak_bytes": peak}
        return found if only_import else found | engines(target)


def _engines(path: Path, *, tokens: int, repeats: int, checked: int, threads: int) -> dict[str, Any]:
    model = Model.open(path)
    packed = (path / WEIGHTS_FILE).stat().st_size
    ids = np.random.default_rng(_SEED).integers(0, model.geometry.vocab, max(tokens, checked)).tolist()
    with _Worker(_cpu, path, threads) as cpu, _Worker(_reference, path, threads) as reference:
        workers = dict(zip(ENGINES, (cpu, reference), strict=True))
        for worker in workers.values():
            worker.receive()  # it has loaded
        times = _in_turns(workers, ids[:tokens], repeats)
        memory = {name: worker.ask(None) for name, worker in workers.items()}
    if checked:
        check(model, ids[:checked], threads=threads)
    result: dict[str, Any] = {"threads": threads, "checked_tokens": checked, "packed_bytes": packed}
    for name in ENGINES:
        result[f"{name}_ms_per_token"] = _spread([1e3 * seconds for seconds in times[name]])
    result["speed_ratio"] = statistics.median(r / c for c, r in zip(times["cpu"], times["reference"], strict=True))
    for name in ENGINES:
        result[f"{name}_resident_bytes"] = memory[name]["resident_bytes"]
        result[f"{name}_peak_bytes"] = memory[name]["peak_bytes"]
        result[f"{name}_resident_ratio"] = memory[name]["resident_bytes"] / packed
    return result


def check(model: Model, ids: list[int], *, threads: int) -> None:
    """Compare logits, state and clamps of some tokens with the golden model.

    Raises:
        SternaError: they differ.
    """
    engine, golden = CpuEngine(model, threads=threads), GoldenEngine(model)
    for position, token in enumerate(progress(ids, label="golden", unit="token")):
        ours, expected = engine.step(token, logits=True), golden.step(token, logits=True)
        assert ours.logits is not None and expected.logits is not None  # were asked for
        same = np.array_equal(ours.logits, expected.logits) and np.array_equal(engine.state, golden.state)
        if not same or ours.counters != expected.counters:
            raise SternaError(f"token {token} at position {position}: the CPU engine's integers are not golden's")


def _in_turns(workers: dict[str, _Worker], ids: list[int], repeats: int) -> dict[str, list[float]]:
    """Seconds a token, an entry a repeat; every second repeat goes backwards, one before the first is not counted."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    with progress(total=repeats + 1, label="timing", unit="repeat") as bar:
        for repeat in range(-1, repeats):
            for name in list(workers)[:: 1 if repeat % 2 else -1]:
                seconds = workers[name].ask(ids) / len(ids)
                if repeat >= 0:
                    times[name].append(seconds)
            bar.update(1)
    return times


class _Worker:
    """A fresh process that runs ``function(connection, *arguments)``; its errors are raised by ``receive``."""

    def __init__(self, function: Callable[..., None], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_guarded, args=(theirs, function, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise SternaError("a process of the benchmark ended early: is there memory enough?") from None
        if isinstance(answer, SternaError):
            raise answer
        return answer

    def ask(self, question: object) -> Any:
        self._connection.send(question)
        return self.receive()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()  # which ends it
        self._process.join()


def _guarded(connection: Connection, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    try:
        function(connection, *arguments)
    except SternaError as error:
        connection.send(error)
    except (EOFError, BrokenPipeError):
        pass  # nobody asks any more


def _import(connection: Connection, source: Path, target: Path, calibrate: bool) -> None:
    from sterna.importer import import_checkpoint

    import_checkpoint(source, target, progress=progress, calibrate=calibrate)
    connection.send(_memory())


def _cpu(connection: Connection, path: Path, threads: int) -> None:
    engine = CpuEngine(Model.open(path), threads=threads)
    _serve(connection, engine.reset, engine.step)


def _reference(connection: Connection, path: Path, threads: int) -> None:
    from sterna.runtime.runners import REFERENCE, open_runner

    runner = open_runner(path, REFERENCE, {})
    import torch

    torch.set_num_threads(threads)
    _serve(connection, lambda: runner.reset(1), lambda token: runner.run(np.array([[token]])))


def _serve(connection: Connection, reset: Callable[[], None], step: Callable[[int], object]) -> None:
    """Answer token ids with the seconds they take, after one that is not counted, and None with the memory."""
    connection.send("loaded")
    while True:
        ids = connection.recv()
        if ids is None:
            connection.send(_memory())
            continue
        step(ids[0])
        reset()
        began = time.perf_counter()
        for token in ids:
            step(token)
        connection.send(time.perf_counter() - began)


def _memory() -> dict[str, int]:
    """Resident memory of this process, now and at its peak, mapped files included."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        raise SternaError("resident memory is read from /proc, which this system does not have: use Linux") from None
    values = dict(line.split(":", 1) for line in lines)
    kib = {name: int(values[key].split()[0]) for name, key in (("resident_bytes", "VmRSS"), ("peak_bytes", "VmHWM"))}
    return {name: 1024 * value for name, value in kib.items()}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


if __name__ == "__main__":
    sys.exit(main())
