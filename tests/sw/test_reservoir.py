"""Reservoir models: import, the stored form, counts, and every engine of the host on the same integers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_tensors, write_checkpoint
from importing import imported, refused

from sterna.cli.main import main
from sterna.engines.cpu import CpuEngine
from sterna.engines.golden import GoldenEngine
from sterna.errors import SternaError
from sterna.golden.calibrate import calibrate
from sterna.golden.model import GoldenModel, Trace
from sterna.importer import import_checkpoint
from sterna.importer.synthetic import GEOMETRIES, source_bytes, write_synthetic
from sterna.model.geometry import Geometry
from sterna.model.integer import IntegerModel
from sterna.model.reservoir import Reservoir
from sterna.model.store import Model
from sterna.model.summary import summarise
from sterna.spec.generator import fixed_beta
from sterna.spec.numerics import LOGIT_FRAC, STATE_FRAC

SIZES = {"hidden": 43, "layers": 4, "inner": 58, "vocab": 71, "seed": 3}
RESERVOIR = {
    "seed": 77,
    "shared": True,
    "fixed": {"f": [0, 1, 2, 3], "i": [1], "g": [3], "o": [0], "gate": [2], "down": [0, 3]},
    "mixer_only": [1],
}
MANY = [
    RESERVOIR,
    RESERVOIR | {"shared": False, "seed": (1 << 32) - 1},
    {"seed": 0, "shared": True, "fixed": {}, "mixer_only": [0, 1, 2, 3]},
    {"seed": 5, "shared": True, "fixed": {kind: [0, 1, 2, 3] for kind in "figo"} | {"gate": [3]}, "mixer_only": [0, 2]},
    {"seed": 5, "shared": False, "fixed": {"gate": [0, 1, 2, 3], "down": [0, 1, 2, 3]}, "mixer_only": []},
]


def checkpoint(path: Path, reservoir=RESERVOIR, **options) -> Path:
    return write_checkpoint(path / "source", **SIZES, reservoir=reservoir, **options)


def calibrated(path: Path, reservoir=RESERVOIR) -> Model:
    import_checkpoint(checkpoint(path, reservoir), path / "model")
    return Model.open(path / "model")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return calibrated(tmp_path_factory.mktemp("reservoir"))


def is_fixed(name: str, layer: int) -> bool:
    return layer in RESERVOIR["fixed"].get(name, [])


def test_import_keeps_what_is_trained_and_drops_what_is_generated(tmp_path):
    model = imported(checkpoint(tmp_path), tmp_path / "model")
    tensors = make_tensors(**SIZES)
    twin = imported(write_checkpoint(tmp_path / "twin", **SIZES), tmp_path / "ordinary")
    assert model.geometry.reservoir == Reservoir.from_dict(RESERVOIR)
    assert twin.geometry.reservoir is None
    for index, (layer, other) in enumerate(zip(model.layers, twin.layers, strict=True)):
        assert (layer.glu is None) == (index == 1)
        assert list(layer.projections) == (list("figo") if index == 1 else [*"figo", "gate", "down"])
        if layer.glu:
            name = f"model.layers.{index}.mlp_norm.weight"
            assert np.allclose(layer.glu.mlp_norm, tensors[name], atol=0.01)
        for name, projection in layer.projections.items():
            assert projection.generated == is_fixed(name, index)
            expected = other.projections[name]
            assert (projection.rows, projection.columns) == (expected.rows, expected.columns)
            assert np.array_equal(projection.norm, expected.norm)
            if projection.generated:
                reservoir = model.geometry.reservoir
                packed = reservoir.packed(name, index, projection.rows, projection.columns)
                assert np.array_equal(projection.packed, packed)
                assert projection.beta == fixed_beta(projection.columns)
                with pytest.raises(ValueError, match="read-only"):
                    projection.packed[0, 0] = 0
            else:
                assert np.array_equal(projection.packed, expected.packed)
                assert projection.beta == expected.beta
    assert np.array_equal(model.head.packed, twin.head.packed)


def test_trits_are_made_when_touched_and_once_for_each_stream(tmp_path, monkeypatch):
    from sterna.model import store

    made = []
    generate = store.fixed_rows
    monkeypatch.setattr(store, "fixed_rows", lambda *arguments: made.append(arguments) or generate(*arguments))
    imported(checkpoint(tmp_path), tmp_path / "shared").verify()
    assert made == []
    model = Model.open(tmp_path / "shared")
    assert all(layer.f.packed is model.layers[0].f.packed for layer in model.layers)
    assert made == [(77, 0, range(43), 43)]
    own = imported(checkpoint(tmp_path / "own", RESERVOIR | {"shared": False}), tmp_path / "apart")
    assert not np.array_equal(own.layers[0].f.packed, own.layers[1].f.packed)
    assert made[1:] == [(77, 8, range(43), 43), (77, 16, range(43), 43)]


def test_the_file_holds_neither_trits_nor_scale_of_a_fixed_projection(tmp_path):
    model = imported(checkpoint(tmp_path), tmp_path / "model")
    manifest = json.loads((tmp_path / "model" / "sterna.json").read_text())
    assert manifest["version"] == 1
    assert Reservoir.from_dict(manifest["geometry"]["reservoir"]) == model.geometry.reservoir
    assert [frac is None for frac in manifest["glu_frac"]] == [False, True, False, False]
    for index in range(4):
        for name in [*"figo", "gate", "down"]:
            present = index != 1 or name in "figo"
            stored = present and not is_fixed(name, index)
            assert [f"layers.{index}.{name}.{part}" in manifest["tensors"] for part in ("trits", "beta", "norm")] == [
                stored,
                stored,
                present,
            ]
        assert (f"layers.{index}.mlp_norm" in manifest["tensors"]) == (index != 1)


def test_an_ordinary_model_says_nothing_of_a_reservoir(tmp_path):
    imported(write_checkpoint(tmp_path / "source", **SIZES), tmp_path / "model")
    assert "reservoir" not in json.loads((tmp_path / "model" / "sterna.json").read_text())["geometry"]


@pytest.mark.parametrize("reservoir", MANY)
def test_counts_are_those_of_the_tensors(tmp_path, reservoir):
    model = imported(checkpoint(tmp_path, reservoir), tmp_path / "model")
    geometry, integers = model.geometry, IntegerModel.from_model(model)
    every = [p for layer in model.layers for p in layer.projections.values()] + [model.head]
    generated = sum(p.rows * p.columns for p in every if p.generated)
    from safetensors import safe_open

    with safe_open(tmp_path / "source" / "model.safetensors", framework="np") as file:
        assert geometry.parameters == sum(np.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    assert geometry.generated_weights == generated
    assert geometry.ternary_weights == sum(p.rows * p.columns for p in every)
    assert integers.weight_bytes == sum(-(-p.rows * p.columns // 5) for p in every)
    assert integers.stored_weight_bytes == sum(-(-p.rows * p.columns // 5) for p in every if not p.generated)
    summary = summarise(model)
    for name in ("parameters", "generated_weights", "ternary_weights"):
        assert summary[name] == getattr(geometry, name)
    for name in ("weight_bytes", "stored_weight_bytes"):
        assert summary[name] == getattr(integers, name)
    assert json.loads(json.dumps(summary))["geometry"] == geometry.to_dict()
    assert Geometry.from_dict(json.loads(json.dumps(geometry.to_dict()))) == geometry


@pytest.mark.parametrize("reservoir", MANY)
def test_cpu_engine_equals_golden(tmp_path, reservoir):
    model = calibrated(tmp_path, reservoir)
    cpu, golden = CpuEngine(model), GoldenEngine(model)
    for token in (1, 5, 70, 33, 33, 0):
        ours, expected = cpu.step(token, logits=True), golden.step(token, logits=True)
        np.testing.assert_array_equal(ours.logits, expected.logits)
        assert (ours.sampled, ours.counters) == (expected.sampled, expected.counters)
    np.testing.assert_array_equal(cpu.state, golden.state)


@pytest.mark.parametrize("reservoir", MANY)
def test_golden_follows_the_float_reference(tmp_path, reservoir):
    torch = pytest.importorskip("torch")
    from sterna.reference import load_reference
    from sterna.runtime.runners import load_float

    model = calibrated(tmp_path, reservoir)
    ids = np.random.default_rng(2).integers(0, 71, (16, 12))
    golden = GoldenModel(model, batch=16)
    logits = np.stack([golden.step(column) for column in ids.T], axis=1) * 2.0**-LOGIT_FRAC
    state = golden.state * 2.0**-STATE_FRAC
    for reference in (load_reference(tmp_path / "source"), load_float(tmp_path / "model")):
        with torch.inference_mode():
            expected, after = (values.double().numpy() for values in reference(torch.from_numpy(ids)))
        cosine = (logits * expected).sum(-1) / np.sqrt((logits**2).sum(-1) * (expected**2).sum(-1))
        assert cosine.mean() > 0.9995  # an ordinary model of this size has 0.99976
        assert np.abs(logits - expected).mean() < 0.02 * expected.std()
        assert np.abs(state - after).mean() < 0.01 * after.std()


def test_float_reference_has_the_trits_of_the_stored_model(tmp_path):
    pytest.importorskip("torch")
    from sterna.model.layout import projections
    from sterna.reference import load_reference
    from sterna.runtime.runners import load_float

    model = calibrated(tmp_path)
    stored = {f"layers.{n}.{name}": p for n, layer in enumerate(model.layers) for name, p in layer.projections.items()}
    stored["head"] = model.head
    for reference in (load_reference(tmp_path / "source"), load_float(tmp_path / "model")):
        found = reference.bit_linears()
        plans = projections(model.geometry)
        assert {plan.source for plan in plans} == found.keys()
        for plan in plans:
            np.testing.assert_array_equal(found[plan.source].trits.numpy(), stored[plan.stored].trits())
            assert float(found[plan.source].beta) == pytest.approx(stored[plan.stored].beta, rel=1e-6)


def test_a_trainable_model_that_was_saved_imports_with_its_trits(tmp_path):
    pytest.importorskip("torch")
    from sterna.reference import HGRNBitConfig, HGRNBitForCausalLM, save_checkpoint

    config = HGRNBitConfig(
        vocab_size=71, hidden_size=43, num_hidden_layers=4, intermediate_size=58, reservoir=RESERVOIR
    )
    reference = HGRNBitForCausalLM(config)
    save_checkpoint(reference, tmp_path / "source")
    model = imported(tmp_path / "source", tmp_path / "model")
    for index, layer in enumerate(model.layers):
        for name, projection in layer.projections.items():
            block = reference.model.layers[index]
            bits = getattr(block.mlp if name in ("gate", "down") else block.attn, f"{name}_proj")
            if projection.generated:
                np.testing.assert_array_equal(projection.trits(), bits.trits.numpy())
                norm = np.full(projection.columns, config.initializer_range * projection.columns**0.5)
                if name in ("o", "down"):
                    norm /= 8**0.5
                np.testing.assert_allclose(projection.norm, norm, rtol=2**-8)
            else:
                assert bits.weight is not None


def test_transformers_loads_generates_and_saves(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import sterna.reference.hf  # noqa: F401 - registers the model type
    from sterna.reference import load_trainable

    ids = torch.tensor([[1, 5, 70, 33]])
    expected = load_trainable(checkpoint(tmp_path))(ids)[0]
    auto = transformers.AutoModelForCausalLM
    model = auto.from_pretrained(tmp_path / "source", dtype=torch.float32)
    torch.testing.assert_close(model(ids).logits, expected)
    model.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(auto.from_pretrained(tmp_path / "saved", dtype=torch.float32)(ids).logits, expected)
    fresh = auto.from_config(model.config)
    assert torch.isfinite(fresh(ids).logits).all()
    norm = fresh.model.layers[0].attn.f_proj.norm.weight
    torch.testing.assert_close(norm, torch.full_like(norm, model.config.initializer_range * 43**0.5))


def test_a_mixer_only_layer_ends_with_its_attention_residual(model):
    trace = Trace()
    GoldenModel(model).step([1], trace=trace)
    names = [name for name, _ in trace.results]
    mixer = ["f", "state", "output gate", "attention residual"]
    for index in range(4):
        parts = mixer if index == 1 else [*mixer, "gate", "gated", "residual"]
        assert [name for name in names if name.startswith(f"layer {index} ")] == [f"layer {index} {p}" for p in parts]


def test_calibration_looks_at_mixer_only_layers_too(tmp_path):
    """Where no layer has a GLU, the largest residual is one after a mixer; nothing saturates afterwards."""
    loud = {f"model.layers.{n}.attn.o_proj.norm.weight": np.full(43, 40, np.float32) for n in range(4)}
    source = write_checkpoint(tmp_path / "source", **SIZES, reservoir=MANY[2], replace=loud)
    import_checkpoint(source, tmp_path / "model")
    model = Model.open(tmp_path / "model")
    assert model.residual_frac < calibrated(tmp_path / "quiet", MANY[2]).residual_frac
    assert calibrate(model)["glu_frac"] == [None] * 4
    golden, trace = GoldenModel(model), Trace()
    for token in range(20):
        golden.step([token], trace=trace)
    assert trace.saturations == 0


WEIGHT = "model.layers.2.attn.f_proj.weight"
SQUARE = np.ones((43, 43), np.float32)
REFUSED = {
    "a weight of a fixed projection": (
        {"replace": {WEIGHT: SQUARE}},
        rf"tensor {WEIGHT} has no place: by the reservoir of config\.json its weights are generated",
    ),
    "a GLU in a mixer-only layer": (
        {"replace": {"model.layers.1.mlp_norm.weight": np.ones(43, np.float32)}},
        r"tensor model\.layers\.1\.mlp_norm\.weight has no place",
    ),
    "no norm of a fixed projection": (
        {"replace": {"model.layers.2.attn.f_proj.norm.weight": None}},
        r"tensor model\.layers\.2\.attn\.f_proj\.norm\.weight is missing",
    ),
    "norm of another length": (
        {"replace": {"model.layers.2.attn.f_proj.norm.weight": np.ones(42, np.float32)}},
        r"has the shape \[42\], config\.json asks for \[43\]",
    ),
    "no weight of a trained projection": (
        {"replace": {"model.layers.2.attn.i_proj.weight": None}},
        r"tensor model\.layers\.2\.attn\.i_proj\.weight is missing",
    ),
    "a table without its model type": ({"config": {"model_type": "hgrn_bit"}}, "has the table reservoir"),
    "a model type without its table": ({"config": {"reservoir": ...}}, "lacks the table reservoir"),
    "a layer too many": (
        {"config": {"reservoir": RESERVOIR | {"mixer_only": [4]}}},
        "mixer_only lists layer 4; the last of 4 is 3",
    ),
    "an unknown projection": ({"config": {"reservoir": {"fixed": {"q": [0]}}}}, "unknown projection 'q'"),
    "an unknown key": ({"config": {"reservoir": {"seeds": 3}}}, "unknown key 'seeds'"),
    "no GLU to fix": ({"config": {"reservoir": {"fixed": {"gate": [1]}, "mixer_only": [1]}}}, "has no gate to fix"),
    "a seed too long": ({"config": {"reservoir": {"seed": 1 << 32}}}, "seed must be an integer of 32 bits"),
    "no table": ({"config": {"reservoir": 3}}, "reservoir must be a table"),
    "null": ({"config": {"reservoir": None}}, "reservoir must be a table"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_import_refuses(tmp_path, name):
    options, message = REFUSED[name]
    refused(checkpoint(tmp_path, **options), tmp_path / "model", message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["geometry"].pop("reservoir"), "glu_frac must be an integer"),
        (lambda c: c["geometry"]["reservoir"]["fixed"].pop("f"), r"lacks the tensor layers\.0\.f\.trits"),
        (lambda c: c["geometry"]["reservoir"]["fixed"]["i"].append(2), r"unknown tensor layers\.2\.i\.beta"),
        (lambda c: c["geometry"]["reservoir"].update(mixer_only=[]), "glu_frac must be an integer"),
        (lambda c: c["geometry"]["reservoir"].update(mixer_only=[1, 3]), "layer 3 is mixer_only and has no down"),
        (lambda c: c["geometry"]["reservoir"].update(seed=-1), "seed must be an integer of 32 bits"),
        (lambda c: c["geometry"]["reservoir"].update(mixer_only=[9]), "mixer_only lists layer 9"),
        (lambda c: c.update(glu_frac=[12] * 4), "glu_frac must be null in the mixer-only layer 1"),
        (lambda c: c["geometry"].update(reservoirs=1), "geometry lacks or should not have the key reservoirs"),
    ],
)
def test_open_refuses_a_manifest_that_does_not_fit(tmp_path, change, message):
    imported(checkpoint(tmp_path), tmp_path / "model")
    file = tmp_path / "model" / "sterna.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(SternaError, match=message) as caught:
        Model.open(tmp_path / "model")
    assert str(caught.value).startswith(("sterna.json: ", "model.safetensors ")) and "import" in str(caught.value)


def test_import_counts_its_progress_to_the_end(tmp_path):
    class Bar:
        def __init__(self, total, **_):
            self.total, self.done = total, 0
            bars.append(self)

        def update(self, amount):
            self.done += amount

        def close(self):
            pass

    bars: list[Bar] = []
    import_checkpoint(checkpoint(tmp_path), tmp_path / "model", calibrate=False, progress=Bar)
    assert [bar.done for bar in bars] == [bar.total for bar in bars] and bars[0].total > 0


def test_synthetic_checkpoints_may_have_a_reservoir(tmp_path):
    geometry = Geometry(
        hidden=40,
        layers=2,
        inner=60,
        vocab=50,
        rms_eps=1e-6,
        reservoir=Reservoir(fixed={"f": (0, 1), "down": (1,)}, mixer_only=(0,)),
    )
    pieces: list[int] = []
    write_synthetic(tmp_path / "source", geometry, progress=pieces.append)
    assert sum(pieces) == source_bytes(geometry)
    import_checkpoint(tmp_path / "source", tmp_path / "model")
    assert Model.open(tmp_path / "model").geometry == geometry
    assert GEOMETRIES["8m-reservoir"].parameters < GEOMETRIES["8m"].parameters


def test_info_shows_the_reservoir(model, capsys):
    assert main(["info", str(model.path)]) == 0
    text = capsys.readouterr().out
    assert "reservoir     seed 77, one stream a kind; 22,919 weights generated" in text
    assert (
        "  fixed       f in layers 0-3; i in layer 1; g in layer 3; o in layer 0; gate in layer 2; down in layers 0, 3"
        in text
    )
    assert "  mixer only  layer 1" in text
    assert main(["info", str(model.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["geometry"]["reservoir"] == RESERVOIR
    every, stored = found["weight_bytes"], found["stored_weight_bytes"]
    assert f"reads {stored:,} bytes of trits with a generator at hand, {every:,} without" in text
