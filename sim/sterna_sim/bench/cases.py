"""What a run of ``make bench`` measures: the cases of its command line."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

from sterna.cli.progress import progress
from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.importer.synthetic import GEOMETRIES, source_bytes, write_synthetic
from sterna.model.geometry import Geometry
from sterna.model.store import Model
from sterna.spec.config import PRESETS, HardwareConfig
from sterna_boards.boards import BOARDS
from sterna_sim.demo import MODEL
from sterna_sim.memory import MODELS, Ddr3Model, Memory, MemoryModel

IDEAL = "ideal"  # the memory of a case that names none
SHIPPED, SMALL = "shipped", "small"
STORED = {SHIPPED: MODEL, "reservoir": MODEL.with_name("gutenberg-25m-reservoir")}
# So small that its dependent phases are the bound and not the memory.
SMALL_GEOMETRY = Geometry(hidden=128, layers=3, inner=256, vocab=251, rms_eps=1e-6)
# Ideal memories that give less than a beat a cycle.
IDEAL_MEMORIES = {"ecpix5": MemoryModel(beats_denominator=2)}  # DDR3 x16 behind a 128-bit port: 8 bytes a cycle
SLOTS, CPU = "slots", "cpu"  # first words of cases of these kinds
DEFAULT_CASES = (
    f"{SHIPPED}:sim-small",
    f"{SHIPPED}:ecpix5",
    f"{SHIPPED}:ecpix5:ecp5-ddr3",
    f"{SHIPPED}:ecpix5:ecp5-ddr3-litedram",
    "370m:ecpix5",
    "370m:ecpix5:ecp5-ddr3",
    "370m:kv260:zynq-ddr4",
    "reservoir:sim-small",
    "reservoir:sim-small-generator",
    "reservoir:ecpix5+generator",
    "reservoir:ecpix5",
    f"{SLOTS}:{SMALL}:sim-tiny-b4:256",
    f"{SLOTS}:{SHIPPED}:sim-small-b4:8",
    f"{CPU}:370m",
)
SYNTAX = "MODEL:CONFIG[:MEMORY], slots:MODEL:CONFIG[:MEMORY]:TOKENS or cpu:MODEL"
_SWITCH = re.compile(r"([+-])(\w+)(?:=(\d+))?")


@dataclass(frozen=True)
class TokenCase:
    """A token of a model on a build with a memory."""

    model: str
    config: str
    memory: str

    def __str__(self) -> str:
        return f"{self.model}:{self.config}" + (f":{self.memory}" if self.memory != IDEAL else "")


@dataclass(frozen=True)
class SlotsCase:
    """Passes of one slot and of all, and a prompt of ``tokens``."""

    model: str
    config: str
    memory: str
    tokens: int

    def __str__(self) -> str:
        return f"{SLOTS}:{TokenCase(self.model, self.config, self.memory)}:{self.tokens}"


@dataclass(frozen=True)
class CpuCase:
    """The CPU engine beside PyTorch."""

    model: str

    def __str__(self) -> str:
        return f"{CPU}:{self.model}"


Case = TokenCase | SlotsCase | CpuCase


def parse(text: str) -> Case:
    """The case that ``text`` names.

    Raises:
        SternaError: it names none, or its build is none.
    """
    kind, *rest = text.split(":")
    wrong = SternaError(f"{text!r} is no case; write {SYNTAX}, see --help")
    models = {*STORED, *GEOMETRIES, SMALL}
    if kind == CPU:
        if len(rest) != 1 or rest[0] not in models - {SMALL}:
            raise wrong
        return CpuCase(rest[0])
    parts = rest if kind == SLOTS else [kind, *rest]
    tokens = parts.pop() if kind == SLOTS and parts else "1"
    if len(parts) == 2:
        parts.append(IDEAL)
    if len(parts) != 3 or parts[0] not in models or parts[2] not in MODELS or not _preset(parts[1]):
        raise wrong
    model, config, memory = parts
    slots = configuration(config).slots
    if kind != SLOTS:
        return TokenCase(model, config, memory)
    if not tokens.isdecimal() or int(tokens) < 1:
        raise wrong
    if slots == 1:
        raise SternaError(f"configuration {config} has one slot; choose one with slots, or write {config}+slots=4")
    return SlotsCase(model, config, memory, int(tokens))


def _preset(name: str) -> str:
    """The preset that ``name`` begins with, before its changes; empty if there is none."""
    for known in sorted(PRESETS, key=len, reverse=True):
        if name.startswith(known) and re.fullmatch(f"({_SWITCH.pattern})*", name.removeprefix(known)):
            return known
    return ""


def configuration(name: str) -> HardwareConfig:
    """The build called ``name``: a preset and changes, ``+field`` or ``-field`` of a switch, ``+field=number``.

    Raises:
        SternaError: there is no such preset or field, or the changed build is impossible.
    """
    base = _preset(name)
    if not base:
        raise SternaError(f"there is no configuration {name!r}; choose one of {', '.join(PRESETS)}")
    types = {field.name: field.type for field in fields(HardwareConfig)}
    changes: dict[str, int | bool] = {}
    for sign, field, number in _SWITCH.findall(name.removeprefix(base)):
        if types.get(field) == "bool" and not number:
            changes[field] = sign == "+"
        elif types.get(field) == "int" and number and sign == "+":
            changes[field] = int(number)
        else:
            raise SternaError(f"{sign}{field} changes nothing of configuration {base}; write +FIELD=NUMBER")
    # The checker holds the mapping against all fields; `types` has chosen those that fit.
    return replace(PRESETS[base], **changes, name=name if changes else base)  # type: ignore[arg-type]


def memory_of(case: TokenCase | SlotsCase) -> Memory:
    """The memory of a case; an ideal one is that of the preset, and DDR3 as large as on its board."""
    board = board_of(case)
    if case.memory == IDEAL:
        return IDEAL_MEMORIES.get(board, MODELS[IDEAL])
    memory = MODELS[case.memory]
    if isinstance(memory, Ddr3Model) and board in BOARDS:
        return replace(memory, size=BOARDS[board].memory_bytes)
    return memory


def board_of(case: TokenCase | SlotsCase) -> str:
    """The preset, which boards are called like."""
    return _preset(case.config)


def open_model(name: str, folder: Path) -> Model:
    """A model that is stored, or one of random weights, which is written to ``folder`` and imported like anyone's."""
    if name in STORED:
        return Model.open(STORED[name])
    geometry = GEOMETRIES.get(name, SMALL_GEOMETRY)
    with progress(total=source_bytes(geometry), label=f"writing a {name} checkpoint", unit="B") as bar:
        source = write_synthetic(folder / "checkpoint", geometry, progress=bar.update)
    import_checkpoint(source, folder / "model", calibrate=False, progress=progress)
    return Model.open(folder / "model")
