"""The product of 8-bit activations and trits with its scales, one operator for every device.

    y[n, o] = (sum over k of q[n, k] * trits[o, k]) * scale[n]

On CUDA it is one int8 tensor-core kernel where the shapes allow it: the sum is an exact int32, scaled and rounded once.
Elsewhere it is a product in the type of `scale`, exact up to 2^24 in float32. It is opaque to torch.compile.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["ternary_product"]

_ALIGNMENT = 16  # bytes that a row of an operand must be a multiple of, for vector loads


@torch.library.custom_op("sterna::ternary_product", mutates_args=())
def _ternary_product(q: Tensor, trits: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    if q.is_cuda and q.shape[-1] % _ALIGNMENT == 0 and trits.dtype == torch.int8 and scale.dtype == torch.float32:
        from sterna.reference.product_triton import product

        return product(q, trits, scale, dtype)
    return (F.linear(q.to(scale.dtype), trits.to(scale.dtype)) * scale).to(dtype)


@_ternary_product.register_fake
def _(q: Tensor, trits: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return q.new_empty((*q.shape[:-1], trits.shape[0]), dtype=dtype)


def ternary_product(q: Tensor, trits: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiply and scale: q int8 [..., in], trits [out, in], scale [..., 1] -> y [..., out] in `dtype`.

    `trits` may hold its values in the type of `scale` instead of int8, which spares the conversion on a CPU. There is
    no gradient here: `BitLinear` has the straight-through one.
    """
    y: Tensor = _ternary_product(q.contiguous(), trits, scale, dtype)
    return y
