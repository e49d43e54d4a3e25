"""The quality report: figures worked out by hand, planted faults found where they are, and files that are whole."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import make_tensors, write_checkpoint

from sterna.cli import quality as command
from sterna.cli.main import main
from sterna.errors import SternaError
from sterna.golden.model import GoldenModel, Trace
from sterna.importer import import_checkpoint
from sterna.model.manifest import Manifest
from sterna.model.store import Model
from sterna.quality.report import measure
from sterna.quality.statistics import ActivationSum, ChoiceSum
from sterna.quality.tracing import TracingGolden, TracingReference
from sterna.reference import load_reference
from sterna.runtime import chunks
from sterna.runtime.evaluate import compare
from sterna.runtime.tokenizer import Tokenizer
from sterna.spec.numerics import VALUE_MAX

TEXT = "It was a bright cold day in April, and the clocks were striking thirteen.\n"
SIZES = {"hidden": 40, "layers": 3, "inner": 56, "vocab": 261, "seed": 5}
CHUNK = 30  # the last one is shorter: 14 tokens


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_checkpoint(tmp_path_factory.mktemp("quality") / "checkpoint", **SIZES)
    (path.parent / "text.txt").write_text(TEXT)
    import_checkpoint(path, path.parent / "model")
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    return checkpoint.parent / "model"


@pytest.fixture(scope="module")
def text(checkpoint: Path) -> Path:
    return checkpoint.parent / "text.txt"


@pytest.fixture(scope="module")
def report(model: Path, checkpoint: Path, text: Path) -> dict[str, Any]:
    return measure(model, text, reference=checkpoint, chunk=CHUNK)


def value(report: dict[str, Any], layer: int | None, quantity: str) -> dict[str, Any]:
    (found,) = [row for row in report["values"] if (row["layer"], row["quantity"]) == (layer, quantity)]
    return found


def by_hand(model: Path, checkpoint: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Results of the golden model and the reference's own view of the same, [tokens, rows], chunk by chunk."""
    stored, reference = Model.open(model), load_reference(checkpoint)
    ids = token_ids(model)
    ours: dict[str, list[np.ndarray]] = {}
    theirs: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        golden = GoldenModel(stored)
        for token in part:
            trace = Trace()
            golden.step([token], trace=trace)
            for name, values in trace.results:
                ours.setdefault(name, []).append(values[0])
        hidden: list[torch.Tensor] = []
        with torch.inference_mode():
            logits, state = reference(torch.tensor([part]), hidden=hidden)
            states = torch.stack([reference(torch.tensor([part[: n + 1]]))[1] for n in range(len(part))])
        assert torch.equal(states[-1], state)
        named = {"embedding": hidden[0], "logits": logits, **{f"layer {n} residual": hidden[n + 1] for n in range(3)}}
        for name, tensor in named.items():
            theirs.setdefault(name, []).extend(tensor[0].numpy())
        for layer in range(3):
            theirs.setdefault(f"layer {layer} state", []).extend(states[:, layer, 0].numpy())
    return ({n: np.stack(v) for n, v in ours.items()}, {n: np.stack(v) for n, v in theirs.items()})


def token_ids(model: Path) -> list[int]:
    tokenizer = Tokenizer.open(model)
    assert tokenizer is not None
    return tokenizer.encode(TEXT)


def test_figures_by_hand(report: dict[str, Any], model: Path, checkpoint: Path) -> None:
    ours, theirs = by_hand(model, checkpoint)
    stored = Model.open(model)
    points = {"embedding": stored.residual_frac, "logits": 14}
    points |= {f"layer {n} residual": stored.residual_frac for n in range(3)} | {
        f"layer {n} state": 16 for n in range(3)
    }
    assert set(points) == set(theirs)
    for name, frac in points.items():
        layer, quantity = (int(name.split()[1]), name.split()[2]) if name.startswith("layer") else (None, name)
        row = value(report, layer, quantity)
        floats = theirs[name].astype(np.float64)
        error = ours[name] / 2.0**frac - floats
        assert row["fractional_bits"] == frac
        assert row["largest"] == np.abs(ours[name]).max() / 2**frac
        assert row["headroom_bits"] == pytest.approx(math.log2(VALUE_MAX / np.abs(ours[name]).max()))
        assert row["rms"] == pytest.approx(np.sqrt((floats**2).mean()), rel=1e-6)
        assert row["worst_error"] == pytest.approx(np.abs(error).max(), rel=0.01, abs=1e-5)
        assert row["sqnr_db"] == pytest.approx(10 * np.log10((floats**2).sum() / (error**2).sum()), abs=0.3), name
    names = [
        f"layer {row['layer']} {row['quantity']}" if row["layer"] is not None else row["quantity"]
        for row in report["values"]
    ]
    assert names == list(ours)  # every result, in program order
    products = [value(report, n, "output gate")["fractional_bits"] for n in range(3)]
    assert products == [layer.product_frac for layer in stored.layers]
    assert [value(report, n, "gated")["fractional_bits"] for n in range(3)] == [
        layer.glu.glu_frac for layer in stored.layers if layer.glu
    ]


