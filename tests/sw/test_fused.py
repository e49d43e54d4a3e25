"""Lean training: the same gradients in every mode and as plain PyTorch gives, and the memory that is claimed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sterna.cli import bench_train as benchmark
from sterna.errors import SternaError
from sterna.model.reservoir import Reservoir
from sterna.reference import HGRNBitConfig, HGRNBitForCausalLM
from sterna.reference import loss as loss_module
from sterna.reference.bitlinear import BitLinear
from sterna.reference.checkpointing import MODES
from sterna.reference.loss import head_loss
from sterna.train import measure
from sterna.train.unfused import make_unfused, unfused_loss

D, INNER, VOCABULARY = 16, 24, 40
SIZES: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": D, "intermediate_size": INNER}
RESERVOIR = Reservoir(fixed={"g": (0,), "gate": (1,)}, mixer_only=(2,))
IDS = torch.randint(0, VOCABULARY, (3, 21), generator=torch.Generator().manual_seed(1))


def make(*, layers: int = 3, reservoir: Reservoir | None = None) -> HGRNBitForCausalLM:
    torch.manual_seed(0)
    model = HGRNBitForCausalLM(HGRNBitConfig(**SIZES, num_hidden_layers=layers, reservoir=reservoir))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.mul_(torch.empty_like(parameter).uniform_(0.5, 1.5))
    return model


def gradients(model: HGRNBitForCausalLM, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    value = model.loss(IDS[:, :-1], IDS[:, 1:], dtype=dtype)
    value.backward()
    return {"loss": value.detach()} | {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("reservoir", [None, RESERVOIR])
@pytest.mark.parametrize("mode", ["selective", "full"])
def test_modes_change_no_gradient(mode: str, reservoir: Reservoir | None, dtype: torch.dtype | None) -> None:
    want = gradients(make(reservoir=reservoir), dtype)
    model = make(reservoir=reservoir)
    model.set_checkpointing(mode)
    for name, got in gradients(model, dtype).items():
        assert got is not None and torch.equal(got, want[name]), name
    assert len(want) == 1 + len(list(model.parameters()))


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(SternaError, match="no checkpointing mode 'some'; choose one of none, selective, full"):
        make().set_checkpointing("some")


def test_equals_plain_modules() -> None:
    fused, plain = make().double(), make_unfused(make().double())
    got = gradients(fused)
    value = unfused_loss(plain, IDS[:, :-1], IDS[:, 1:], None)
    value.backward()
    torch.testing.assert_close(got["loss"], value.detach(), rtol=1e-12, atol=0)
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_loss_curve_equals_that_of_plain_modules() -> None:
    """200 steps in float64, where no difference of rounding reaches the threshold of a trit or an activation."""
    curves = []
    for plain in (False, True):
        model = make(layers=1).double()
        model.set_checkpointing("selective")
        optimizer = torch.optim.AdamW((make_unfused(model) if plain else model).parameters(), lr=3e-3)
        curves.append([])
        for step in range(200):
            ids = IDS.roll(step, dims=1)
            loss = unfused_loss if plain else HGRNBitForCausalLM.loss
            value = loss(model, ids[:, :-1], ids[:, 1:], dtype=None)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            curves[-1].append(value.item())
    assert curves[0] == pytest.approx(curves[1], rel=1e-6)
    assert curves[0][-1] < curves[0][0] / 2


def kept(mode: str) -> int:
    """Bytes a token that a compiled block keeps for its backward pass, weights left out."""
    model = make(layers=1)
    model.set_checkpointing(mode)
    block = model.model.layers[0]
    # The partitioner of Inductor without its code generator.
    compiled = torch.compile(block, backend="aot_eager_decomp_partition", dynamic=False)
    sizes: list[int] = []
    tokens = (2, 7)
    x = torch.randn(*tokens, D, requires_grad=True)

    def pack(tensor: Tensor) -> Tensor:
        if tensor.shape[: len(tokens)] == tokens or tensor.shape[:1] == (14,):
            sizes.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compiled(x, torch.rand(D), torch.zeros(2, D), torch.bfloat16, None)
    return sum(sizes) // 14


def test_what_a_block_keeps_for_its_backward_pass() -> None:
    statistics = 15 * 4  # mean squares of nine norms and largest |u| of six projections, as far as needed
    assert kept("full") == 4 * D
    lean = kept("selective")
    assert 0 < lean - (4 * D + 2 * (4 * D + 2 * INNER)) <= statistics
    assert kept("none") > lean


def test_eager_bitlinear_keeps_eight_bits() -> None:
    layer = BitLinear(D, INNER)
    torch.nn.init.normal_(layer.weight)
    saved: list[Tensor] = []
    u = torch.randn(5, D, requires_grad=True)
    layer.norm = torch.nn.Identity()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(u)
    assert [t.dtype for t in saved if t.numel() > 5] == [torch.int8, torch.int8]


def test_loss_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    want = gradients(make())
    seen: list[int] = []

    def watched(norm: Any, head: Any, x: Tensor, targets: Tensor, dtype: Any) -> Tensor:
        seen.append(len(x))
        return head_loss(norm, head, x, targets, dtype)

    monkeypatch.setattr(loss_module, "CHUNK_LOGITS", 17 * VOCABULARY)
    model = make()
    value = model.loss(IDS[:, :-1], IDS[:, 1:], head=watched) * 3
    value.backward()
    assert seen == [17, 17, 17, 9]
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, want[name] * 3, rtol=1e-4, atol=1e-6, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(model.loss(IDS[:, :-1], IDS[:, 1:]), want["loss"])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_product_is_exact(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    for rows in measure.products(device, tokens=300, width=64):
        assert rows["exact"]


def test_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--device", "cpu", "--geometry", "tiny", "--batch", "2", "--context", "8", "--steps", "1"]
    out = tmp_path / "result.json"
    arguments = [*small, "--variants", "selective,missing", "--no-compile", "--repeats", "2", "--json", str(out)]
    assert benchmark.main(arguments) == 1
    text = capsys.readouterr().out
    assert re.search(r"batch 2: [\d.]+ s a step .* tokens/s; loss [34]\.", text) and "no variant 'missing'" in text
    result = json.loads(out.read_text())["steps of selective"]
    assert set(result["batches"]) == {"2", "1"} and result["batches"]["2"]["peak_bytes"] is None
    assert result["static_bytes"] > 3 * 4 * result["parameters"]


def test_benchmark_agreement() -> None:
    rows = {(row["variant"], row["type"]): row for row in measure.agreements("cpu", compiled=False)}
    for mode in MODES:
        assert rows[mode, "float32"]["worst"] < 1e-5
    for variant in ("unfused", "selective"):
        assert 1e-5 < rows[variant, "bfloat16"]["median"] < 0.2
