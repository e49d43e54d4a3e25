"""HGRNBit, the ternary MatMul-free language model of arXiv 2406.02528, in PyTorch.

This is the floating-point reference that every integer engine is measured against, and the model that the trainer
trains. Parameter names equal those of published checkpoints. Notation: d = hidden_size, inner = GLU width, L = layers,
V = vocabulary; activations are [batch, time, features].

A model is in one of two modes, as its BitLinear layers are: *trainable* with float weights, or *frozen* (`freeze`) with
trits and scales.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sterna.errors import SternaError
from sterna.reference.bitlinear import BitLinear, RMSNorm, init_weight
from sterna.reference.checkpointing import checkpointed, require_mode
from sterna.reference.config import HGRNBitConfig
from sterna.reference.loss import HeadLoss, chunked_loss, head_loss
from sterna.reference.recurrence import mlgru

__all__ = ["Block", "Body", "HGRNBitForCausalLM", "head_loss"]

# Inductor would write the normalised inputs of the projections to memory in float32, because more than four values are
# read for each; computing them again in the next pass over the row costs nothing beside that.
_COMPILE_OPTIONS: dict[str, Any] = {
    "realize_reads_threshold": 32,
    "realize_acc_reads_threshold": 64,
    "realize_opcount_threshold": 200,
}


def _projection(config: HGRNBitConfig, kind: str, layer: int, inputs: int, outputs: int) -> BitLinear:
    reservoir = config.reservoir
    if reservoir is None or not reservoir.is_fixed(kind, layer):
        return BitLinear(inputs, outputs)
    return BitLinear(inputs, outputs, fixed=partial(reservoir.packed, kind, layer, outputs, inputs))


class Attention(nn.Module):
    """The recurrent token mixer (MLGRU): a [batch, time, d] -> [batch, time, d], state [batch, d]."""

    def __init__(self, config: HGRNBitConfig, layer: int) -> None:
        super().__init__()
        d = config.hidden_size
        self.i_proj = _projection(config, "i", layer, d, d)
        self.f_proj = _projection(config, "f", layer, d, d)
        self.g_proj = _projection(config, "g", layer, d, d)
        self.g_norm = RMSNorm(d, eps=config.rms_norm_eps)
        self.o_proj = _projection(config, "o", layer, d, d)

    def forward(
        self, a: Tensor, lower: Tensor, state: Tensor, dtype: torch.dtype | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """a [batch, time, d], forget floor [d], state [batch, d] -> (output, state after the last step)."""
        i = self.i_proj(a, dtype)
        if mask is not None:
            i = i * mask.unsqueeze(-1).to(i.dtype)  # silu(0) is 0: nothing enters the state
        h = mlgru(i, self.f_proj(a, dtype), lower, state)
        g = self.g_proj(a, dtype).to(a.dtype)
        v = self.g_norm(g) * F.silu(h.to(a.dtype))  # the norm is on the gate, the swish on the state
        return self.o_proj(v, dtype), h[:, -1].to(a.dtype)


class MLP(nn.Module):
    """Gated linear unit: x [batch, time, d] -> [batch, time, d]; `gate_proj` rows are the gate, then the up half."""

    def __init__(self, config: HGRNBitConfig, layer: int) -> None:
        super().__init__()
        self.gate_proj = _projection(config, "gate", layer, config.hidden_size, 2 * config.inner_size)
        self.down_proj = _projection(config, "down", layer, config.inner_size, config.hidden_size)

    def forward(self, x: Tensor, dtype: torch.dtype | None) -> Tensor:
        """Apply to x [batch, time, d]."""
        gate, up = self.gate_proj(x, dtype).to(x.dtype).chunk(2, dim=-1)
        y: Tensor = self.down_proj(F.silu(gate) * up, dtype)
        return y


class Block(nn.Module):
    """One layer: residual token mixer, then residual GLU. The residual keeps the type of the parameters.

    A mixer-only layer of a reservoir model has no GLU and no norm before it. `checkpointing` is one of the modes of
    `sterna.reference.checkpointing`.
    """

    def __init__(self, config: HGRNBitConfig, layer: int) -> None:
        super().__init__()
        self.checkpointing = "none"
        self.attn_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.attn = Attention(config, layer)
        self.mlp_norm: RMSNorm | None = None
        self.mlp: MLP | None = None
        if config.reservoir is None or layer not in config.reservoir.mixer_only:
            self.mlp_norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
            self.mlp = MLP(config, layer)

    def forward(
        self,
        x: Tensor,
        lower: Tensor,
        state: Tensor,
        dtype: torch.dtype | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x [batch, time, d], forget floor [d], state [batch, d] -> (x, state) after the layer."""
        return checkpointed(self.checkpointing, self._run, x, lower, state, dtype, mask)

    def _run(
        self, x: Tensor, lower: Tensor, state: Tensor, dtype: torch.dtype | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        mixed, state = self.attn(self.attn_norm(x), lower, state, dtype, mask)
        x = x + mixed
        if self.mlp is None or self.mlp_norm is None:
            return x, state
        return x + self.mlp(self.mlp_norm(x), dtype), state


class Body(nn.Module):
    """Embedding, blocks and final norm: the part of the model under the name `model.`"""

    def __init__(self, config: HGRNBitConfig) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.lower_bounds = nn.Parameter(torch.zeros(config.num_hidden_layers, config.hidden_size))
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forget_floors(self) -> Tensor:
        """[L, d]: cumsum(softmax(lower_bounds)) less its first row; row 0 is zero, which is "not applied"."""
        bounds = self.lower_bounds.softmax(dim=0).cumsum(dim=0)
        return bounds - bounds[0]

    def residual(
        self,
        ids: Tensor,
        state: Tensor,
        hidden: list[Tensor] | None = None,
        dtype: torch.dtype | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (residual after the last block [batch, time, d], state); see `HGRNBitForCausalLM.forward`."""
        x = self.embeddings(ids)
        floors = self.forget_floors().unbind(0)
        states = []
        if hidden is not None:
            hidden.append(x)
        for layer, floor, before in zip(self.layers, floors, state.unbind(0), strict=True):
            x, after = layer(x, floor, before, dtype, mask)
            states.append(after)
            if hidden is not None:
                hidden.append(x)
        return x, torch.stack(states)

    def forward(
        self,
        ids: Tensor,
        state: Tensor,
        hidden: list[Tensor] | None = None,
        dtype: torch.dtype | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return (final norm [batch, time, d], state); see `HGRNBitForCausalLM.forward`."""
        x, state = self.residual(ids, state, hidden, dtype, mask)
        x = self.norm(x)
        if hidden is not None:
            hidden.append(x)
        return x, state


class HGRNBitForCausalLM(nn.Module):
    """The whole model. See `load_reference` for checkpoints and `freeze` for the two modes."""

    def __init__(self, config: HGRNBitConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.lm_head = BitLinear(config.hidden_size, config.vocab_size)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialise as the published class: normal(0, initializer_range), residual outputs over sqrt(2 L).

        The norm of a fixed layer starts with what makes its outputs as large as those of such weights.
        """
        init_weight(self.model.embeddings.weight, self.config.initializer_range, generator)
        for name, module in self.bit_linears().items():
            std = self.config.initializer_range
            if name.endswith(("o_proj", "down_proj")):
                std /= math.sqrt(2 * len(self.model.layers))
            if module.weight is not None:
                init_weight(module.weight, std, generator)
            else:
                module.norm.weight.fill_(std * math.sqrt(module.shape[1]))
        self.generate_fixed()

    def generate_fixed(self) -> None:
        """Make the trits of all fixed layers; a model that was built on the meta device has none yet."""
        for module in self.bit_linears().values():
            module.generate()

    def bit_linears(self) -> dict[str, BitLinear]:
        """Every BitLinear by its name, for example `model.layers.0.attn.i_proj`."""
        return {name: module for name, module in self.named_modules() if isinstance(module, BitLinear)}

    def freeze(self, ternary: Mapping[str, tuple[Tensor, Tensor | float]] | None = None) -> HGRNBitForCausalLM:
        """Ternarise every BitLinear in place, or take `ternary`: name -> (trits int8, beta). Returns self."""
        layers = self.bit_linears()
        if ternary is not None and set(ternary) != set(layers):
            missing, extra = sorted(set(layers) - set(ternary)), sorted(set(ternary) - set(layers))
            raise SternaError(f"ternary weights do not fit the model: missing {missing[:3]}, not in it {extra[:3]}")
        for name, module in layers.items():
            if ternary is None:
                module.freeze()
            else:
                trits, beta = ternary[name]
                module.freeze(trits=torch.as_tensor(trits), beta=beta)
        return self

    def initial_state(self, batch: int) -> Tensor:
        """Zeros [L, batch, d]: the recurrent state before the first token."""
        weight = self.model.norm.weight
        shape = (self.config.num_hidden_layers, batch, self.config.hidden_size)
        return torch.zeros(shape, dtype=weight.dtype, device=weight.device)

    def forward(
        self,
        ids: Tensor,
        state: Tensor | None = None,
        *,
        hidden: list[Tensor] | None = None,
        dtype: torch.dtype | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """ids int64 [batch, time], state [L, batch, d] or None -> (logits [batch, time, V], state after the last id).

        `hidden`, if a list, receives L + 2 tensors [batch, time, d]: embedding, residual after each block, final norm.
        `dtype` is the type of the integer products (None: that of the parameters, which is exact up to 2^24). `mask`
        [batch, time] is 0 on left padding, which then leaves the state untouched.
        """
        if state is None:
            state = self.initial_state(ids.shape[0])
        x, state = self.model(ids, state, hidden, dtype, mask)
        return self.lm_head(x, dtype), state

    def set_checkpointing(self, mode: str) -> None:
        """Choose what the blocks keep for the backward pass: "none", "selective" or "full" (see `checkpointing`)."""
        require_mode(mode)
        for module in self.modules():
            if isinstance(module, Block):
                module.checkpointing = mode

    def compile_parts(self) -> HeadLoss:
        """Compile every block, and return the compiled `head_loss` for `loss`; shapes are fixed at the first use."""
        for layer in self.model.layers:
            layer.compile(dynamic=False, options=_COMPILE_OPTIONS)
        head: HeadLoss = torch.compile(head_loss, dynamic=False, options=_COMPILE_OPTIONS)
        return head

    def loss(
        self, ids: Tensor, targets: Tensor, *, dtype: torch.dtype | None = None, head: HeadLoss = head_loss
    ) -> Tensor:
        """Mean negative log likelihood (nats) of `targets` [batch, time] after `ids`, from a zero state.

        `head` is `head_loss` or what `compile_parts` returned.
        """
        x, _ = self.model.residual(ids, self.initial_state(ids.shape[0]), dtype=dtype)
        return chunked_loss(head, self.model.norm, self.lm_head, x.flatten(0, 1), targets.flatten(), dtype)
