"""The summary table of bitstreams/README.md, made from the stored reports."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sterna_boards.flow.build import REPORT
from sterna_boards.flow.report import Report

BEGIN, END = "<!-- bitstreams -->", "<!-- end -->"


def stored(folder: Path) -> list[Report]:
    """Reports of the last build of each board in ``folder``."""
    return [Report.read(path) for path in sorted(folder.glob(f"*/{REPORT}"))]


def table(reports: Iterable[Report]) -> str:
    """One line a clock of each board; use of the device in its first."""
    kinds = ("LUT sites", "flip-flops", "block RAMs", "multipliers")
    header = ("board", *kinds, "clock", "reached, MHz", "required, MHz", "seed", "build id")
    lines: list[tuple[str, ...]] = [header, ("---",) * len(header)]
    for report in reports:
        head = (f"`{report.board}`", *(_used(*report.utilisation[kind]) for kind in kinds))
        for name, clock in report.clocks.items():
            figures = (f"`{name}`", f"{clock.reached:.1f}", f"{clock.required:.1f}")
            lines.append((*head, *figures, str(report.seed), f"`{report.build_id[:8]}`"))
            head = tuple("" for _ in head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def render(text: str, reports: Iterable[Report]) -> str:
    """``text`` with the table between its markers made anew."""
    return re.sub(f"{BEGIN}\n.*?{END}", lambda _: f"{BEGIN}\n{table(reports)}\n{END}", text, flags=re.DOTALL)


def _used(used: int, available: int) -> str:
    return f"{used:,} ({100 * used / available:.0f} %)"
