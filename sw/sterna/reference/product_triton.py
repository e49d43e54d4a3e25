"""CUDA kernel of the ternary product: int8 tensor cores, exact int32 sums, scaled and rounded once as they leave.

A plain tiled product; both operands are read along their rows, as the int8 tensor cores want them. The tiles are taken
in groups of rows, so that the trits of a column of tiles stay in the L2 cache.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are compiled by Triton from their syntax; their parameters have no Python types.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["product"]

_GROUP = 8  # rows of tiles


def _tiling(rows: int, outputs: int, inputs: int, *, warps: int, stages: int) -> triton.Config:
    sizes = {"BLOCK_N": rows, "BLOCK_O": outputs, "BLOCK_K": inputs}
    return triton.Config(sizes, num_warps=warps, num_stages=stages)


@triton.autotune(
    configs=[
        _tiling(128, 256, 128, warps=8, stages=3),
        _tiling(128, 256, 64, warps=8, stages=4),
        _tiling(256, 128, 128, warps=8, stages=3),
        _tiling(128, 128, 128, warps=8, stages=4),
        _tiling(128, 128, 128, warps=4, stages=3),
        _tiling(64, 64, 64, warps=4, stages=4),
    ],
    key=["size", "outputs", "inputs"],
)
@triton.jit
def _product_kernel(
    q_ptr,
    trits_ptr,
    scale_ptr,
    y_ptr,
    tokens,
    size,  # tokens rounded up to a power of two: what the tiling is chosen by
    outputs,
    inputs,
    GROUP: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    across = tl.cdiv(outputs, BLOCK_O)
    tile = tl.program_id(0)
    first = tile // (GROUP * across) * GROUP
    height = min(tl.cdiv(tokens, BLOCK_N) - first, GROUP)
    row = first + tile % (GROUP * across) % height
    column = tile % (GROUP * across) // height
    n = (row * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    o = (column * BLOCK_O + tl.arange(0, BLOCK_O)).to(tl.int64)
    k = tl.arange(0, BLOCK_K)
    # Rows beyond the end read a valid one instead of a mask; what they give is not stored.
    q_at = q_ptr + (n % tokens)[:, None] * inputs + k[None, :]
    trits_at = trits_ptr + (o % outputs)[None, :] * inputs + k[:, None]
    total = tl.zeros((BLOCK_N, BLOCK_O), dtype=tl.int32)
    for start in range(0, inputs, BLOCK_K):
        left = inputs - start
        q = tl.load(q_at, mask=k[None, :] < left, other=0)
        trits = tl.load(trits_at, mask=k[:, None] < left, other=0)
        total = tl.dot(q, trits, total, out_dtype=tl.int32)
        q_at += BLOCK_K
        trits_at += BLOCK_K
    scale = tl.load(scale_ptr + n, mask=n < tokens, other=0.0)
    y = total.to(tl.float32) * scale[:, None]
    inside = (n < tokens)[:, None] & (o < outputs)[None, :]
    tl.store(y_ptr + n[:, None] * outputs + o[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)


def product(q: Tensor, trits: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """y [..., out] in `dtype`; see `sterna.reference.product`. Operands are contiguous, rows a multiple of 16 bytes."""
    outputs, inputs = trits.shape
    tokens = q.numel() // inputs
    y = torch.empty((*q.shape[:-1], outputs), dtype=dtype, device=q.device)

    def grid(sizes: dict[str, int]) -> tuple[int]:
        return (triton.cdiv(tokens, sizes["BLOCK_N"]) * triton.cdiv(outputs, sizes["BLOCK_O"]),)

    _product_kernel[grid](q, trits, scale, y, tokens, triton.next_power_of_2(tokens), outputs, inputs, GROUP=_GROUP)
    return y