def test_the_whole_is_what_eval_says(report: dict[str, Any], model: Path, checkpoint: Path, text: Path) -> None:
    expected = compare(model, text, reference=checkpoint, chunk=CHUNK)
    assert set(report["whole"]) == {*expected, "baseline_top1_equal", "baseline_widest_flip", "widest_flip"}
    for name, number in expected.items():
        if name in ("tokens", "positions", "bytes", "chunk", "device", "nll", "perplexity", "bits_per_byte"):
            assert report["whole"][name] == number, name
        else:  # the float model may round otherwise in batches of another shape
            assert report["whole"][name] == pytest.approx(number, rel=0.02, abs=0.02), name


def test_baseline_by_hand(report: dict[str, Any], model: Path, checkpoint: Path, text: Path) -> None:
    """float64 against float32: the residual after the last layer, the input of the head, and the choice of a token."""
    models = [load_reference(checkpoint), load_reference(checkpoint).double()]  # the same trits and scales
    ids = token_ids(model)
    found: list[list[np.ndarray]] = [[], [], []]
    for start in range(0, len(ids), CHUNK):
        both: list[list[torch.Tensor]] = [[], []]
        logits = []
        with torch.inference_mode():
            for one, hidden in zip(models, both, strict=True):
                logits.append(one(torch.tensor([ids[start : start + CHUNK]]), hidden=hidden)[0][0].numpy())
        found[0].append(both[0][3][0].numpy().astype(np.float64))
        found[1].append(both[1][3][0].numpy())
        found[2].append(logits[0].argmax(axis=-1) == logits[1].argmax(axis=-1))
    single, double, equal = map(np.concatenate, found)
    ratio = 10 * np.log10((single**2).sum() / ((double - single) ** 2).sum())
    row = value(report, 2, "residual")
    assert row["baseline_sqnr_db"] == pytest.approx(ratio, abs=3)
    assert row["sqnr_db"] < row["baseline_sqnr_db"] - 20
    assert report["whole"]["baseline_top1_equal"] == pytest.approx(equal.mean(), abs=0.02)
    *_, head = report["activations"]
    assert head["baseline_flipped"] < head["flipped"]
    without = measure(model, text, reference=checkpoint, chunk=CHUNK, baseline=False)
    assert value(without, 2, "residual") == row | {"baseline_sqnr_db": None}
    assert without["activations"][-1] == head | {"baseline_flipped": None}
    assert without["whole"] == report["whole"] | {"baseline_top1_equal": None, "baseline_widest_flip": None}


def test_the_widest_flip_is_found() -> None:
    total = ChoiceSum()
    expected = np.array([[3.0, 1.0, 0.5], [1.0, 1.25, 0.0], [2.0, 2.5, 0.0], [5.0, 0.0, 1.0]])
    found = np.array([[2.0, 1.0, 0.5], [1.3, 1.25, 0.0], [2.6, 2.5, 0.0], [0.9, 0.0, 0.8]])
    total.add(expected[:2], found[:2])
    total.add(expected[2:], found[2:])
    assert (total.equal, total.widest) == (2, 0.5)
    total.add(expected[:1], found[:1])
    assert (total.equal, total.widest) == (3, 0.5)


def test_flips_are_counted() -> None:
    total = ActivationSum("layers.7.down")
    ours, theirs = np.array([[127, -127, 0, 5]], np.int8), np.array([[-127, -127, 1, 5]], np.int8)
    total.add(ours, theirs, np.array([[-127, -127, 1, 4]], np.int8))
    total.add(theirs, theirs, theirs)
    assert total.result() == {
        **{"projection": "layers.7.down", "layer": 7, "flipped": 2 / 8, "largest_step": 254},
        "baseline_flipped": 1 / 8,
    }


