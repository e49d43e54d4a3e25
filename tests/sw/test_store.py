"""The stored model: what is read back, and what is refused."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from checkpoints import make_tensors, round_to, write_checkpoint
from safetensors import safe_open

from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.importer.quantise import embedding_frac
from sterna.model.integer import IntegerModel
from sterna.model.store import Embedding, Model
from sterna.model.summary import summarise, trit_counts

SIZES = {"hidden": 37, "layers": 3, "inner": 53, "vocab": 101, "seed": 1}


@pytest.fixture
def model_dir(tmp_path):
    source = write_checkpoint(tmp_path / "source", **SIZES)
    import_checkpoint(source, tmp_path / "model", calibrate=False)
    return tmp_path / "model"


def edit_manifest(path, change):
    content = json.loads((path / "sterna.json").read_text())
    change(content)
    (path / "sterna.json").write_text(json.dumps(content))


def edit_header(path, change):
    """Rewrite the header of a safetensors file; data stays."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def test_open_gives_every_part_with_its_shape(model_dir):
    model = Model.open(model_dir)
    assert (model.geometry.hidden, model.geometry.inner, model.path) == (37, 53, model_dir)
    assert (model.residual_frac, model.layers[1].product_frac, model.layers[0].glu.glu_frac) == (12, 14, 12)
    assert (model.bos_id, model.eos_id) == (0, 0)
    for layer in model.layers:
        for projection, rows, columns in (
            *((getattr(layer, name), 37, 37) for name in "figo"),
            (layer.glu.gate, 106, 37),
            (layer.glu.down, 37, 53),
        ):
            assert (projection.rows, projection.columns) == (rows, columns)
            assert projection.packed.shape == (rows, -(-columns // 5))
            assert projection.trits().shape == (rows, columns)
            assert projection.trits().dtype == np.int8
            assert projection.norm.shape == (columns,)
            assert isinstance(projection.beta, float)
        assert layer.lower_bound.dtype == np.uint16
        assert layer.attn_norm.shape == layer.g_norm.shape == layer.glu.mlp_norm.shape == (37,)
        assert layer.attn_norm.dtype == np.float32
    assert (model.head.rows, model.head.columns) == (101, 37)
    with pytest.raises(ValueError, match="read-only"):
        model.head.packed[0, 0] = 0


def test_published_library_reads_the_weights_and_arrays_are_aligned(model_dir):
    model = Model.open(model_dir)
    with safe_open(model_dir / "model.safetensors", framework="np") as file:
        assert np.array_equal(file.get_tensor("layers.1.down.trits"), model.layers[1].glu.down.packed)
        assert np.array_equal(file.get_tensor("layers.0.g.norm"), model.layers[0].g.norm)
        assert float(file.get_tensor("head.beta")) == model.head.beta
    data = (model_dir / "model.safetensors").read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    for name, entry in json.loads(data[8:start]).items():
        size = {"U8": 1, "U16": 2, "F32": 4}[entry["dtype"]]
        assert (start + entry["data_offsets"][0]) % size == 0, name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_embedding_floats_and_integers(tmp_path, dtype):
    source = write_checkpoint(tmp_path / "source", **SIZES, dtype=dtype)
    import_checkpoint(source, tmp_path / "model", calibrate=False)
    embedding = Model.open(tmp_path / "model").embedding
    table = round_to(make_tensors(**SIZES)["model.embeddings.weight"], dtype)
    assert embedding.dtype == dtype
    ids = np.array([[0, 100], [5, 5]])
    assert embedding.floats(ids).dtype == np.float32
    assert np.array_equal(embedding.floats(ids), table[ids])
    assert np.array_equal(embedding.floats(7), table[7])
    assert embedding.floats([]).shape == (0, 37)
    scaled = np.rint(table.astype(np.float64) * 2.0**embedding.frac)
    assert np.array_equal(embedding.integers(ids), scaled[ids])
    assert embedding.integers(ids).dtype == np.int16
    assert scaled.max() <= 32767
    assert scaled.min() >= -32768
    doubled = np.rint(table.astype(np.float64) * 2.0 ** (embedding.frac + 1))
    assert doubled.max() > 32767 or doubled.min() < -32768


@pytest.mark.parametrize(
    ("smallest", "largest", "frac"),
    [
        (0.0, 0.0, 24),
        (-1e-6, 1e-6, 24),
        (0.0, 1.0, 14),
        (-1.0, 0.0, 15),
        (-1.0, 32767 / 32768, 15),
        (0.0, 32767.4 / 32768, 15),
        (0.0, 32767.5 / 32768, 14),
        (0.0, 40000.0, -1),
    ],
)
def test_embedding_frac(smallest, largest, frac):
    assert embedding_frac(smallest, largest) == frac


def test_embedding_rounds_half_to_even():
    embedding = Embedding(np.array([[0.5, 1.5, 2.5, -0.5]], np.float32), "float32", 0)
    assert embedding.integers([0]).tolist() == [[0, 2, 2, 0]]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([3, -1], "token id -1 is outside the vocabulary of 101"),
        ([101], "token id 101 is outside"),
        ([3, 400], "token id 400 is outside"),
        ([1.5], "token ids must be integers"),
        ([True], "token ids must be integers"),
    ],
)
def test_embedding_refuses_wrong_ids(model_dir, ids, message):
    with pytest.raises(SternaError, match=message):
        Model.open(model_dir).embedding.floats(ids)


