"""``make sim`` and ``make bench``: what they print, what they return, and that cycles do not creep up."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint

from sterna.golden.model import GoldenModel
from sterna.importer import import_checkpoint, synthetic
from sterna.model.geometry import Geometry
from sterna.spec.config import preset
from sterna.spec.registers import STALL_TEXT, Stall
from sterna_sim import demo
from sterna_sim.bench import cases, command, report
from sterna_sim.bench.results import Results
from sterna_sim.bench.tokens import Measurement

BENCH_CYCLES = 33_229  # of one token of the small model below on sim-tiny
BENCH_STALLS = {  # and why its other cycles had no beat
    "STARTUP": 29,
    "MEMORY": 26,
    "RESTART": 3350,
    "FETCH": 203,
    "LOAD": 116,
    "SUMSQ": 356,
    "QUANT": 1220,
    "SCALAR": 390,
    "TABLES": 20735,
    "LANES": 1183,
    "DRAIN": 108,
    "END": 1,
}
TINY = preset("sim-tiny")


def run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    return module.main()


def test_shipped_model_is_bit_exact_at_its_measured_cycles(monkeypatch, capsys):
    assert run(demo, monkeypatch, "--prompt", "The sea", "--tokens", "2") == 0
    text, line = capsys.readouterr().out.strip().rsplit("\n", 1)
    assert text.startswith("The sea")
    match = re.fullmatch(
        r"sim: (\d+) tokens, (\d+)/(\d+) bit-exact against golden, "
        r"(\d+) cycles/token, ([\d.]+) % of the memory roofline",
        line,
    )
    assert match and match[1] == match[2] == match[3]
    assert int(match[4]) <= 379_589, "cycles are exact: more of them is a regression"
    assert float(match[5]) >= 96.7


def test_a_difference_ends_it_with_the_layer_and_the_first_integer(monkeypatch, capsys):
    honest = GoldenModel.step

    def off_by_one(self, tokens, *, trace=None):
        logits = honest(self, tokens, trace=trace)
        gate = dict(trace.results)["layer 1 gate"]
        gate[0, 7] += 1
        return logits

    monkeypatch.setattr(GoldenModel, "step", off_by_one)
    assert run(demo, monkeypatch, "--prompt", "The sea", "--tokens", "1") == 1
    assert re.search(r"sim: layer 1 gate, row 7: the RTL has -?\d+, the golden model -?\d+", capsys.readouterr().err)


def test_a_missing_model_is_one_sentence(monkeypatch, capsys, tmp_path):
    assert run(demo, monkeypatch, "--model", str(tmp_path / "none")) == 2
    assert "there is no model directory" in capsys.readouterr().err


@pytest.fixture
def small(monkeypatch):
    geometry = Geometry(hidden=96, layers=2, inner=160, vocab=128, rms_eps=1e-6)
    monkeypatch.setitem(synthetic.GEOMETRIES, "tiny", geometry)


def test_bench_measures_whole_tokens(small, monkeypatch, capsys, tmp_path):
    target = tmp_path / "bench.json"
    assert run(command, monkeypatch, "tiny:sim-tiny", "--json", str(target)) == 0
    (measured,) = json.loads(target.read_text())["tokens"]
    assert measured["efficiency"] == measured["weight_bytes"] / (measured["cycles"] * measured["bytes_per_cycle"])
    assert measured["efficiency"] < measured["bound"] < 1
    assert measured["integers_compared"] == 96 + 2 * (5 * 96 + 2 * 160) + 128
    assert measured["cycles"] <= BENCH_CYCLES, "cycles are exact: more of them is a regression"
    text = capsys.readouterr().out
    assert f"{measured['cycles']:,}" in text
    assert {name: cycles for name, cycles in measured["stalls"].items() if cycles} == BENCH_STALLS
    assert measured["beats"] + sum(measured["stalls"].values()) == measured["cycles"]
    assert sum(measured["stream"].values()) == measured["stream_bytes"] == measured["beats"] * TINY.beat_bytes
    assert target.with_suffix(".md").read_text() == text
    assert f"| TABLES: {STALL_TEXT[Stall.TABLES]} | {BENCH_STALLS['TABLES']:,} (" in text
    assert target.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_tables_show_shares_of_all_cycles():
    """Beats of 16 bytes, by what was in them, and stalls."""
    stream = {"trits": 1600, "padding": 160, "parameters": 160, "descriptors": 64, "embedding": 16}
    stalls = dict.fromkeys(Stall.__members__, 0) | {"STARTUP": 25, "QUANT": 50}
    sizes = {"weight_bytes": 1600, "stream_bytes": 2000, "cycles": 200, "beats": 125, "integers_compared": 9}
    sizes["generated_bytes"] = 300
    speeds = {"bytes_per_cycle": 16.0, "trits_per_second": 2e6, "cycles_per_second": 5e4}
    shares = {"efficiency": 0.5, "bound": 0.8}
    case = {"model": "shipped", "config": "ecpix5", "memory": "ecp5-ddr3", "stream": stream, "stalls": stalls}
    case |= {"lanes": 80, "slots": 1}
    text = report.markdown(Results(tokens=[Measurement(**case, **sizes, **speeds, **shares)]))
    assert "| shipped | ecpix5 | ecp5-ddr3 | 80 | 1 | 16 | 1,600 | 300 | 2,000 | 200 | 50.00 % | 80.00 % |" in text
    assert "| cycles of a token | shipped:ecpix5:ecp5-ddr3 |" in text
    assert re.search(r"\| beats of trits[^|]*\| 100 \(50\.000 %\) \|", text)
    assert "| 4 (2.000 %) |" in text and "| 1 (0.500 %) |" in text
    assert f"| QUANT: {STALL_TEXT[Stall.QUANT]} | 50 (25.000 %) |" in text and "SUMSQ" not in text
    assert "| shipped:ecpix5:ecp5-ddr3 | 50 k | 2.0 M |" in text


def test_bench_compares_builds_with_and_without_a_generator(monkeypatch, tmp_path, tmp_path_factory):
    """The same model twice: what one reads and the other makes are the same trits."""
    folder = tmp_path_factory.mktemp("fixed")
    fixed = {"seed": 3, "fixed": {"f": [0], "i": [1], "gate": [1]}, "mixer_only": [0]}
    source = write_checkpoint(folder / "source", hidden=96, layers=2, inner=47, vocab=61, seed=5, reservoir=fixed)
    import_checkpoint(source, folder / "model")
    monkeypatch.setitem(cases.STORED, "reservoir", folder / "model")
    target = tmp_path / "bench.json"
    assert run(command, monkeypatch, "reservoir:sim-tiny", "reservoir:sim-tiny-generator", "--json", str(target)) == 0
    made, read = json.loads(target.read_text())["tokens"]
    assert made["generated_bytes"] == (96 + 96 + 2 * 47) * 2 * 8 and read["generated_bytes"] == 0
    assert read["stream_bytes"] - made["stream_bytes"] == made["generated_bytes"]
    assert read["weight_bytes"] - made["weight_bytes"] == made["generated_bytes"]
    assert made["cycles"] <= read["cycles"]  # the tables bind here
    assert made["efficiency"] == made["weight_bytes"] / (made["cycles"] * made["bytes_per_cycle"])


def test_the_reservoir_twin_gains_by_the_generator(monkeypatch, tmp_path):
    target = tmp_path / "bench.json"
    assert run(command, monkeypatch, "reservoir:sim-small", "--json", str(target)) == 0
    (measured,) = json.loads(target.read_text())["tokens"]
    assert measured["generated_bytes"] == 3 * 3 * 512 * 96  # f, i, g of three layers, three full blocks of 32 bytes
    assert measured["cycles"] <= 320_795, "cycles are exact: more of them is a regression"


def test_bench_without_matplotlib_has_no_picture_and_all_figures(small, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    target = tmp_path / "bench.json"
    assert run(command, monkeypatch, "tiny:sim-tiny", "--json", str(target)) == 0
    assert "needs matplotlib" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "bench.md"]


@pytest.mark.parametrize(
    "case",
    ["gpt:sim-tiny", "shipped", "shipped:none", "shipped:ecpix5:tape", "shipped:a:b:c", "shipped:none+generator"],
)
def test_bench_refuses_an_unknown_case(case, monkeypatch, capsys):
    assert run(command, monkeypatch, case) == 2
    assert "is no case" in capsys.readouterr().err