def test_a_good_model_is_near_its_reference(report: dict[str, Any]) -> None:
    for row in report["values"]:
        assert row["clamped"] == 0
        assert row["sqnr_db"] > 25, row
        assert row["headroom_bits"] is None if row["quantity"] == "f" else row["headroom_bits"] > 2
    assert [row["projection"] for row in report["activations"]] == [
        *(f"layers.{layer}.{name}" for layer in range(3) for name in ("f", "i", "g", "o", "gate", "down")),
        "head",
    ]
    first, *_, last = report["activations"]
    assert first["flipped"] < 0.01 < last["flipped"] and last["largest_step"] < 10


def test_parts_change_nothing(
    report: dict[str, Any], model: Path, checkpoint: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "LOGITS", 1)  # position by position
    monkeypatch.setattr(TracingGolden, "batch", 2)
    again = measure(model, text, reference=checkpoint, chunk=CHUNK)
    for row, other in zip(report["values"], again["values"], strict=True):
        assert (row["largest"], row["clamped"]) == (other["largest"], other["clamped"])
        assert row["sqnr_db"] == pytest.approx(other["sqnr_db"], abs=0.5), row
        assert row["worst_error"] == pytest.approx(other["worst_error"], rel=0.5), row
    assert again["whole"]["baseline_top1_equal"] == pytest.approx(report["whole"]["baseline_top1_equal"], abs=0.02)


def test_a_trace_counts_clamps_of_all_its_tokens() -> None:
    trace = Trace()
    for clamped in ([[True, False], [True, True]], [[False, False], [True, False]]):
        trace.add("layer 0 state", np.zeros((2, 2), np.int64), np.array(clamped))
    assert trace.clamped["layer 0 state"].tolist() == [1, 3]
    assert trace.saturations == 4


