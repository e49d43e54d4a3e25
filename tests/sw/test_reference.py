"""The PyTorch reference against an independent NumPy implementation, and its ways in and out."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from sterna.errors import SternaError
from sterna.reference import HGRNBitConfig, HGRNBitForCausalLM, load_reference, load_trainable, save_checkpoint
from sterna.reference.bitlinear import BitLinear, ternarise
from sterna.reference.recurrence import mlgru

SIZES: dict[str, Any] = {"vocab_size": 29, "hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 40}
# An eps that shows where block norms and BitLinear norms differ.
CONFIG: dict[str, Any] = {"model_type": "hgrn_bit", "rms_norm_eps": 1e-3, "hidden_act": "swish", **SIZES}


def make_weights(seed: int = 0) -> dict[str, np.ndarray]:
    """Random float32 tensors under the published names."""
    rng = np.random.default_rng(seed)
    d, v, n = SIZES["hidden_size"], SIZES["vocab_size"], SIZES["intermediate_size"]

    def norm(size: int) -> np.ndarray:
        return rng.uniform(0.5, 1.5, size)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.normal(0, 0.05, (rows, columns))

    w = {
        "model.embeddings.weight": rng.normal(0, 0.3, (v, d)),
        "model.lower_bounds": rng.normal(0, 1, (SIZES["num_hidden_layers"], d)),
    }
    for layer in range(SIZES["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        w[at + "attn_norm.weight"] = norm(d)
        w[at + "mlp_norm.weight"] = norm(d)
        w[at + "attn.g_norm.weight"] = norm(d)
        for name in "ifgo":
            w[at + f"attn.{name}_proj.weight"] = matrix(d, d)
            w[at + f"attn.{name}_proj.norm.weight"] = norm(d)
        w[at + "mlp.gate_proj.weight"] = matrix(2 * n, d)
        w[at + "mlp.gate_proj.norm.weight"] = norm(d)
        w[at + "mlp.down_proj.weight"] = matrix(d, n)
        w[at + "mlp.down_proj.norm.weight"] = norm(n)
    w["model.norm.weight"] = norm(d)
    w["lm_head.weight"] = matrix(v, d)
    w["lm_head.norm.weight"] = norm(d)
    return {name: value.astype(np.float32) for name, value in w.items()}


def run_numpy(w32: dict[str, np.ndarray], ids: list[int], eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The model token by token in float64: (logits [T, V], hidden [L + 2, T, d], states [L, d])."""
    w = {name: value.astype(np.float64) for name, value in w32.items()}
    layers = SIZES["num_hidden_layers"]

    def rms(x: np.ndarray, weight: np.ndarray, floor: float) -> np.ndarray:
        return x / np.sqrt(np.mean(x * x) + floor) * weight

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        u = rms(x, w[name + ".norm.weight"], 1e-6)
        s = 127 / max(np.abs(u).max(), 1e-5)
        q = np.clip(np.rint(u * s), -128, 127)
        weight = w[name + ".weight"]
        beta = max(np.abs(weight).mean(), 1e-5)
        return np.clip(np.rint(weight / beta), -1, 1) @ q * beta / s

    shares = np.exp(w["model.lower_bounds"])
    bounds = np.cumsum(shares / shares.sum(0), axis=0)
    states = np.zeros((layers, SIZES["hidden_size"]))
    logits, hidden = [], []
    for token in ids:
        x = w["model.embeddings.weight"][token]
        trace = [x]
        for layer in range(layers):
            at = f"model.layers.{layer}."
            a = rms(x, w[at + "attn_norm.weight"], eps)
            f = sigmoid(linear(at + "attn.f_proj", a))
            if layer > 0:
                low = bounds[layer] - bounds[0]
                f = low + (1 - low) * f
            i = linear(at + "attn.i_proj", a)
            states[layer] = f * states[layer] + i * sigmoid(i) * (1 - f)
            h = states[layer]
            v = rms(linear(at + "attn.g_proj", a), w[at + "attn.g_norm.weight"], eps) * h * sigmoid(h)
            x = x + linear(at + "attn.o_proj", v)
            both = linear(at + "mlp.gate_proj", rms(x, w[at + "mlp_norm.weight"], eps))
            g, u = both[: len(both) // 2], both[len(both) // 2 :]
            x = x + linear(at + "mlp.down_proj", g * sigmoid(g) * u)
            trace.append(x)
        trace.append(rms(x, w["model.norm.weight"], eps))
        hidden.append(trace)
        logits.append(linear("lm_head", trace[-1]))
    return np.array(logits), np.array(hidden).swapaxes(0, 1), states


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file(make_weights(), tmp_path / "model.safetensors")
    return tmp_path


IDS = [3, 0, 28, 7, 7, 11, 19, 2, 5, 23, 1, 16]


def test_equals_numpy_in_float64(checkpoint: Path) -> None:
    model = load_reference(checkpoint, dtype=torch.float64)
    hidden: list[torch.Tensor] = []
    logits, state = model(torch.tensor([IDS, IDS[::-1]]), hidden=hidden)
    for row, ids in enumerate((IDS, IDS[::-1])):
        want_logits, want_hidden, want_states = run_numpy(make_weights(), ids, CONFIG["rms_norm_eps"])
        np.testing.assert_allclose(torch.stack(hidden)[:, row].numpy(), want_hidden, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(logits[row].numpy(), want_logits, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(state[:, row].numpy(), want_states, rtol=1e-9, atol=1e-9)


def test_float32_is_close_to_numpy(checkpoint: Path) -> None:
    logits, _ = load_reference(checkpoint)(torch.tensor([IDS]))
    want, _, _ = run_numpy(make_weights(), IDS, CONFIG["rms_norm_eps"])
    got = logits[0].double().numpy()
    cosine = (got * want).sum(-1) / np.sqrt((got**2).sum(-1) * (want**2).sum(-1))
    assert cosine.min() > 0.999


def test_state_carries_over_any_split(checkpoint: Path) -> None:
    model = load_reference(checkpoint, dtype=torch.float64)
    whole, last = model(torch.tensor([IDS]))
    parts, state = [], None
    for start, end in ((0, 1), (1, 2), (2, 7), (7, len(IDS))):
        logits, state = model(torch.tensor([IDS[start:end]]), state)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state, last, rtol=1e-9, atol=1e-9)


def test_trainable_and_frozen_agree_and_requantising_is_no_part(checkpoint: Path) -> None:
    model = load_trainable(checkpoint)
    before, _ = model(torch.tensor([IDS]))
    given = {name: ternarise(layer.weight.detach()) for name, layer in model.bit_linears().items()}
    betas = {name: float(beta) for name, (_, beta) in given.items()}
    frozen = load_trainable(checkpoint).freeze({name: (t.to(torch.int8), b) for name, (t, b) in given.items()})
    after, _ = frozen(torch.tensor([IDS]))
    assert torch.equal(before, after)
    frozen.freeze()
    for name, layer in frozen.bit_linears().items():
        assert layer.frozen and layer.trits.dtype == torch.int8 and float(layer.beta) == betas[name]
        # Quantising the dequantised weight would have given another scale.
        assert not np.isclose(float(ternarise(layer.trits * layer.beta)[1]), betas[name], rtol=1e-3)
    with pytest.raises(SternaError, match="frozen"):
        save_checkpoint(frozen, checkpoint / "again")


def test_freeze_refuses_what_does_not_fit(checkpoint: Path) -> None:
    layer = load_trainable(checkpoint).lm_head
    with pytest.raises(SternaError, match="both"):
        layer.freeze(trits=torch.zeros(29, 24))
    with pytest.raises(SternaError, match=r"trits are \[24, 29\]"):
        layer.freeze(trits=torch.zeros(24, 29), beta=1.0)
    with pytest.raises(SternaError, match="-1, 0 or 1"):
        layer.freeze(trits=torch.full((29, 24), 2), beta=1.0)
    with pytest.raises(SternaError, match="missing"):
        load_trainable(checkpoint).freeze({})


def test_names_are_the_published_ones() -> None:
    model = HGRNBitForCausalLM(HGRNBitConfig(**SIZES))
    assert set(model.state_dict()) == set(make_weights())
    assert {n: tuple(t.shape) for n, t in model.state_dict().items()} == {n: t.shape for n, t in make_weights().items()}


@pytest.mark.parametrize("shard_bytes", [None, 5_000])
def test_save_and_load(tmp_path: Path, shard_bytes: int | None) -> None:
    model = HGRNBitForCausalLM(HGRNBitConfig(**SIZES))
    before = os.umask(0o027)
    try:
        save_checkpoint(model, tmp_path, max_shard_bytes=shard_bytes)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o640}
    assert (tmp_path / "model.safetensors").is_file() == (shard_bytes is None)
    back = load_trainable(tmp_path)
    assert back.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor.bfloat16().float()), name
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["HGRNBitForCausalLM"] and config["dtype"] == "bfloat16"


