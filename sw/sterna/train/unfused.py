"""The model as plain PyTorch modules: what the fused one is measured against.

BitLinear is written with straight-through estimators under torch.autocast, as in the published code, and the loss from
full logits. The recurrence is the same operator: a loop in Python would not be a comparison.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sterna.reference.bitlinear import BitLinear, quantise_activations, ternarise
from sterna.reference.modeling import HGRNBitForCausalLM

__all__ = ["make_unfused", "unfused_loss"]


class _PlainBitLinear(BitLinear):
    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        u: Tensor = self.norm(x)
        q, s = quantise_activations(u)
        assert self.weight is not None
        trits, beta = ternarise(self.weight)
        u = u + (q / s - u).detach()
        weight = self.weight + (trits * beta - self.weight).detach()
        return F.linear(u, weight)


def make_unfused(model: HGRNBitForCausalLM) -> HGRNBitForCausalLM:
    """Replace every BitLinear of a trainable `model` by the plain one, with the same parameters; returns `model`."""
    for layer in model.bit_linears().values():
        layer.__class__ = _PlainBitLinear
    return model


def unfused_loss(model: HGRNBitForCausalLM, ids: Tensor, targets: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Mean negative log likelihood in nats of `targets` [batch, time] after `ids`; `dtype` is that of autocast."""
    with torch.autocast(ids.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
        logits, _ = model(ids)
        return F.cross_entropy(logits.to(model.model.norm.weight.dtype).flatten(0, 1), targets.flatten())