def test_activations_are_the_model_s_own(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are worked out again from traced results: exactly what the golden model multiplied."""
    multiplied: list[np.ndarray] = []
    rows = GoldenModel._rows

    def keep(self: GoldenModel, projection: Any, x: Any) -> Any:
        multiplied.append(x.q)
        return rows(self, projection, x)

    monkeypatch.setattr(GoldenModel, "_rows", keep)
    golden = TracingGolden(model)
    golden.reset(2)
    golden.run(np.array([[3, 200], [77, 8]]))
    activations = golden.values.activations
    assert len(multiplied) == 2 * len(activations) == 2 * 19
    for index, name in enumerate(activations):
        expected = np.stack([multiplied[index], multiplied[19 + index]], axis=1)
        assert np.array_equal(activations[name], expected), name


def test_reference_activations_are_the_model_s_own(
    model: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sterna.reference.bitlinear as bitlinear

    used: list[np.ndarray] = []
    quantise = bitlinear.quantise_activations

    def keep(u: torch.Tensor) -> Any:
        q, s = quantise(u)
        used.append(q.numpy())
        return q, s

    yardstick = TracingReference(checkpoint, Model.open(model).geometry)
    monkeypatch.setattr(bitlinear, "quantise_activations", keep)
    yardstick.run(np.array([[3, 200, 5]]))
    for activations in yardstick.values.activations.values():
        assert any(np.array_equal(activations, q) for q in used)
    assert len(yardstick.values.activations) == 19


def copy_with(model: Path, target: Path, **changes: Any) -> Path:
    """A copy of a stored model with other binary points."""
    target.mkdir()
    for file in model.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    dataclasses.replace(Manifest.read(model), **changes).write(target)
    return target


def test_a_planted_saturation_is_found(
    report: dict[str, Any], model: Path, checkpoint: Path, text: Path, tmp_path: Path
) -> None:
    points = list(Manifest.read(model).product_frac)
    points[1] += 9  # 2**9 times larger integers: beyond what 24 bits hold
    broken = copy_with(model, tmp_path / "model", product_frac=tuple(points))
    found = measure(broken, text, reference=checkpoint, chunk=CHUNK)
    clamped = {(row["layer"], row["quantity"]): row["clamped"] for row in found["values"] if row["clamped"]}
    assert set(clamped) == {(1, "output gate")} and clamped[1, "output gate"] > 10
    row = value(found, 1, "output gate")
    assert row["headroom_bits"] == pytest.approx(0, abs=1e-6)
    assert row["sqnr_db"] < value(report, 1, "output gate")["sqnr_db"] - 10
    assert value(found, 0, "residual")["sqnr_db"] == pytest.approx(value(report, 0, "residual")["sqnr_db"], abs=1e-6)
    ours = GoldenModel(Model.open(broken))
    total = 0
    for position, token in enumerate(token_ids(model)):
        if position % CHUNK == 0:
            ours.reset()
        trace = Trace()
        ours.step([token], trace=trace)
        total += trace.saturations
    assert clamped[1, "output gate"] == total  # what ran beyond the end of the text is not counted


def test_a_planted_error_is_found_in_its_layer(report: dict[str, Any], model: Path, text: Path, tmp_path: Path) -> None:
    name = "model.layers.2.attn.g_proj.weight"
    spoilt = {name: -make_tensors(**SIZES)[name]}
    other = write_checkpoint(tmp_path / "other", **SIZES, replace=spoilt)
    found = measure(model, text, reference=other, chunk=CHUNK)
    for row, before in zip(found["values"], report["values"], strict=True):
        place = (row["layer"], row["quantity"])
        if row["layer"] in (0, 1) or place in ((2, "f"), (2, "state"), (None, "embedding")):
            assert row["sqnr_db"] == pytest.approx(before["sqnr_db"], abs=1e-6), place
        else:
            assert row["sqnr_db"] < before["sqnr_db"] - 5, place
    assert value(found, 2, "output gate")["sqnr_db"] < 0


def test_layers_without_glu(text: Path, tmp_path: Path) -> None:
    reservoir = {"seed": 7, "shared": True, "fixed": {"f": [0, 1, 2], "gate": [2]}, "mixer_only": [1]}
    source = write_checkpoint(tmp_path / "source", **SIZES, reservoir=reservoir)
    import_checkpoint(source, tmp_path / "model")
    found = measure(tmp_path / "model", text, reference=source, chunk=CHUNK)
    quantities = [row["quantity"] for row in found["values"] if row["layer"] == 1]
    assert quantities == ["f", "state", "output gate", "attention residual"]
    assert all(row["sqnr_db"] > 20 and row["clamped"] == 0 for row in found["values"])
    table = command._text(found).splitlines()
    shown = f"{value(found, 1, 'attention residual')['sqnr_db']:.1f}"
    assert table[-3].split()[:3] == ["layer", "1", shown]


def test_command(model: Path, checkpoint: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["quality", str(model), "--text", str(text), "--reference", str(checkpoint), "--max-tokens", "40"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    table = capsys.readouterr().out
    assert "40 tokens read in chunks of 512, 39 scored" in table and "against the reference" in table
    rows = table[table.index("residual SQNR") :].splitlines()[1:]
    assert [" ".join(row.split()[: 1 + row.strip().startswith("layer")]) for row in rows] == [
        *("embedding", "layer 0", "layer 1", "layer 2", "logits")
    ]
    assert all(row.endswith(" 0") for row in rows)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["quality.json", "quality.md", "quality.png"]
    assert (tmp_path / "out" / "quality.png").read_bytes().startswith(b"\x89PNG")
    kept = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert f"| {value(kept, 1, 'state')['sqnr_db']:.1f} dB (" in (tmp_path / "out" / "quality.md").read_text()
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == kept


def test_rows_name_the_tightest_result_and_count_all_clamps() -> None:
    def row(quantity: str, headroom: float | None, clamped: int, **more: Any) -> dict[str, Any]:
        common = {"layer": 0, "largest": 6.0, "rms": 2.0, "sqnr_db": 40.0, "baseline_sqnr_db": None}
        return common | {"quantity": quantity, "headroom_bits": headroom, "clamped": clamped} | more

    values = [row("f", None, 1), row("state", 2.25, 2, sqnr_db=30.0), row("residual", 3.0, 4)]
    flips = [{"flipped": share, "baseline_flipped": share / 2} for share in (0.01, 0.03)]
    assert command._row("layer 0", values, flips) == (
        *("layer 0", "40.0 dB", "30.0 dB", "2.00 % (1.00)", "3.0", "2.2 bits (state)", "7"),
    )


def test_errors(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_checkpoint(tmp_path / "other", **(SIZES | {"inner": 48}))
    with pytest.raises(
        SternaError, match=r"has vocabulary, width, .* \(261, 40, 3, 48\), the model has .*not one model"
    ):
        measure(model, text, reference=other)
    with pytest.raises(SternaError, match="cannot be read: No such file"):
        measure(model, tmp_path / "missing.txt")
    monkeypatch.setattr(
        command, "find_spec", lambda name: None if name == "matplotlib" else importlib.util.find_spec(name)
    )
    assert main(["quality", str(model), "--text", str(text), "--out", str(tmp_path / "out")]) == 2
    assert "pip install 'sterna[train]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
