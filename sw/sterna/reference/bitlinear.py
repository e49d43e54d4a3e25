"""BitLinear, the ternary linear layer on 8-bit activations, with its straight-through gradients (arXiv 2406.02528).

    u = RMSNorm(x) * gamma;  s = 127 / max(max|u|, 1e-5);  q = clamp(round(u * s), -128, 127)   per token
    beta = max(mean|W|, 1e-5);  T = clamp(round(W / beta), -1, 1);  y = (T q) * beta / s        per tensor

Rounding is half to even. A layer is either *trainable*, with a float `weight`, or *frozen*, with the buffers `trits`
and `beta`. Quantising a quantised weight again would move beta, so a frozen layer never requantises. A *fixed* layer
(docs/reservoir.md) is born frozen: its trits are generated, and only its norm is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sterna.errors import SternaError
from sterna.reference.product import ternary_product
from sterna.spec.generator import fixed_beta
from sterna.spec.packing import unpack

__all__ = ["BitLinear", "RMSNorm", "init_weight", "quantise_activations", "ternarise"]

BITLINEAR_EPS = 1e-6  # inside BitLinear; block norms take rms_norm_eps
FLOOR = 1e-5  # of max|u| and of beta


def quantise_activations(u: Tensor) -> tuple[Tensor, Tensor]:
    """Per-token 8-bit quantisation: u [..., n] -> (q [..., n], integers in the dtype of u; s [..., 1])."""
    s = 127.0 / u.abs().amax(dim=-1, keepdim=True).clamp(min=FLOOR)
    return (u * s).round().clamp(-128, 127), s


def ternarise(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Per-tensor ternary quantisation: W [out, in] -> (T [out, in] with values -1, 0, 1; beta, scalar)."""
    beta = weight.abs().mean().clamp(min=FLOOR)
    return (weight / beta).round().clamp(-1, 1), beta


def init_weight(weight: Tensor, std: float, generator: torch.Generator | None = None) -> None:
    """Fill `weight` in place from normal(0, std)."""
    nn.init.normal_(weight, 0.0, std, generator=generator)


class _TernaryLinear(torch.autograd.Function):
    """y = (T q) * beta / s with straight-through gradients: dy/du = beta T, dy/dW = outer(., q / s).

    What is kept is 8-bit. FusedBitLinear of flash-linear-attention has the same gradients, but keeps the input of its
    norm and the scaled weights in the type of autocast, norms an input once for each projection that reads it, and has
    no integer product.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        q, s = quantise_activations(u)
        trits, beta = ternarise(weight)
        q, trits = q.to(torch.int8), trits.to(torch.int8)
        ctx.save_for_backward(q, s, trits, beta)
        ctx.dtypes = (u.dtype, weight.dtype)
        return ternary_product(q, trits, beta / s, dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
        q, s, trits, beta = ctx.saved_tensors
        u_dtype, weight_dtype = ctx.dtypes
        du = (dy @ trits.to(dy.dtype)).to(u_dtype) * beta
        x = (q.to(s.dtype) / s).to(dy.dtype)
        dweight = dy.flatten(0, -2).t() @ x.flatten(0, -2)
        return du, dweight.to(weight_dtype), None


class _FixedLinear(torch.autograd.Function):
    """The product of `_TernaryLinear` with weights that have no gradient; `trits` may be int8 or of the type of u."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, trits: Tensor, beta: Tensor, dtype: torch.dtype) -> Tensor:
        q, s = quantise_activations(u)
        ctx.save_for_backward(trits, beta)
        ctx.dtype = u.dtype
        return ternary_product(q.to(torch.int8), trits, beta / s, dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:
        trits, beta = ctx.saved_tensors
        return (dy @ trits.to(dy.dtype)).to(ctx.dtype) * beta, None, None, None


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""

    def __init__(self, size: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., size]."""
        y: Tensor = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps) * self.weight
        return y


class BitLinear(nn.Module):
    """Ternary weights on 8-bit activations, with its own input norm. x [..., inputs] -> y [..., outputs].

    `dtype` of `forward` is the type of y and of the products of the backward pass; None keeps the type of x. With
    `fixed` the layer has no weights of its own: `generate` asks it for the packed trits, uint8 [outputs, inputs / 5].
    """

    def __init__(self, inputs: int, outputs: int, *, fixed: Callable[[], npt.NDArray[np.uint8]] | None = None) -> None:
        super().__init__()
        self.shape = (outputs, inputs)
        self.fixed = fixed
        self.norm = RMSNorm(inputs, eps=BITLINEAR_EPS)
        self.weight: nn.Parameter | None = None if fixed else nn.Parameter(torch.empty(outputs, inputs))
        self.trits: Tensor | None
        self.beta: Tensor | None
        self.register_buffer("trits", None, persistent=not fixed)
        self.register_buffer("beta", None, persistent=not fixed)
        self._multiplier: Tensor | None = None

    def generate(self) -> None:
        """Make the trits of a fixed layer."""
        if self.fixed is not None:
            columns = self.shape[1]
            self.freeze(trits=torch.from_numpy(unpack(self.fixed(), columns)), beta=fixed_beta(columns))

    @property
    def frozen(self) -> bool:
        """True once the layer holds `trits` and `beta` in place of `weight`."""
        return self.weight is None

    @torch.no_grad()
    def freeze(self, *, trits: Tensor | None = None, beta: Tensor | float | None = None) -> None:
        """Replace `weight` by its ternarisation, or by the given `trits` (int8 [outputs, inputs]) and `beta`."""
        if (trits is None) != (beta is None):
            raise SternaError("freeze needs both trits and beta, or neither")
        if trits is None or beta is None:
            if self.weight is None:
                return
            trits, beta = ternarise(self.weight)
        if tuple(trits.shape) != self.shape:
            raise SternaError(f"trits are {list(trits.shape)}, the layer is {list(self.shape)}")
        if int(trits.abs().max()) > 1:
            raise SternaError("trits must be -1, 0 or 1")
        device, dtype = self.norm.weight.device, self.norm.weight.dtype
        self.trits = trits.to(device, torch.int8)
        self.beta = torch.as_tensor(beta, dtype=dtype, device=device)
        self.weight = None
        self._multiplier = None

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Quantise x per token and multiply by the ternary weights."""
        u: Tensor = self.norm(x)
        dtype = dtype or u.dtype
        y: Tensor
        if self.weight is not None:
            y = _TernaryLinear.apply(u, self.weight, dtype)  # type: ignore[no-untyped-call]  # torch: no types
            return y
        y = _FixedLinear.apply(u, self._operand(u), self.beta, dtype)  # type: ignore[no-untyped-call]  # torch
        return y

    def _operand(self, u: Tensor) -> Tensor:
        """The trits in the type that the product wants: converted once for the inference on a CPU."""
        assert self.trits is not None
        if self.fixed is not None or u.is_cuda:
            return self.trits
        cached = self._multiplier
        if cached is None or cached.dtype != u.dtype:
            self._multiplier = cached = self.trits.to(u.dtype)
        return cached
