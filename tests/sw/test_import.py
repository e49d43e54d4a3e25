"""Importing checkpoints: the numbers, and every kind of bad file."""

from __future__ import annotations

import argparse
import errno
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_tensors, round_to, write_checkpoint
from importing import GATE, ONES, SIZES, imported, refused, rewrite, spoilt

from sterna.cli import import_ as import_command
from sterna.cli import info as info_command
from sterna.cli.main import main
from sterna.errors import SternaError
from sterna.golden import calibrate
from sterna.importer import import_checkpoint
from sterna.model.geometry import Geometry
from sterna.model.store import Model

DATA = Path(os.environ.get("STERNA_DATA", Path(__file__).parents[3] / "shared" / "data"))
PROJECTIONS = {
    "f": "attn.f_proj",
    "i": "attn.i_proj",
    "g": "attn.g_proj",
    "o": "attn.o_proj",
    "gate": "mlp.gate_proj",
    "down": "mlp.down_proj",
}


def ternary(weight):
    """beta and trits as the model defines them, straight in float64."""
    weight = weight.astype(np.float64)
    beta = max(np.abs(weight).mean(), 1e-5)
    return beta, np.clip(np.rint(weight / beta), -1, 1)


def check_model(model, tensors):
    """Every number of ``model`` against float tensors as the checkpoint holds them."""
    pairs = [(model.head, "lm_head")]
    for index, layer in enumerate(model.layers):
        prefix = f"model.layers.{index}"
        pairs += [(layer.projections[ours], f"{prefix}.{theirs}") for ours, theirs in PROJECTIONS.items()]
        assert np.array_equal(layer.attn_norm, tensors[f"{prefix}.attn_norm.weight"])
        assert np.array_equal(layer.g_norm, tensors[f"{prefix}.attn.g_norm.weight"])
        assert np.array_equal(layer.glu.mlp_norm, tensors[f"{prefix}.mlp_norm.weight"])
    for projection, name in pairs:
        beta, trits = ternary(tensors[f"{name}.weight"])
        assert projection.beta == np.float32(beta), name
        assert np.array_equal(projection.trits(), trits), name
        assert np.array_equal(projection.norm, tensors[f"{name}.norm.weight"]), name
    assert np.array_equal(model.norm, tensors["model.norm.weight"])
    table = tensors["model.embeddings.weight"]
    assert np.array_equal(model.embedding.floats(np.arange(len(table))), table)
    shares = np.exp(tensors["model.lower_bounds"].astype(np.float64))
    shares /= shares.sum(axis=0)
    for index, layer in enumerate(model.layers):
        bound = shares[1 : index + 1].sum(axis=0)
        assert np.abs(layer.lower_bound / 65536 - bound).max() <= 0.5001 / 65536
    assert not model.layers[0].lower_bound.any()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("shards", [1, 3])
def test_numbers_equal_an_independent_computation(tmp_path, dtype, shards):
    source = write_checkpoint(tmp_path / "source", **SIZES, dtype=dtype, shards=shards)
    model = imported(source, tmp_path / "model")
    check_model(model, {name: round_to(values, dtype) for name, values in make_tensors(**SIZES).items()})


def test_sharded_equals_single_byte_for_byte(tmp_path):
    for shards in (1, 4):
        imported(write_checkpoint(tmp_path / f"s{shards}" / "same", **SIZES, shards=shards), tmp_path / f"m{shards}")
    for file in ("model.safetensors", "sterna.json", "tokenizer.json"):
        assert (tmp_path / "m1" / file).read_bytes() == (tmp_path / "m4" / file).read_bytes()


