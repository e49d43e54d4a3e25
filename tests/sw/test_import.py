"""Importing checkpoints: the numbers, and every kind of bad file."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_tensors, round_to, write_checkpoint

from sterna.cli import import_ as import_command
from sterna.cli import info as info_command
from sterna.cli.main import main
from sterna.errors import SternaError
from sterna.golden import calibrate
from sterna.importer import convert, import_checkpoint, publish
from sterna.model import tensorfile
from sterna.model.geometry import Geometry
from sterna.model.store import Model

SIZES = {"hidden": 37, "layers": 3, "inner": 53, "vocab": 101, "seed": 5}
DATA = Path(os.environ.get("STERNA_DATA", Path(__file__).parents[3] / "shared" / "data"))
PROJECTIONS = {
    "f": "attn.f_proj",
    "i": "attn.i_proj",
    "g": "attn.g_proj",
    "o": "attn.o_proj",
    "gate": "mlp.gate_proj",
    "down": "mlp.down_proj",
}
GATE = "model.layers.1.mlp.gate_proj.weight"


def imported(source, target, **options) -> Model:
    import_checkpoint(source, target, calibrate=False, **options)
    model = Model.open(target)
    model.verify()
    return model


def refused(source, target, message, **options):
    """The import fails with a sentence that matches, and leaves nothing behind."""
    before = sorted(target.parent.iterdir()) if target.parent.is_dir() else []
    with pytest.raises(SternaError, match=message) as caught:
        import_checkpoint(source, target, calibrate=False, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert (sorted(target.parent.iterdir()) if target.parent.is_dir() else []) == before


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
        pairs += [(getattr(layer, ours), f"{prefix}.{theirs}") for ours, theirs in PROJECTIONS.items()]
        assert np.array_equal(layer.attn_norm, tensors[f"{prefix}.attn_norm.weight"])
        assert np.array_equal(layer.g_norm, tensors[f"{prefix}.attn.g_norm.weight"])
        assert np.array_equal(layer.mlp_norm, tensors[f"{prefix}.mlp_norm.weight"])
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
    trits = model.layers[1].gate.trits()
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


# --- configuration ---------------------------------------------------------------------------------------------------
CONFIG_FAULTS = {
    "short convolution": ({"use_short_conv": True}, "use_short_conv is True"),
    "state expansion": ({"expand_ratio": 2}, "expand_ratio is 2"),
    "tied embedding": ({"tie_word_embeddings": True}, "tie_word_embeddings is True"),
    "bias": ({"bias": True}, "bias is True"),
    "attention bias": ({"attention_bias": True}, "attention_bias is True"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    "model type": ({"model_type": "llama"}, "model_type is 'llama'"),
    "no model type": ({"model_type": ...}, "model_type is None"),
    "no hidden size": ({"hidden_size": ...}, "hidden_size is missing"),
    "no layers": ({"num_hidden_layers": ...}, "num_hidden_layers is missing"),
    "no vocabulary": ({"vocab_size": ...}, "vocab_size is missing"),
    "zero layers": ({"num_hidden_layers": 0}, "num_hidden_layers must be a positive integer, not 0"),
    "negative hidden": ({"hidden_size": -37}, "hidden_size must be a positive integer"),
    "fraction": ({"intermediate_size": 53.5}, "intermediate_size must be a positive integer"),
    "text for a size": ({"vocab_size": "101"}, "vocab_size must be a positive integer"),
    "true for a size": ({"vocab_size": True}, "vocab_size must be a positive integer"),
    "inner too long": ({"intermediate_size": 65536}, "intermediate_size is 65536; at most 65535"),
    "zero epsilon": ({"rms_norm_eps": 0}, "rms_norm_eps must be a positive number"),
    "ratio": ({"intermediate_size": None, "hidden_ratio": -4}, "hidden_ratio must be a positive number"),
    "not a number": ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number"),
    "bos outside": ({"bos_token_id": 101}, "bos_token_id is 101, outside the vocabulary of 101"),
    "several eos": ({"eos_token_id": [1, 2]}, r"eos_token_id is \[1, 2\]"),
    "lower bound": ({"use_lower_bound": "yes"}, "use_lower_bound must be true or false"),
}


@pytest.mark.parametrize("name", CONFIG_FAULTS)
def test_unsupported_configuration(tmp_path, name):
    change, message = CONFIG_FAULTS[name]
    refused(write_checkpoint(tmp_path / "source", **SIZES, config=change), tmp_path / "model", message)


@pytest.mark.parametrize(
    ("hidden", "ratio", "inner"), [(1024, 4, 2816), (2048, 4, 5632), (2560, 4, 6912), (192, 4, 512)]
)
def test_default_inner_size(hidden, ratio, inner):
    config = {"model_type": "hgrn_bit", "hidden_size": hidden, "num_hidden_layers": 1, "vocab_size": 9}
    assert Geometry.from_config(config).inner == inner
    assert Geometry.from_config({**config, "hidden_ratio": ratio, "intermediate_size": None}).inner == inner
    assert Geometry.from_config({**config, "intermediate_size": 77}).inner == 77


def test_harmless_configuration(tmp_path):
    config = {"hidden_act": "silu", "num_heads": 37, "eos_token_id": [2], "bos_token_id": None, "expand_ratio": 1.0}
    model = imported(write_checkpoint(tmp_path / "source", **SIZES, config=config), tmp_path / "model")
    assert (model.bos_id, model.eos_id) == (None, 2)


# --- tensors ---------------------------------------------------------------------------------------------------------
def spoilt(name, value, place=-1):
    values = make_tensors(**SIZES)[name]
    values.reshape(-1)[place] = value
    return {name: values}


ONES = np.ones(37, np.float32)
TENSOR_FAULTS = {
    "missing weight": ({GATE: None}, rf"tensor {GATE} is missing"),
    "missing norm": ({"lm_head.norm.weight": None}, r"tensor lm_head\.norm\.weight is missing"),
    "missing bounds": ({"model.lower_bounds": None}, r"tensor model\.lower_bounds is missing"),
    "misnamed": (
        {"model.norm.weight": None, "norm.weight": ONES},
        r"model\.norm\.weight .*unknown tensor norm\.weight",
    ),
    "wrong shape": (
        {"model.norm.weight": np.ones(38, np.float32)},
        r"model\.norm\.weight .* \[38\], .* asks for \[37\]",
    ),
    "transposed": ({GATE: np.ones((37, 106), np.float32)}, rf"{GATE} .*\[37, 106\].* asks for \[106, 37\]"),
    "NaN weight": (spoilt(GATE, np.nan), rf"tensor {GATE} holds nan at \[105, 36\]"),
    "Inf weight": (spoilt("lm_head.weight", -np.inf, 40), r"tensor lm_head\.weight holds -inf at \[1, 3\]"),
    "NaN norm": (spoilt("model.norm.weight", np.nan), r"tensor model\.norm\.weight holds nan at \[36\]"),
    "NaN bound": (spoilt("model.lower_bounds", np.nan), r"tensor model\.lower_bounds holds nan"),
    "Inf embedding": (spoilt("model.embeddings.weight", np.inf), r"tensor model\.embeddings\.weight holds inf"),
    "convolution": ({"model.layers.0.attn.h_conv1d.weight": ONES}, r"h_conv1d\.weight means .* short convolutions"),
    "bias": ({"model.layers.0.attn.i_proj.bias": ONES}, r"i_proj\.bias means .* biases"),
    "integers": ({GATE: np.ones((106, 37), np.int8)}, rf"tensor {GATE} in model\.safetensors is I8"),
}


@pytest.mark.parametrize("name", TENSOR_FAULTS)
def test_bad_tensors(tmp_path, name):
    replace, message = TENSOR_FAULTS[name]
    refused(write_checkpoint(tmp_path / "source", **SIZES, replace=replace), tmp_path / "model", message)


def test_non_finite_is_found_in_later_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("sterna.model.dtypes.BLOCK_ELEMENTS", 37 * 10)
    source = write_checkpoint(tmp_path / "source", **SIZES, replace=spoilt(GATE, np.nan))
    refused(source, tmp_path / "model", r"nan at \[105, 36\]")


def test_unused_tensors_are_named_in_the_report(tmp_path):
    source = write_checkpoint(tmp_path / "source", **SIZES, replace={"model.rotary.inv_freq": ONES})
    assert import_checkpoint(source, tmp_path / "model", calibrate=False).ignored == ("model.rotary.inv_freq",)


# --- files -----------------------------------------------------------------------------------------------------------
def rewrite(path, change):
    path.write_bytes(change(path.read_bytes()))


def beyond(data):
    """The last tensor's end moved beyond the file, its size consistent with its shape."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    last = max((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"][1])
    begin, end = header[last]["data_offsets"]
    header[last].update(shape=[(end - begin) // 2 + 50], data_offsets=[begin, end + 100])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


FILE_FAULTS = {
    "truncated data": (lambda data: data[:-10], "is truncated: tensor"),
    "truncated header": (lambda data: data[:200], "is truncated or no safetensors"),
    "empty": (lambda data: b"", "is truncated or no safetensors"),
    "no safetensors": (lambda data: b"PK\x03\x04" + data[4:], "is truncated or no safetensors"),
    "header no JSON": (lambda data: data[:8] + b"?" + data[9:], "corrupt safetensors header"),
    "header no text": (lambda data: data[:9] + b"\xff" + data[10:], "corrupt safetensors header"),
    "trailing bytes": (lambda data: data + b"123", "3 bytes belong to no tensor"),
    "offsets beyond the file": (beyond, "is truncated: tensor"),
}


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("name", FILE_FAULTS)
def test_damaged_safetensors(tmp_path, name, shards):
    change, message = FILE_FAULTS[name]
    source = write_checkpoint(tmp_path / "source", **SIZES, shards=shards)
    file = "model.safetensors" if shards == 1 else "model-00002-of-00002.safetensors"
    rewrite(source / file, change)
    refused(source, tmp_path / "model", f"{file} .*{message}")


def test_missing_and_invalid_files(tmp_path):
    source, target = write_checkpoint(tmp_path / "source", **SIZES), tmp_path / "model"
    refused(tmp_path / "nowhere", target, "there is no checkpoint directory")
    refused(source / "config.json", target, r"config\.json is not a directory")
    (source / "tokenizer.json").write_text("{")
    refused(source, target, r"tokenizer\.json is not valid JSON")
    (source / "model.safetensors").unlink()
    refused(source, target, "no weights in .*: neither model.safetensors")
    for text, message in (("{,}", "config.json is not valid JSON"), ("[]", "must hold a JSON object, not list")):
        (source / "config.json").write_text(text)
        refused(source, target, message)
    (source / "config.json").write_bytes(b"\xff\xfe{}")
    refused(source, target, "config.json is not valid JSON")
    (source / "config.json").unlink()
    refused(source, target, "config.json is missing")


def test_bad_shards(tmp_path):
    source, target = write_checkpoint(tmp_path / "source", **SIZES, shards=3), tmp_path / "model"
    index = source / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    places = content["weight_map"]
    wrong = {**places, "lm_head.weight": next(file for file in places.values() if file != places["lm_head.weight"])}
    for weight_map, message in (
        (wrong, r"tensor lm_head\.weight is missing in model-0000\d-of-00003"),
        ({**places, "lm_head.weight": "../x.safetensors"}, "no file name"),
        (
            {name: file for name, file in places.items() if name != "lm_head.weight"},
            r"tensor lm_head\.weight is missing",
        ),
        ([], "weight_map is missing or no map"),
    ):
        index.write_text(json.dumps({"weight_map": weight_map}))
        refused(source, target, message)
    index.write_text("{")
    refused(source, target, r"index\.json is not valid JSON")
    index.write_text(json.dumps(content))
    (source / "model-00002-of-00003.safetensors").unlink()
    refused(source, target, r"shard model-00002-of-00003\.safetensors is missing")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("place", ["weights", "tokenizer", "sync"])
def test_full_disk(tmp_path, monkeypatch, code, place):
    source = write_checkpoint(tmp_path / "source", **SIZES)
    written = []

    def fail(*arguments, **keywords):
        written.append(arguments)
        if place == "weights" and len(written) < 20:
            return original(*arguments, **keywords)
        raise OSError(code, os.strerror(code))

    if place == "weights":
        original = tensorfile.TensorWriter.write
        monkeypatch.setattr(tensorfile.TensorWriter, "write", fail)
    else:
        monkeypatch.setattr(*((convert.shutil, "copyfile") if place == "tokenizer" else (tensorfile.os, "fsync")), fail)
    message = "model cannot be written: Permission denied" if code == errno.EACCES else "is full; free some space"
    refused(source, tmp_path / "model", message)
    assert written


def test_interruption_leaves_nothing(tmp_path, monkeypatch):
    source = write_checkpoint(tmp_path / "source", **SIZES)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "_write_projection", interrupt)
    with pytest.raises(KeyboardInterrupt):
        import_checkpoint(source, tmp_path / "model", calibrate=False)
    assert list(tmp_path.iterdir()) == [source]


def test_what_a_killed_import_left_is_swept_by_the_next_one(tmp_path):
    source, target = write_checkpoint(tmp_path / "source", **SIZES), tmp_path / "model"
    kill = "import os, signal; from sterna.importer import convert; from pathlib import Path; "
    kill += "convert._write_projection = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
    kill += f"convert.import_checkpoint(Path({str(source)!r}), Path({str(target)!r}))"
    assert subprocess.run([sys.executable, "-c", kill]).returncode == -signal.SIGKILL
    (left,) = [path for path in tmp_path.iterdir() if path != source]
    assert left.name.endswith(".partial")
    others = {tmp_path / ".model.2.0123abcd.partial", tmp_path / ".model.mine.partial"}  # another target's, a user's
    for path in others:
        path.mkdir()
    with publish.temporary(target) as at_work:  # an import that runs at the same time
        imported(source, target)
        assert at_work.is_dir()
    assert {*tmp_path.iterdir()} == {source, target, *others}


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

    def chosen(model):
        seen.append((model.geometry.hidden, model.path.name))
        return {"residual_frac": 9, "product_frac": [8, 7, 6], "glu_frac": [5, 4, 3]}

    monkeypatch.setattr(calibrate, "calibrate", chosen)
    import_checkpoint(source, tmp_path / "model")
    model = Model.open(tmp_path / "model")
    model.verify()
    assert model.residual_frac == 9
    assert [(layer.product_frac, layer.glu_frac) for layer in model.layers] == [(8, 5), (7, 4), (6, 3)]
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
