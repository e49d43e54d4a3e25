"""``make bench-slots``: what slots make of a pass over the weights: tokens of many sequences, or many of a prompt."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sterna.cli.progress import progress
from sterna.engines.engine import Origin, SlotToken
from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.importer.synthetic import write_synthetic
from sterna.model.geometry import Geometry
from sterna.model.store import Model
from sterna.spec.config import preset
from sterna_sim.bench import SHIPPED, STORED
from sterna_sim.build import cache_root
from sterna_sim.cosim import CoSimulation

SMALL = "small"
GEOMETRIES = {SMALL: Geometry(hidden=128, layers=3, inner=256, vocab=251, rms_eps=1e-6)}
DEFAULT_CASES = (f"{SMALL}:sim-tiny-b4:256", f"{SHIPPED}:sim-small-b4:8")


@dataclass(frozen=True, kw_only=True)
class SlotMeasurement:
    """One model on a build with slots; all cycles are exact, and every integer of every pass was golden's."""

    model: str
    config: str
    slots: int
    one: int  # cycles of a pass with one slot in use
    all: int  # and with a sequence in each
    prompt: int  # tokens
    stepped: int  # cycles of the prompt, token by token
    chained: int  # and as chains of all slots, without logits before its end

    @property
    def throughput(self) -> float:
        """Tokens a second over all slots, of one slot's."""
        return self.slots * self.one / self.all

    @property
    def prefill(self) -> float:
        """Cycles of the prompt in chains, of those token by token."""
        return self.chained / self.stepped


def measure(name: str, config_name: str, prompt: int) -> SlotMeasurement:
    """Run one token, then one in each slot, then a prompt in both ways; the memory gives a beat a cycle.

    Raises:
        SternaError: the model does not fit the configuration, or the RTL differs from golden.
    """
    config = preset(config_name)
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="sterna-bench-") as folder:
        model = Model.open(STORED[name]) if name in STORED else _synthetic(name, Path(folder))
        tokens = [rng.randrange(model.geometry.vocab) for _ in range(prompt)]
        with (
            CoSimulation(model, config, progress=_note) as cosim,
            progress(total=2 * prompt, label=f"{name}:{config_name}", unit="token") as bar,
        ):
            one = cosim.run({0: SlotToken(0, Origin.FRESH)})
            every = cosim.run({slot: SlotToken(slot, Origin.FRESH) for slot in range(config.slots)})
            stepped = 0
            for position, token in enumerate(tokens):
                stepped += cosim.run({0: SlotToken(token, 0 if position else Origin.FRESH)}).cycles
                bar.update(1)
            chained = 0
            origin: Origin | int = Origin.FRESH
            for start in range(0, prompt, config.slots):
                part = tokens[start : start + config.slots]
                chain = {n: SlotToken(token, Origin.CHAIN if n else origin) for n, token in enumerate(part)}
                chained += cosim.run(chain, head=start + len(part) == prompt).cycles
                origin = len(part) - 1
                bar.update(len(part))
    return SlotMeasurement(
        model=name,
        config=config_name,
        slots=config.slots,
        one=one.cycles,
        all=every.cycles,
        prompt=prompt,
        stepped=stepped,
        chained=chained,
    )


def markdown(measurements: Sequence[SlotMeasurement]) -> str:
    """The table."""
    header = (
        "model",
        "configuration",
        "slots",
        "cycles, one slot",
        "cycles, all slots",
        "tokens a second, of one slot's",
        "prompt",
        "cycles, token by token",
        "cycles, in chains",
        "of token by token",
        "1 / slots",
    )
    rows = [
        (
            m.model,
            m.config,
            str(m.slots),
            f"{m.one:,}",
            f"{m.all:,}",
            f"{m.throughput:.3f}",
            str(m.prompt),
            f"{m.stepped:,}",
            f"{m.chained:,}",
            f"{100 * m.prefill:.2f} %",
            f"{100 / m.slots:.2f} %",
        )
        for m in measurements
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ("---",) * len(header), *rows))


def main() -> int:
    """Run the cases, print the table, and write it with the figures."""
    parser = argparse.ArgumentParser(prog="make bench-slots", description=__doc__)
    parser.add_argument(
        "cases",
        nargs="*",
        default=DEFAULT_CASES,
        metavar="MODEL:CONFIG:TOKENS",
        help=f"MODEL is one of {', '.join((*STORED, *GEOMETRIES))}, CONFIG a preset with slots, TOKENS the "
        f"length of the prompt (default: {' '.join(DEFAULT_CASES)})",
    )
    parser.add_argument("--json", type=Path, default=cache_root() / "bench-slots.json", help="file for the figures")
    arguments = parser.parse_args()
    try:
        measurements = [measure(*_parse(case)) for case in arguments.cases]
    except SternaError as error:
        print(f"bench-slots: {error}", file=sys.stderr)
        return error.exit_code
    text = markdown(measurements)
    print(text)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    _write(arguments.json, json.dumps([asdict(m) for m in measurements], indent=2) + "\n")
    _write(arguments.json.with_suffix(".md"), text + "\n")
    return 0


def _parse(case: str) -> tuple[str, str, int]:
    parts = case.split(":")
    known = len(parts) == 3 and parts[0] in {*STORED, *GEOMETRIES} and parts[2].isdecimal() and int(parts[2]) > 0
    if not known:
        raise SternaError(f"{case!r} is no case; write MODEL:CONFIG:TOKENS, see --help")
    if preset(parts[1]).slots == 1:
        raise SternaError(f"configuration {parts[1]} has one slot; choose one with slots")
    return parts[0], parts[1], int(parts[2])


def _synthetic(name: str, folder: Path) -> Model:
    source = write_synthetic(folder / "checkpoint", GEOMETRIES[name])
    import_checkpoint(source, folder / "model", calibrate=False)
    return Model.open(folder / "model")


def _write(path: Path, contents: str) -> None:
    """Write all or nothing."""
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_text(contents)
    scratch.replace(path)


def _note(words: str) -> None:
    print(f"bench-slots: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
