"""``make bench``: whole tokens of several models and configurations through the RTL, as JSON and as a table."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sterna.cli.progress import progress
from sterna.compiler.account import account
from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.importer.synthetic import GEOMETRIES, source_bytes, write_synthetic
from sterna.model.store import Model
from sterna.spec.config import preset
from sterna_sim.build import cache_root
from sterna_sim.cosim import CoSimulation
from sterna_sim.demo import MODEL
from sterna_sim.memory import MODELS, MemoryModel, memory_model

SHIPPED = "shipped"
IDEAL = "ideal"
# What a rate and a latency say of the memories that the configurations are made for.
IDEAL_MEMORIES = {
    "sim-tiny": MemoryModel(),
    "sim-small": MemoryModel(),
    "sim-large": MemoryModel(),
    "ecpix5": MemoryModel(beats_denominator=2),  # DDR3 x16 behind a 128-bit port: 8 bytes a cycle
}
DEFAULT_CASES = (
    f"{SHIPPED}:sim-small",
    f"{SHIPPED}:ecpix5",
    f"{SHIPPED}:ecpix5:ecp5-ddr3",
    f"{SHIPPED}:ecpix5:ecp5-ddr3-litedram",
    "370m:ecpix5",
    "370m:ecpix5:ecp5-ddr3",
)


@dataclass(frozen=True)
class Measurement:
    """One model on one configuration; cycles and bytes are exact, speed of simulation is this machine's.

    ``efficiency`` is the roofline efficiency of the whole token; ``bound`` what its bytes allow at most.
    """

    model: str
    config: str
    memory: str
    bytes_per_cycle: float
    weight_bytes: int
    stream_bytes: int
    cycles: int
    integers_compared: int
    efficiency: float
    bound: float
    trits_per_second: float


def measure(name: str, config_name: str, memory_name: str = IDEAL, *, tokens: int) -> Measurement:
    """Run ``tokens`` tokens, each compared with golden in every integer; the last one is reported.

    Raises:
        SternaError: the model does not fit the configuration or the memory, or the RTL differs from golden.
    """
    config = preset(config_name)
    memory = IDEAL_MEMORIES[config_name] if memory_name == IDEAL else memory_model(memory_name)
    with tempfile.TemporaryDirectory(prefix="sterna-bench-") as folder:
        model = Model.open(MODEL) if name == SHIPPED else _synthetic(name, Path(folder))
        with CoSimulation(model, config, memory=memory, progress=_note) as cosim:
            found = account(cosim.image, config)
            for token in range(tokens):
                started = time.monotonic()
                checked = cosim.step(token)
                seconds = time.monotonic() - started
    return Measurement(
        model=name,
        config=config_name,
        memory=memory_name,
        bytes_per_cycle=memory.peak_bytes(config.beat_bytes),
        weight_bytes=found.trits,
        stream_bytes=found.total,
        cycles=checked.cycles,
        integers_compared=checked.integers,
        efficiency=checked.efficiency,
        bound=found.bound,
        trits_per_second=5 * found.trits / seconds,
    )


def table(measurements: list[Measurement]) -> str:
    """The measurements in Markdown."""
    lines = [
        "| model | configuration | memory | B/cycle | weight bytes | cycles a token | roofline | bound by bytes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {m.model} | {m.config} | {m.memory} | {m.bytes_per_cycle:g} | {m.weight_bytes:,} | {m.cycles:,} "
        f"| {100 * m.efficiency:.2f} % | {100 * m.bound:.2f} % |"
        for m in measurements
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the cases, print the table and write the JSON file."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        default=DEFAULT_CASES,
        metavar="MODEL:CONFIG[:MEMORY]",
        help=f"MODEL is {SHIPPED} or one of {', '.join(GEOMETRIES)}, MEMORY one of {', '.join(MODELS)} "
        f"(default: {' '.join(DEFAULT_CASES)})",
    )
    parser.add_argument("--tokens", type=int, default=1, help="tokens of each case (default: 1)")
    parser.add_argument("--json", type=Path, default=cache_root() / "bench.json", help="file for the figures")
    arguments = parser.parse_args()
    measurements = []
    try:
        for case in arguments.cases:
            measurements.append(measure(*_parse(case), tokens=arguments.tokens))
    except SternaError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps([asdict(m) for m in measurements], indent=2) + "\n")
    print(table(measurements))
    return 0


def _parse(case: str) -> tuple[str, str, str]:
    """Model, configuration and memory of ``MODEL:CONFIG[:MEMORY]``."""
    parts = case.split(":")
    if len(parts) == 2:
        parts.append(IDEAL)
    known = len(parts) == 3 and (parts[0] == SHIPPED or parts[0] in GEOMETRIES) and parts[1] in IDEAL_MEMORIES
    if not known or parts[2] not in MODELS:
        raise SternaError(f"{case!r} is no case; write MODEL:CONFIG or MODEL:CONFIG:MEMORY, see --help")
    return parts[0], parts[1], parts[2]


def _synthetic(name: str, folder: Path) -> Model:
    geometry = GEOMETRIES[name]
    with progress(total=source_bytes(geometry), label=f"writing a {name} checkpoint", unit="B") as bar:
        source = write_synthetic(folder / "checkpoint", geometry, progress=bar.update)
    import_checkpoint(source, folder / "model", calibrate=False, progress=progress)
    return Model.open(folder / "model")


def _note(words: str) -> None:
    print(f"bench: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