def test_verify_accepts_what_was_written_and_finds_any_flipped_bit(model_dir):
    Model.open(model_dir).verify()
    path = model_dir / "model.safetensors"
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    for name, entry in header.items():
        for place in (entry["data_offsets"][0], entry["data_offsets"][1] - 1):
            damaged = bytearray(data)
            damaged[start + place] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(SternaError, match=rf"tensor {name} in .* checksum"):
                Model.open(model_dir).verify()
    path.write_bytes(data)
    Model.open(model_dir).verify()


def test_verify_covers_the_manifest_and_the_tokenizer(model_dir):
    text = (model_dir / "sterna.json").read_text()
    edit_manifest(model_dir, lambda content: content.update(residual_frac=13))
    with pytest.raises(SternaError, match=r"sterna\.json does not match its checksum"):
        Model.open(model_dir).verify()
    (model_dir / "sterna.json").write_text(text)
    (model_dir / "tokenizer.json").write_text("{}")
    with pytest.raises(SternaError, match=r"tokenizer\.json does not match"):
        Model.open(model_dir).verify()
    (model_dir / "tokenizer.json").unlink()
    with pytest.raises(SternaError, match=r"tokenizer\.json of the model cannot be read"):
        Model.open(model_dir).verify()


MANIFEST_FAULTS = {
    "other format": (lambda c: c.update(format="x"), "not a description of a Sterna model"),
    "newer version": (lambda c: c.update(version=2), "format version 2"),
    "key missing": (lambda c: c.pop("glu_frac"), "the key glu_frac is missing"),
    "too few binary points": (lambda c: c.update(product_frac=[14]), "product_frac has 1 entries for 3 layers"),
    "binary point too large": (lambda c: c.update(glu_frac=[12, 12, 29]), r"glu_frac must be an integer in -19\.\.28"),
    "binary point no integer": (lambda c: c.update(residual_frac=1.5), "residual_frac must be an integer"),
    "no list": (lambda c: c.update(product_frac=3), "product_frac must be a list"),
    "bad dtype": (lambda c: c.update(embedding_dtype="int8"), "embedding_dtype must be one of"),
    "geometry no object": (lambda c: c.update(geometry=[1]), "geometry must be an object"),
    "geometry key": (lambda c: c["geometry"].pop("inner"), "geometry lacks or should not have the key inner"),
    "geometry size": (lambda c: c["geometry"].update(hidden=0), "hidden must be a positive integer"),
    "geometry of another model": (
        lambda c: c["geometry"].update(vocab=102),
        r"tensor embedding .* needs U16 \[102, 37\]",
    ),
    "path for a name": (lambda c: c.update(files={"../x": "0"}), "files must be"),
}


