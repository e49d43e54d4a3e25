"""Checkpoints that must be refused: by configuration, by tensor, by file; nothing is left behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from checkpoints import write_checkpoint
from importing import GATE, ONES, SIZES, imported, refused, rewrite, spoilt

from sterna.importer import convert, import_checkpoint, publish
from sterna.model import tensorfile
from sterna.model.geometry import Geometry

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
