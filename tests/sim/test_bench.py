"""``make bench``: its cases, what slots and the CPU engine make of them, and what is computed from both."""

import json
import re
import sys
from dataclasses import asdict, replace

import pytest

from sterna.cli import bench_cpu
from sterna.errors import SternaError
from sterna.model.geometry import Geometry
from sterna.spec.config import preset
from sterna_sim.bench import cases, command, picture, report, slots
from sterna_sim.bench.cases import CpuCase, SlotsCase, TokenCase, configuration, parse
from sterna_sim.bench.cpu import measure as measure_cpu
from sterna_sim.bench.results import Results
from sterna_sim.bench.slots import SlotMeasurement
from sterna_sim.bench.throughput import PEERS
from sterna_sim.memory import MODELS

SLOTS = SlotMeasurement(
    model="370m",
    config="kv260+slots=2",
    memory="zynq-ddr4",
    lanes=640,
    slots=2,
    one=1_000_000,
    all=1_200_000,
    prompt=4,
    stepped=4_000_000,
    chained=2_200_000,
)


@pytest.mark.parametrize("text", cases.DEFAULT_CASES)
def test_a_case_is_named_as_it_is_written(text):
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "case"),
    [
        ("370m:kv260", TokenCase("370m", "kv260", "ideal")),
        ("2.7b:u55c+burst_beats=16:hbm", TokenCase("2.7b", "u55c+burst_beats=16", "hbm")),
        ("slots:small:sim-tiny-b4:12", SlotsCase("small", "sim-tiny-b4", "ideal", 12)),
        ("slots:370m:kv260+slots=2:zynq-ddr4:4", SlotsCase("370m", "kv260+slots=2", "zynq-ddr4", 4)),
        ("cpu:1.3b", CpuCase("1.3b")),
    ],
)
def test_kinds_of_cases(text, case):
    assert parse(text) == case


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slots:small:sim-tiny-b4", "is no case"),
        ("slots:small:sim-tiny-b4:0", "is no case"),
        ("slots:shipped:sim-small:8", "has one slot"),
        ("slots", "is no case"),
        ("cpu", "is no case"),
        ("cpu:gpt", "is no case"),
        ("cpu:8m:ecpix5", "is no case"),
        ("shipped:kv260+wings=2", "changes nothing"),
        ("shipped:kv260+slots", "changes nothing"),
        ("shipped:kv260+generator=2", "changes nothing"),
        ("shipped:kv260-slots=2", "changes nothing"),
        ("shipped:kv260+slots=99", "slots must be"),
    ],
)
def test_what_is_no_case_is_refused_before_anything_runs(text, message, capsys, monkeypatch):
    monkeypatch.setattr(Results, "run", lambda *_, **__: pytest.fail("a case ran"))
    assert command.main(["shipped:sim-small", text]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_changes_of_a_preset():
    base = preset("kv260")
    changed = configuration("kv260+generator+slots=2")
    assert changed == replace(base, name=changed.name, generator=True, slots=2)
    assert configuration("sim-tiny-b4-generator").generator is False
    assert configuration("kv260") == base


def test_slots_are_measured(tmp_path, monkeypatch, capsys):
    """Cycles of passes and of a prompt; a second slot costs little, chains about half of the prompt."""
    monkeypatch.setattr(cases, "SMALL_GEOMETRY", Geometry(hidden=96, layers=2, inner=160, vocab=128, rms_eps=1e-6))
    target = tmp_path / "bench.json"
    assert command.main(["slots:small:sim-tiny-b4:6", "--json", str(target)]) == 0
    found = json.loads(target.read_text())
    (measured,) = found["slots"]
    assert measured["one"] < measured["all"] < 1.05 * measured["one"]
    assert measured["stepped"] == pytest.approx(6 * measured["one"], rel=0.01)
    assert measured["one"] < measured["chained"] < 2.1 * measured["one"]  # two chains, one of them without a head
    assert measured["throughput"] == 4 * measured["one"] / measured["all"]
    assert measured["prefill"] == measured["chained"] / measured["stepped"]
    assert found["tokens"] == found["throughput"] == found["cpu"] == []
    assert f"| {measured['all']:,} |" in capsys.readouterr().out
    assert not target.with_suffix(".png").exists()


def test_throughput_is_clock_times_slots_by_cycles():
    results = Results(slots=[SLOTS])
    (rate,) = results.throughput
    assert rate.clock == MODELS["zynq-ddr4"].clock == 300_000_000 and rate.clock_is == "assumed"
    assert rate.tokens_per_second == 300e6 * 2 / 1_200_000
    text = report.markdown(results)
    assert "| 370m | kv260+slots=2, zynq-ddr4 | 300 MHz, assumed | 18.2 | 2 | 1,200,000 | 500.00 |" in text
    theirs = [p for p in PEERS if p.model == "370m"]
    assert all(f"{p.system} ({p.source})" in text for p in theirs) and "2.7b" not in text
    assert len(re.findall("^[|] 370m [|].*assumed", text, re.MULTILINE)) == 1
    assert picture.picture(results).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("config", "memory", "clock", "kind"),
    [
        ("butterstick", "ecp5-ddr3", 60e6, "placed"),
        ("ecpix5", "ecp5-ddr3", 75e6, "placed"),
        ("ecpix5+slots=2", "ecp5-ddr3", 75e6, "assumed"),
    ],
)
def test_clocks_are_those_of_boards_and_placed_where_the_build_is(config, memory, clock, kind):
    (rate,) = Results(slots=[replace(SLOTS, config=config, memory=memory)]).throughput
    assert (rate.clock, rate.clock_is) == (clock, kind)
    assert rate.gigabytes == pytest.approx(clock * 7.446e-9)