def test_saving_in_the_other_form_replaces_the_weights(tmp_path: Path) -> None:
    models = [HGRNBitForCausalLM(HGRNBitConfig(**SIZES)) for _ in range(3)]
    for model, shard_bytes in zip(models, (None, 5_000, None), strict=True):
        save_checkpoint(model, tmp_path, max_shard_bytes=shard_bytes)
        assert torch.equal(load_trainable(tmp_path).lm_head.weight, model.lm_head.weight.bfloat16().float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"use_short_conv": True}, "use_short_conv is True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"expand_ratio": 2}, "expand_ratio"),
        ({"use_lower_bound": False}, "use_lower_bound is false"),
        ({"hidden_size": "wide"}, "hidden_size must be a positive integer"),
        ({"rms_norm_eps": 0}, "rms_norm_eps must be a positive number"),
        ({"num_hidden_layers": 4}, "tensors are missing"),
        ({"num_hidden_layers": 2}, "do not belong"),
        ({"vocab_size": 30}, r"model.embeddings.weight is \[29, 24\]"),
    ],
)
def test_bad_checkpoints_are_named(checkpoint: Path, change: dict[str, Any], message: str) -> None:
    (checkpoint / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(SternaError, match=message):
        load_reference(checkpoint)


def test_broken_files_are_named(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(SternaError, match=r"no config\.json"):
        load_reference(tmp_path / "nowhere")
    (checkpoint / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(SternaError, match="is truncated or no safetensors file"):
        load_reference(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(SternaError, match="must hold a JSON object"):
        load_reference(checkpoint)
    (checkpoint / "model.safetensors.index.json").unlink()
    with pytest.raises(SternaError, match="no weights in"):
        load_reference(checkpoint)
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(SternaError, match="not JSON"):
        load_reference(checkpoint)


@pytest.mark.parametrize(("hidden", "inner"), [(1024, 2816), (2048, 5632), (2560, 6912), (192, 512), (512, 1536)])
def test_inner_size_of_published_models(hidden: int, inner: int) -> None:
    assert HGRNBitConfig(hidden_size=hidden).inner_size == inner


def test_straight_through_gradients() -> None:
    torch.manual_seed(0)
    layer = BitLinear(12, 7).double()
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(3, 5, 12, dtype=torch.float64, requires_grad=True)
    dy = torch.randn(3, 5, 7, dtype=torch.float64)
    layer(x).backward(dy)
    got = [x.grad, layer.weight.grad, layer.norm.weight.grad]

    weight = layer.weight.detach().clone().requires_grad_()
    gamma = layer.norm.weight.detach().clone().requires_grad_()
    x2 = x.detach().clone().requires_grad_()
    u = x2 / (x2.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gamma
    s = 127 / u.detach().abs().amax(-1, keepdim=True)
    u = u + ((u * s).round().clamp(-128, 127) / s - u).detach()
    beta = weight.detach().abs().mean()
    ternary = weight + ((weight / beta).round().clamp(-1, 1) * beta - weight).detach()
    (u @ ternary.t()).backward(dy)
    for mine, want in zip(got, (x2.grad, weight.grad, gamma.grad), strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-10, atol=1e-12)


def test_recurrence_gradients() -> None:
    torch.manual_seed(0)
    i, f = (torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    lower = torch.rand(3, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mlgru, (i, f, lower, state))


def test_left_padding_changes_nothing(checkpoint: Path) -> None:
    model = load_reference(checkpoint, dtype=torch.float64)
    want, state = model(torch.tensor([IDS]))
    padded = torch.tensor([[9] * 4 + IDS])
    mask = torch.tensor([[0] * 4 + [1] * len(IDS)])
    logits, after = model(padded, mask=mask)
    torch.testing.assert_close(logits[:, 4:], want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after, state, rtol=1e-9, atol=1e-9)


def test_transformers_generate(checkpoint: Path) -> None:
    from transformers import AutoModelForCausalLM

    import sterna.reference.hf  # noqa: F401 - registers the model type

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    ids = torch.tensor([IDS])
    got = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)
    reference = load_reference(checkpoint)
    want = ids
    for _ in range(6):
        want = torch.cat([want, reference(want)[0][:, -1:].argmax(-1)], dim=1)
    assert torch.equal(got, want)
    loss = model(ids, labels=ids).loss
    torch.testing.assert_close(loss, reference.loss(ids[:, :-1], ids[:, 1:]))


DATA = Path(os.environ.get("STERNA_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "hgrnbit-4.5m"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the 4.5M checkpoint with reference logits (STERNA_DATA)")
def test_published_checkpoint() -> None:
    want = np.load(DATA / "reference.npz")
    model = load_reference(DATA)
    hidden: list[torch.Tensor] = []
    logits, state = model(torch.from_numpy(want["prompt_ids"]), hidden=hidden)
    got, ref = logits.double().numpy(), want["logits"].astype(np.float64)
    cosine = (got * ref).sum(-1) / np.sqrt((got**2).sum(-1) * (ref**2).sum(-1))
    assert cosine.min() > 0.9997
    np.testing.assert_allclose(state[:, 0].numpy(), want["states"], atol=1e-4)
    np.testing.assert_allclose(torch.stack(hidden)[:, 0].numpy(), want["hidden"], atol=1e-2)

    tokens = torch.from_numpy(want["nll20k_tokens"][: 20 * 512].astype(np.int64)).view(20, 512)
    nll = torch.nn.functional.cross_entropy(model(tokens)[0][:, :-1].transpose(1, 2), tokens[:, 1:])
    assert abs(float(nll) / np.nanmean(want["nll20k"][: 20 * 512], dtype=np.float64) - 1) < 2e-4
