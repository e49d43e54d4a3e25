"""What came of a build: clocks, use of the device, and use by block; read from what the tools wrote."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

# Kinds that a report counts: by the name of nextpnr's resource, with what it is called here.
RESOURCES = {
    "TRELLIS_COMB": "LUT sites",
    "TRELLIS_FF": "flip-flops",
    "DP16KD": "block RAMs",
    "MULT18X18D": "multipliers",
    "EHXPLLL": "PLLs",
    "TRELLIS_IO": "pins",
}
# What a cell of the netlist adds to the columns of its block. A carry cell is two LUT sites with their adders, a 16 x 4
# LUT RAM four (and two more, which nextpnr counts apart).
CELLS = {
    "LUT4": {"LUT sites": 1},
    "CCU2C": {"LUT sites": 2, "carry": 2},
    "TRELLIS_DPR16X4": {"LUT sites": 4},
    "TRELLIS_FF": {"flip-flops": 1},
    "DP16KD": {"block RAMs": 1},
    "PDPW16KD": {"block RAMs": 1},
    "MULT18X18D": {"multipliers": 1},
}
COLUMNS = tuple(dict.fromkeys(column for added in CELLS.values() for column in added))
GLOBAL = "$glbnet$"  # before the name of a clock's net
SCOPE = "$scopeinfo"  # cell that Yosys leaves where a module was flattened
SHOWN_DEPTH, SHOWN_SHARE = 3, 0.01  # of the hierarchy, and of the whole in any column: what the printed table has


@dataclass(frozen=True)
class Clock:
    """A clock in MHz."""

    reached: float
    required: float

    @property
    def met(self) -> bool:
        """It is as fast as required."""
        return self.reached >= self.required


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Place and route with one seed."""

    seed: int
    seconds: float
    clocks: dict[str, Clock]

    @property
    def worst(self) -> tuple[str, Clock]:
        """The clock with the smallest ratio of what it reaches to what it must."""
        return min(self.clocks.items(), key=lambda item: item[1].reached / item[1].required)

    @property
    def margin(self) -> float:
        """That ratio."""
        return self.worst[1].reached / self.worst[1].required

    @property
    def met(self) -> bool:
        """All clocks are as fast as required."""
        return all(clock.met for clock in self.clocks.values())


@dataclass(frozen=True, kw_only=True)
class Report:
    """A build that met timing."""

    board: str
    build_id: str  # 32 hexadecimal digits
    bitstream_sha256: str
    seed: int  # that met timing, the last of ``attempts``
    attempts: list[Attempt]
    utilisation: dict[str, tuple[int, int]]  # kind to used and available
    blocks: dict[str, dict[str, int]]  # path in the hierarchy ("" is the whole) to kind to number, with all below
    tools: dict[str, str]  # package to version
    synthesis_seconds: float

    @property
    def clocks(self) -> dict[str, Clock]:
        """Clocks of the bitstream."""
        return self.attempts[-1].clocks

    def write(self, path: Path) -> None:
        """Store as JSON, whole or not at all."""
        work = path.with_name(f".{path.name}")
        work.write_text(self.json())
        work.replace(path)

    def json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> Report:
        """The stored report."""
        fields = json.loads(path.read_text())
        fields["utilisation"] = {kind: tuple(pair) for kind, pair in fields["utilisation"].items()}
        fields["attempts"] = [
            Attempt(**{**attempt, "clocks": {name: Clock(**clock) for name, clock in attempt["clocks"].items()}})
            for attempt in fields["attempts"]
        ]
        return cls(**fields)

    def lines(self) -> Iterator[str]:
        """The report as text."""
        whole = self.blocks[""]
        width = max(len(_shown(path)) for path in self.blocks)
        yield f"{'block':{width}}" + "".join(f"{column:>13}" for column in COLUMNS)
        for path, numbers in sorted(self.blocks.items()):
            large = any(numbers[column] >= max(SHOWN_SHARE * whole[column], 1) for column in COLUMNS)
            if path.count(".") < SHOWN_DEPTH and large:
                yield f"{_shown(path):{width}}" + "".join(f"{numbers[column]:>13}" for column in COLUMNS)
        yield ""
        for kind, (used, available) in self.utilisation.items():
            yield f"{kind:12} {used:6} of {available:6}  {100 * used / available:5.1f} %"
        yield ""
        for name, clock in self.clocks.items():
            yield f"{name}: {clock.reached:.1f} MHz reached, {clock.required:.1f} MHz required"
        yield ""
        tried = ", ".join(f"{attempt.seed} ({attempt.seconds:.0f} s)" for attempt in self.attempts)
        yield f"seeds tried: {tried}; synthesis {self.synthesis_seconds:.0f} s"
        yield "tools: " + ", ".join(f"{package} {version}" for package, version in self.tools.items())
        yield f"build id: {self.build_id}"
        yield f"bitstream: SHA-256 {self.bitstream_sha256}"


def _shown(path: str) -> str:
    """The last name of ``path``, indented by its depth."""
    return "  " * (path.count(".") + 1) + path.rpartition(".")[2] if path else "whole"


def clocks(path: Path, crossing: float | None = None) -> dict[str, Clock]:
    """Clocks in nextpnr's report, by the name of their net.

    With ``crossing``, hertz, also the longest path from one of them to another, which nextpnr measures but does not
    judge.
    """
    report = json.loads(path.read_text())
    found = {
        name.removeprefix(GLOBAL): Clock(reached=entry["achieved"], required=entry["constraint"])
        for name, entry in sorted(report["fmax"].items())
    }
    if crossing is None:
        return found
    for worst in report["critical_paths"]:
        ends = [worst[end].partition(" ")[2].removeprefix(GLOBAL) for end in ("from", "to")]
        if ends[0] != ends[1] and set(ends) <= found.keys():
            delay = sum(part["delay"] for part in worst["path"])  # nanoseconds
            found[" to ".join(ends)] = Clock(reached=1e3 / delay, required=crossing / 1e6)
    return found


def utilisation(path: Path) -> dict[str, tuple[int, int]]:
    """Kinds in nextpnr's report: used and available."""
    found = json.loads(path.read_text())["utilization"]
    return {name: (found[kind]["used"], found[kind]["available"]) for kind, name in RESOURCES.items() if kind in found}


def blocks(path: Path, top: str) -> dict[str, dict[str, int]]:
    """What every block of the netlist takes, those below it included.

    Cells keep the path of the module that they were flattened from. LUTs of two blocks that became one count where the
    net is that they drive.
    """
    cells = json.loads(path.read_text())["modules"][top]["cells"]
    scopes = {name for name, cell in cells.items() if cell["type"] == SCOPE}
    found: dict[str, Counter[str]] = {scope: Counter() for scope in ("", *scopes)}
    for name, cell in cells.items():
        added = CELLS.get(cell["type"])
        place = name if added else ""
        while place:
            place = place.rpartition(".")[0]
            if place in found:
                found[place].update(added)
    return {scope: {column: numbers[column] for column in COLUMNS} for scope, numbers in found.items()}