@pytest.mark.parametrize(("config", "gibibytes"), [("ecpix5", 0.5), ("butterstick", 1), ("sim-small", 0.5)])
def test_ddr3_is_as_large_as_on_the_board(config, gibibytes):
    memory = cases.memory_of(TokenCase("2.7b", config, "ecp5-ddr3"))
    assert memory == replace(MODELS["ecp5-ddr3"], size=round(gibibytes * 2**30))


def test_clusters_have_a_memory_each():
    (rate,) = Results(slots=[replace(SLOTS, config="u280", memory="hbm32", slots=1)]).throughput
    assert rate.gigabytes == pytest.approx(32 * 64 * 0.225 * MODELS["hbm32"].sequential)


@pytest.mark.parametrize(("config", "memory"), [("kv260", "ideal"), ("sim-small-b4", "ecp5-ddr3")])
def test_without_a_board_there_is_no_throughput(config, memory):
    assert Results(slots=[replace(SLOTS, config=config, memory=memory)]).throughput == []


def test_the_cpu_case_shows_what_its_benchmark_found(monkeypatch):
    times = {"cpu_ms_per_token": {"median": 2.0}, "reference_ms_per_token": {"median": 9.0}}
    memory = {"packed_bytes": 100, "cpu_resident_bytes": 120, "reference_resident_bytes": 900}
    asked = {}

    def found(model, **options):
        asked.update(options, model=model)
        return times | memory | {"threads": 2, "speed_ratio": 4.5}

    monkeypatch.setattr(bench_cpu, "measure", found)
    measured = measure_cpu(CpuCase("8m"))
    assert asked["model"] == "8m" and asked["calibrate"] is False
    assert asdict(measured)["ratio"] == 4.5
    assert "| 8m | 2 | 2 | 9 | 4.5 | 0 MB | 1.20 | 0 MB |" in report.markdown(Results(cpu=[measured]))
    measure_cpu(CpuCase("shipped"))
    assert asked["model"] == str(cases.STORED["shipped"])


def test_an_error_leaves_no_figures(monkeypatch, tmp_path, capsys):
    def fails(*_, **__):
        raise SternaError("the state does not fit")

    monkeypatch.setattr(slots, "CoSimulation", fails)
    target = tmp_path / "bench.json"
    assert command.main(["slots:small:sim-tiny-b4:6", "--json", str(target)]) == 2
    assert "bench: the state does not fit" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_help_shows_the_kinds(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--help"])
    with pytest.raises(SystemExit):
        command.main()
    shown = capsys.readouterr().out
    assert "slots:MODEL" in shown and "cpu:MODEL" in shown and "examples:" in shown