@pytest.mark.parametrize("name", MANIFEST_FAULTS)
def test_open_refuses_a_wrong_manifest(model_dir, name):
    change, message = MANIFEST_FAULTS[name]
    edit_manifest(model_dir, change)
    with pytest.raises(SternaError, match=message):
        Model.open(model_dir)


def test_open_refuses_missing_and_damaged_files(model_dir):
    weights, manifest = model_dir / "model.safetensors", model_dir / "sterna.json"
    data = weights.read_bytes()
    for damaged, message in (
        (b"", "truncated"),
        (data[:-1], "truncated: tensor"),
        (data[:100], "truncated"),
        (data + b"x", "1 bytes belong to no tensor"),
        (b"\xff" * 8 + data[8:], "header does not fit"),
        (data[:8] + b"!" + data[9:], "corrupt safetensors header"),
    ):
        weights.write_bytes(damaged)
        with pytest.raises(SternaError, match=message):
            Model.open(model_dir)
    weights.unlink()
    with pytest.raises(SternaError, match=r"model\.safetensors is missing"):
        Model.open(model_dir)
    manifest.write_text("{")
    with pytest.raises(SternaError, match="not valid JSON"):
        Model.open(model_dir)
    manifest.unlink()
    with pytest.raises(SternaError, match=r"no Sterna model: sterna\.json is missing"):
        Model.open(model_dir)
    with pytest.raises(SternaError, match="there is no model directory"):
        Model.open(model_dir / "nowhere")


HEADER_FAULTS = {
    "unknown tensor": (
        lambda h: h.update(extra={"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
        "unknown tensor extra",
    ),
    "renamed": (lambda h: h.update({"headX": h.pop("head.beta")}), r"lacks the tensor head\.beta"),
    "shape": (lambda h: h["head.trits"].update(shape=[101, 9]), r"entry of tensor head\.trits"),
    "turned": (lambda h: h["head.trits"].update(shape=[8, 101]), r"tensor head\.trits .* is U8 \[8, 101\]"),
    "type": (lambda h: h["embedding"].update(dtype="F16"), "tensor embedding .* is F16"),
    "no object": (lambda h: h.update(embedding=3), "entry of tensor embedding"),
    "offsets": (lambda h: h["norm"].update(data_offsets=[8, 4]), "entry of tensor norm"),
    "negative": (lambda h: h["norm"].update(shape=[-37]), "entry of tensor norm"),
    "overlap": (lambda h: h["norm"].update(data_offsets=h["head.norm"]["data_offsets"]), "gap or overlaps"),
}


@pytest.mark.parametrize("name", HEADER_FAULTS)
def test_open_refuses_a_wrong_header(model_dir, name):
    change, message = HEADER_FAULTS[name]
    edit_header(model_dir / "model.safetensors", change)
    with pytest.raises(SternaError, match=message):
        Model.open(model_dir)


def test_a_key_that_stands_twice_is_refused(model_dir):
    path = model_dir / "model.safetensors"
    entry = b'"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    text = b"{" + entry + b"," + entry + b"}"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(SternaError, match="a key stands twice"):
        Model.open(model_dir)


def test_summary_counts_trits_without_the_filling(model_dir):
    model = Model.open(model_dir)
    trits = model.layers[1].glu.down.trits()
    assert trit_counts(model.layers[1].glu.down) == tuple(int((trits == value).sum()) for value in (-1, 0, 1))
    summary = summarise(model)
    assert summary["weight_bytes"] == IntegerModel.from_model(model).weight_bytes
    assert sum(group["weights"] for group in summary["trits"].values()) == summary["ternary_weights"]
    tensors = make_tensors(**SIZES)
    assert summary["parameters"] == sum(values.size for values in tensors.values())
    gate = np.concatenate([layer.glu.gate.trits() for layer in model.layers])
    assert summary["trits"]["gate"]["0"] == pytest.approx((gate == 0).mean())
    assert summary["tokenizer"] == "tokenizer.json"