def test_streaming_in_small_blocks_changes_nothing(tmp_path, monkeypatch):
    source = write_checkpoint(tmp_path / "source", **SIZES)
    imported(source, tmp_path / "whole")
    monkeypatch.setattr("sterna.model.dtypes.BLOCK_ELEMENTS", 100)
    imported(source, tmp_path / "blocks")
    for file in ("model.safetensors", "sterna.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "blocks" / file).read_bytes()


def test_ties_round_to_even_and_tiny_tensors_keep_the_floor(tmp_path):
    tied = np.zeros((37, 37), np.float32)
    tied[0, :8] = [0.5, -0.5, 1.5, -1.5, 0.50390625, -0.50390625, 1, 0]  # bfloat16 values; mean below set to 1
    tied[1:] = 1
    rest = 37 * 37 - np.abs(tied).sum()
    tied[36, 0] += rest
    tied = round_to(tied, "float32")
    assert np.abs(tied).mean() == 1
    tiny = np.full((37, 37), 4e-6, np.float32)
    tiny[0, 0] = 6e-6
    replace = {"model.layers.0.attn.f_proj.weight": tied, "model.layers.0.attn.i_proj.weight": tiny}
    model = imported(write_checkpoint(tmp_path / "s", **SIZES, dtype="float32", replace=replace), tmp_path / "model")
    f, i = model.layers[0].f, model.layers[0].i
    assert f.beta == 1
    assert f.trits()[0, :8].tolist() == [0, 0, 1, -1, 1, -1, 1, 0]
    assert i.beta == np.float32(1e-5)
    assert i.trits()[0, :2].tolist() == [1, 0]


def test_gate_rows_come_before_up_rows(tmp_path):
    weight = np.concatenate([np.full((53, 37), 1.0), np.full((53, 37), -1.0)]).astype(np.float32)
    model = imported(write_checkpoint(tmp_path / "s", **SIZES, replace={GATE: weight}), tmp_path / "model")
    trits = model.layers[1].glu.gate.trits()
    assert (trits[:53] == 1).all()
    assert (trits[53:] == -1).all()


def test_lower_bounds_can_be_off_and_never_reach_one(tmp_path):
    source = write_checkpoint(tmp_path / "off", **SIZES, config={"use_lower_bound": False})
    report = import_checkpoint(source, tmp_path / "m0", calibrate=False)
    assert report.ignored == ("model.lower_bounds",)
    assert not any(layer.lower_bound.any() for layer in Model.open(tmp_path / "m0").layers)
    without = {"replace": {"model.lower_bounds": None}, "config": {"use_lower_bound": False}}
    assert imported(write_checkpoint(tmp_path / "none", **SIZES, **without), tmp_path / "m1").geometry.layers == 3
    steep = np.zeros((3, 37), np.float32)
    steep[1] = 40
    model = imported(write_checkpoint(tmp_path / "s", **SIZES, replace={"model.lower_bounds": steep}), tmp_path / "m2")
    assert [int(layer.lower_bound[0]) for layer in model.layers] == [0, 65535, 65535]


def test_small_checkpoint_in_the_published_format(tmp_path):
    source = DATA / "hgrnbit-4.5m"
    if not source.is_dir():
        pytest.skip("the data directory is not here; set STERNA_DATA")
    model = imported(source, tmp_path / "model")
    assert model.geometry == Geometry(hidden=192, layers=3, inner=512, vocab=8192, rms_eps=1e-6)
    assert (model.bos_id, model.eos_id, model.embedding.dtype) == (0, 0, "bfloat16")
    check_model(model, read_bfloat16(source / "model.safetensors"))
    assert (tmp_path / "model" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    reference = np.load(source / "reference.npz")
    assert np.array_equal(model.embedding.floats(reference["prompt_ids"][0]), reference["hidden"][0])


def read_bfloat16(path):
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    result = {}
    for name, entry in header.items():
        begin, end = (start + offset for offset in entry["data_offsets"])
        bits = np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16
        result[name] = bits.view(np.float32).reshape(entry["shape"])
    return result


# --- target ----------------------------------------------------------------------------------------------------------
def test_existing_targets(tmp_path):
    source, target = write_checkpoint(tmp_path / "source", **SIZES), tmp_path / "model"
    imported(source, target)
    refused(source, target, "exists already; choose another name or import with --overwrite")
    damaged = write_checkpoint(tmp_path / "bad", **SIZES, replace=spoilt(GATE, np.nan))
    refused(damaged, target, "holds nan", overwrite=True)
    assert Model.open(target).manifest().source == "source"  # the old model is still whole
    Model.open(target).verify()
    other = write_checkpoint(tmp_path / "other", **SIZES)
    assert imported(other, target, overwrite=True).manifest().source == "other"
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    refused(source, precious, "is not a Sterna model, so it is not overwritten", overwrite=True)
    assert (precious / "thesis.txt").exists()
    refused(source, source, "cannot take the place of its checkpoint", overwrite=True)
    refused(source, precious / "thesis.txt" / "model", "cannot be written")
    assert imported(source, tmp_path / "new" / "folders" / "model").path.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "model", "new", "other", "precious", "source"]


def test_overwriting_keeps_the_old_model_when_the_rename_fails(tmp_path, monkeypatch):
    source, target = write_checkpoint(tmp_path / "source", **SIZES), tmp_path / "model"
    imported(source, target)
    rename = Path.rename

    def fail(path, to):
        if path.suffix == ".partial":
            raise OSError(errno.EIO, "input/output error")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", fail)
    refused(source, target, "cannot be written", overwrite=True)
    Model.open(target).verify()


def test_tokenizers(tmp_path):
    source = write_checkpoint(tmp_path / "none", **SIZES, tokenizer=False)
    assert import_checkpoint(source, tmp_path / "m0", calibrate=False).tokenizer is None
    assert sorted(file.name for file in (tmp_path / "m0").iterdir()) == ["model.safetensors", "sterna.json"]
    (source / "tokenizer.model").write_bytes(b"pieces")
    (source / "special_tokens_map.json").write_text("{}")
    model = imported(source, tmp_path / "m1")
    assert model.manifest().tokenizer == "tokenizer.model"
    assert sorted(model.manifest().files) == ["special_tokens_map.json", "tokenizer.model"]
    assert (tmp_path / "m1" / "tokenizer.model").read_bytes() == b"pieces"


# --- pickles ---------------------------------------------------------------------------------------------------------
def test_pickled_weights_are_refused_unless_allowed(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    source, target = write_checkpoint(tmp_path / "source", **SIZES), tmp_path / "model"
    single = imported(source, tmp_path / "single")
    (source / "model.safetensors").unlink()
    state = {name: torch.tensor(values).bfloat16() for name, values in make_tensors(**SIZES).items()}
    torch.save(state, source / "pytorch_model.bin")
    refused(source, target, "pickled weights .* refused: a pickled file is a program .* --allow-pickle")
    assert imported(source, target, allow_pickle=True).manifest().tensors == single.manifest().tensors
    torch.save({**state, "extra": Evil()}, source / "pytorch_model.bin")
    refused(source, tmp_path / "evil", "pytorch_model.bin .* more than tensors", allow_pickle=True)
    assert not (tmp_path / "ran").exists()
    rewrite(source / "pytorch_model.bin", lambda data: data[: len(data) // 2])
    refused(source, tmp_path / "cut", "pytorch_model.bin is corrupt", allow_pickle=True)


class Evil:
    """Runs code when an unguarded loader reads it."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


# --- calibration and commands ----------------------------------------------------------------------------------------
def test_calibration_result_is_stored(tmp_path, monkeypatch):
    source = write_checkpoint(tmp_path / "source", **SIZES)
    seen = []

    def chosen(model, *, progress):
        seen.append((model.geometry.hidden, model.path.name))
        return {"residual_frac": 9, "product_frac": [8, 7, 6], "glu_frac": [5, 4, 3]}

    monkeypatch.setattr(calibrate, "calibrate", chosen)
    import_checkpoint(source, tmp_path / "model")
    model = Model.open(tmp_path / "model")
    model.verify()
    assert model.residual_frac == 9
    assert [(layer.product_frac, layer.glu.glu_frac) for layer in model.layers] == [(8, 5), (7, 4), (6, 3)]
    assert seen[0][0] == 37
    assert seen[0][1].endswith(".partial")


def run_command(*arguments):
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    import_command.add_parser(commands)
    info_command.add_parser(commands)
    args = parser.parse_args([str(argument) for argument in arguments])
    return args.func(args)


def test_commands(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "source", **SIZES, tokenizer=False, replace={"spare": ONES})
    target = tmp_path / "model"
    assert run_command("import", source, target, "--no-calibrate") == 0
    shown = capsys.readouterr()
    assert "M parameters in" in shown.out
    assert "no tokenizer" in shown.err
    assert "spare" in shown.err
    assert run_command("import", source, target, "--no-calibrate", "--overwrite", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["ignored"], result["tokenizer"], result["geometry"]["inner"]) == (["spare"], None, 53)
    assert result["bytes"] == sum(file.stat().st_size for file in target.iterdir())
    assert run_command("info", target, "--verify") == 0
    text = capsys.readouterr().out
    assert "hidden 37, layers 3, inner 53, vocabulary 101" in text
    assert "checksums     all equal" in text
    assert run_command("info", target, "--json") == 0
    assert json.loads(capsys.readouterr().out)["binary_points"]["product_frac"] == [14, 14, 14]
    rewrite(target / "model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(SternaError, match="does not match its checksum"):
        run_command("info", target, "--verify")


def test_exit_code_and_sentence_of_the_command_line(tmp_path, capsys):
    source = write_checkpoint(tmp_path / "source", **SIZES, replace=spoilt(GATE, np.nan))
    assert main(["import", str(source), str(tmp_path / "model")]) == 2
    error = capsys.readouterr().err
    assert f"tensor {GATE} holds nan at [105, 36]" in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == [source]
    assert main(["info", str(tmp_path / "model")]) == 2
