"""``make bench``: whole tokens of several models and configurations through the RTL, and where their cycles went."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from sterna.cli.progress import progress
from sterna.compiler.account import account
from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.importer.synthetic import GEOMETRIES, source_bytes, write_synthetic
from sterna.model.store import Model
from sterna.spec.config import PRESETS, HardwareConfig, preset
from sterna_sim.build import cache_root
from sterna_sim.cosim import CoSimulation
from sterna_sim.demo import MODEL
from sterna_sim.memory import MODELS, MemoryModel, memory_model
from sterna_sim.report import IDEAL, Measurement, markdown, picture, stream_bytes

SHIPPED = "shipped"
STORED = {SHIPPED: MODEL, "reservoir": MODEL.with_name("gutenberg-25m-reservoir")}
SWITCHES = {"+generator": True, "-generator": False}  # ends of a configuration: the preset with or without
# What a rate and a latency say of the memories that the configurations are made for.
# Ideal memories that give less than a beat a cycle.
IDEAL_MEMORIES = {"ecpix5": MemoryModel(beats_denominator=2)}  # DDR3 x16 behind a 128-bit port: 8 bytes a cycle
DEFAULT_CASES = (
    f"{SHIPPED}:sim-small",
    f"{SHIPPED}:ecpix5",
    f"{SHIPPED}:ecpix5:ecp5-ddr3",
    f"{SHIPPED}:ecpix5:ecp5-ddr3-litedram",
    "370m:ecpix5",
    "370m:ecpix5:ecp5-ddr3",
    "reservoir:sim-small",
    "reservoir:sim-small-generator",
    "reservoir:ecpix5+generator",
    "reservoir:ecpix5",
)


def measure(name: str, config_name: str, memory_name: str = IDEAL, *, tokens: int) -> Measurement:
    """Run ``tokens`` tokens, each compared with golden in every integer; the last one is reported.

    Raises:
        SternaError: the model does not fit the configuration or the memory, or the RTL differs from golden.
    """
    config = _config(config_name)
    memory = IDEAL_MEMORIES.get(config.name, MemoryModel()) if memory_name == IDEAL else memory_model(memory_name)
    with tempfile.TemporaryDirectory(prefix="sterna-bench-") as folder:
        model = Model.open(STORED[name]) if name in STORED else _synthetic(name, Path(folder))
        with CoSimulation(model, config, memory=memory, progress=_note) as cosim:
            found = account(cosim.image, config)
            for token in range(tokens):
                checked = cosim.step(token)
    return Measurement(
        model=name,
        config=config_name,
        memory=memory_name,
        bytes_per_cycle=memory.peak_bytes(config.beat_bytes),
        weight_bytes=found.trits,
        generated_bytes=found.generated,
        stream_bytes=found.total,
        cycles=checked.cycles,
        beats=checked.beats,
        stalls={stall.name: cycles for stall, cycles in checked.stalls.items()},
        stream=stream_bytes(found),
        integers_compared=checked.integers,
        efficiency=checked.efficiency,
        bound=found.bound,
        trits_per_second=5 * (found.trits + found.generated) / checked.seconds,
        cycles_per_second=checked.cycles / checked.seconds,
    )


def main() -> int:
    """Run the cases, print the tables, and write JSON, Markdown and picture."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        default=DEFAULT_CASES,
        metavar="MODEL:CONFIG[:MEMORY]",
        help=f"MODEL is one of {', '.join((*STORED, *GEOMETRIES))}, CONFIG one of {', '.join(PRESETS)}, "
        f"with {' or '.join(SWITCHES)} behind it if wanted, MEMORY is one of {', '.join(MODELS)} "
        f"(default: {' '.join(DEFAULT_CASES)})",
    )
    parser.add_argument("--tokens", type=int, default=1, help="tokens of each case (default: 1)")
    parser.add_argument(
        "--json",
        type=Path,
        default=cache_root() / "bench.json",
        help="file for the figures; tables and picture go beside it",
    )
    arguments = parser.parse_args()
    measurements = []
    try:
        for case in arguments.cases:
            measurements.append(measure(*_parse(case), tokens=arguments.tokens))
    except SternaError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    text = markdown(measurements)
    print(text)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    _write(arguments.json, json.dumps([asdict(m) for m in measurements], indent=2) + "\n")
    _write(arguments.json.with_suffix(".md"), text + "\n")
    try:
        _write(arguments.json.with_suffix(".png"), picture(measurements))
    except SternaError as error:
        _note(str(error))
    return 0


def _parse(case: str) -> tuple[str, str, str]:
    """Model, configuration and memory of ``MODEL:CONFIG[:MEMORY]``."""
    parts = case.split(":")
    if len(parts) == 2:
        parts.append(IDEAL)
    known = len(parts) == 3 and parts[0] in {*STORED, *GEOMETRIES} and _split(parts[1])[0] in PRESETS
    if not known or parts[2] not in MODELS:
        raise SternaError(f"{case!r} is no case; write MODEL:CONFIG or MODEL:CONFIG:MEMORY, see --help")
    return parts[0], parts[1], parts[2]


def _split(config: str) -> tuple[str, bool | None]:
    """Preset, and whether it shall have a generator; None: as it is."""
    for end, generator in SWITCHES.items():
        if config.endswith(end):
            return config.removesuffix(end), generator
    return config, None


def _config(name: str) -> HardwareConfig:
    preset_name, generator = _split(name)
    config = preset(preset_name)
    return config if generator is None else replace(config, generator=generator)


def _synthetic(name: str, folder: Path) -> Model:
    geometry = GEOMETRIES[name]
    with progress(total=source_bytes(geometry), label=f"writing a {name} checkpoint", unit="B") as bar:
        source = write_synthetic(folder / "checkpoint", geometry, progress=bar.update)
    import_checkpoint(source, folder / "model", calibrate=False, progress=progress)
    return Model.open(folder / "model")


def _write(path: Path, contents: str | bytes) -> None:
    """Write all or nothing."""
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    scratch.replace(path)


def _note(words: str) -> None:
    print(f"bench: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
