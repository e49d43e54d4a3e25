"""Final norm, head and cross entropy in chunks of tokens, each with its gradient: no full logits ever exist.

The gradient of a chunk is computed right after its loss, in the forward pass; the backward pass only scales it. With a
vocabulary of 32,000 and float32 the logits and their gradient would take 500 KiB a token; what is kept is the gradient
of x, 4 d bytes a token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sterna.reference.bitlinear import BitLinear, RMSNorm

__all__ = ["CHUNK_LOGITS", "HeadLoss", "chunked_loss", "head_loss"]

CHUNK_LOGITS = 1 << 26  # logits of one chunk: 256 MiB in float32

HeadLoss = Callable[[RMSNorm, BitLinear, Tensor, Tensor, "torch.dtype | None"], Tensor]


def head_loss(norm: RMSNorm, head: BitLinear, x: Tensor, targets: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Sum of the negative log likelihoods of `targets` [tokens] given the residual x [tokens, d].

    A function of its own so that it can be compiled as one unit.
    """
    logits = head(norm(x), dtype).to(x.dtype)
    return F.cross_entropy(logits, targets, reduction="sum")


class _ChunkedLoss(torch.autograd.Function):
    """Sum of the losses of `chunks`, with all gradients computed in forward."""

    @staticmethod
    def forward(
        ctx: Any,
        chunk_loss: Callable[[Tensor, Tensor], Tensor],
        chunks: list[slice],
        targets: Tensor,
        x: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        dx = torch.empty_like(x)
        sums: list[Tensor] = []
        for at in chunks:
            with torch.enable_grad():
                part = x[at].detach().requires_grad_()
                loss = chunk_loss(part, targets[at])
                gradients = torch.autograd.grad(loss, [part, *wanted])
            total += loss.detach()
            dx[at] = gradients[0]
            if sums:
                torch._foreach_add_(sums, gradients[1:])
            else:
                sums = list(gradients[1:])
        ctx.gradients = [dx, *sums]
        ctx.needed = [True, *(parameter.requires_grad for parameter in parameters)]
        return total

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.gradients
        del ctx.gradients  # scaled in place: there is one backward pass
        torch._foreach_mul_(gradients, dloss)
        given = iter(gradients)
        return None, None, None, *(next(given) if needed else None for needed in ctx.needed)


def chunked_loss(
    loss: HeadLoss, norm: RMSNorm, head: BitLinear, x: Tensor, targets: Tensor, dtype: torch.dtype | None
) -> Tensor:
    """Mean of `loss`, which is `head_loss` or that function compiled, over x [tokens, d] and `targets` [tokens].

    It can be differentiated once.
    """
    tokens = x.shape[0]
    size = max(1, CHUNK_LOGITS // head.shape[0])
    chunks = [slice(start, start + size) for start in range(0, tokens, size)]

    def chunk_loss(part: Tensor, goal: Tensor) -> Tensor:
        return loss(norm, head, part, goal, dtype)

    if not torch.is_grad_enabled():
        return torch.stack([chunk_loss(x[at], targets[at]) for at in chunks]).sum() / tokens
    total: Tensor = _ChunkedLoss.apply(  # type: ignore[no-untyped-call]  # torch: no types
        chunk_loss, chunks, targets, x, *norm.parameters(), *head.parameters()
    )
    return total / tokens
