"""The token mixer's recurrence (MLGRU, arXiv 2406.02528) with its gates, forward and backward.

    g = sigmoid(f)            forget = lower + (1 - lower) * g
    h[t] = forget[t] * h[t-1] + silu(i[t]) * (1 - forget[t])

Shapes: `i`, `f` [batch, time, channels]; `lower` [channels]; `state` (h before the first step) [batch, channels];
result h [batch, time, channels] in the dtype of `i`. The last state is `h[:, -1]`.

`mlgru` is one operator for every device: a sequential loop over time where tensors are on the CPU, a fused Triton
kernel on CUDA. It is opaque to torch.compile, so compiled models keep one kernel here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["mlgru"]


def _gates(i: Tensor, f: Tensor, lower: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (sigmoid(f), forget, silu(i)), all [batch, time, channels]."""
    g = torch.sigmoid(f)
    return g, lower + (1 - lower) * g, torch.nn.functional.silu(i)


def _forward_loop(i: Tensor, f: Tensor, lower: Tensor, state: Tensor) -> Tensor:
    _, forget, swish = _gates(i, f, lower)
    x = swish * (1 - forget)
    h = torch.empty_like(i)
    last = state
    for t in range(i.shape[1]):
        last = forget[:, t] * last + x[:, t]
        h[:, t] = last
    return h


def _backward_loop(
    dh: Tensor, h: Tensor, i: Tensor, f: Tensor, lower: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g, forget, swish = _gates(i, f, lower)
    total = torch.empty_like(dh)
    carry = torch.zeros_like(state)
    for t in range(i.shape[1] - 1, -1, -1):
        carry = carry + dh[:, t]
        total[:, t] = carry
        carry = carry * forget[:, t]
    previous = torch.cat([state[:, None], h[:, :-1]], dim=1)
    dforget = total * (previous - swish)
    sig = torch.sigmoid(i)
    di = total * (1 - forget) * sig * (1 + i * (1 - sig))
    df = dforget * (1 - lower) * g * (1 - g)
    dlower = (dforget * (1 - g)).sum((0, 1))
    return di.to(i.dtype), df.to(f.dtype), dlower.to(lower.dtype), carry.to(state.dtype)


@torch.library.custom_op("sterna::mlgru", mutates_args=())
def _mlgru(i: Tensor, f: Tensor, lower: Tensor, state: Tensor) -> Tensor:
    if i.is_cuda:
        from sterna.reference import recurrence_triton

        return recurrence_triton.forward(i, f, lower, state)
    return _forward_loop(i, f, lower, state)


@_mlgru.register_fake
def _(i: Tensor, f: Tensor, lower: Tensor, state: Tensor) -> Tensor:
    return torch.empty_like(i)


@torch.library.custom_op("sterna::mlgru_backward", mutates_args=())
def _mlgru_backward(
    dh: Tensor, h: Tensor, i: Tensor, f: Tensor, lower: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if i.is_cuda:
        from sterna.reference import recurrence_triton

        return recurrence_triton.backward(dh, h, i, f, lower, state)
    return _backward_loop(dh, h, i, f, lower, state)


@_mlgru_backward.register_fake
def _(dh: Tensor, h: Tensor, i: Tensor, f: Tensor, lower: Tensor, state: Tensor) -> tuple[Tensor, ...]:
    return torch.empty_like(i), torch.empty_like(f), torch.empty_like(lower), torch.empty_like(state)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(output, *inputs)


def _derivative(ctx: Any, dh: Tensor) -> tuple[Tensor, ...]:
    gradients: tuple[Tensor, ...] = _mlgru_backward(dh.contiguous(), *ctx.saved_tensors)
    return gradients


_mlgru.register_autograd(_derivative, setup_context=_save)


def mlgru(i: Tensor, f: Tensor, lower: Tensor, state: Tensor) -> Tensor:
    """Run gates and recurrence (see the module); differentiable in all four arguments."""
    h: Tensor = _mlgru(i.contiguous(), f.contiguous(), lower, state)
    return h
