"""CUDA kernels of the recurrence: gates and scan in one pass over memory, forward and backward.

One program handles one sequence and BLOCK_D channels. It walks over time in blocks of BLOCK_T steps; inside a block the
linear recurrence is an associative scan, between blocks the state is carried in float32. The backward pass reads the
saved h and the gate inputs, recomputes the gates and walks from the end.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"
# Kernels are compiled by Triton from their syntax; their parameters have no Python types.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["backward", "forward"]

_BLOCK_T = 64
_BLOCK_D = 32
_WARPS = 4


@triton.jit
def _combine(f1, x1, f2, x2):
    return f1 * f2, f2 * x1 + x2


@triton.jit
def _forward_kernel(
    i_ptr, f_ptr, lower_ptr, state_ptr, h_ptr, time, channels, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr
):
    cols = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    seq = tl.program_id(1).to(tl.int64)
    live = cols < channels
    lower = tl.load(lower_ptr + cols, mask=live, other=0.0).to(tl.float32)[None, :]
    h = tl.load(state_ptr + seq * channels + cols, mask=live, other=0.0).to(tl.float32)
    steps = tl.arange(0, BLOCK_T)
    for t0 in range(0, time, BLOCK_T):
        rows = t0 + steps
        mask = (rows < time)[:, None] & live[None, :]
        at = (seq * time + rows)[:, None] * channels + cols[None, :]
        i = tl.load(i_ptr + at, mask=mask, other=0.0).to(tl.float32)
        f = tl.load(f_ptr + at, mask=mask, other=0.0).to(tl.float32)
        forget = lower + (1.0 - lower) * tl.sigmoid(f)
        x = i * tl.sigmoid(i) * (1.0 - forget)
        decay, local = tl.associative_scan((forget, x), 0, _combine)
        out = local + decay * h[None, :]
        tl.store(h_ptr + at, out, mask=mask)
        h = tl.sum(tl.where((steps == BLOCK_T - 1)[:, None], out, 0.0), 0)


@triton.jit
def _backward_kernel(
    dh_ptr,
    h_ptr,
    i_ptr,
    f_ptr,
    lower_ptr,
    state_ptr,
    di_ptr,
    df_ptr,
    dlower_ptr,
    dstate_ptr,
    time,
    channels,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    cols = tl.program_id(0) * BLOCK_D + tl.arange(0, BLOCK_D)
    seq = tl.program_id(1).to(tl.int64)
    live = cols < channels
    lower = tl.load(lower_ptr + cols, mask=live, other=0.0).to(tl.float32)[None, :]
    state = tl.load(state_ptr + seq * channels + cols, mask=live, other=0.0).to(tl.float32)
    steps = tl.arange(0, BLOCK_T)
    carry = tl.zeros([BLOCK_D], tl.float32)  # gradient that reaches h[t] from h[t + 1], at the block's last t
    dlower = tl.zeros([BLOCK_D], tl.float32)
    blocks = tl.cdiv(time, BLOCK_T)
    for block in range(0, blocks):
        rows = (blocks - 1 - block) * BLOCK_T + steps
        mask = (rows < time)[:, None] & live[None, :]
        at = (seq * time + rows)[:, None] * channels + cols[None, :]
        i = tl.load(i_ptr + at, mask=mask, other=0.0).to(tl.float32)
        f = tl.load(f_ptr + at, mask=mask, other=0.0).to(tl.float32)
        dh = tl.load(dh_ptr + at, mask=mask, other=0.0).to(tl.float32)
        before = tl.load(h_ptr + at - channels, mask=mask & (rows > 0)[:, None], other=0.0).to(tl.float32)
        before = tl.where((rows == 0)[:, None], state[None, :], before)
        f_next = tl.load(f_ptr + at + channels, mask=mask & (rows + 1 < time)[:, None], other=0.0).to(tl.float32)
        g = tl.sigmoid(f)
        forget = lower + (1.0 - lower) * g
        # total[t] = dh[t] + forget[t + 1] * total[t + 1]. The block's last step has no successor inside the block: its
        # factor is 1 and the carry already holds the product.
        factor = lower + (1.0 - lower) * tl.sigmoid(f_next)
        factor = tl.where((steps == BLOCK_T - 1)[:, None], 1.0, factor)
        decay, local = tl.associative_scan((factor, dh), 0, _combine, reverse=True)
        total = local + decay * carry[None, :]
        carry = tl.sum(tl.where((steps == 0)[:, None], total * forget, 0.0), 0)
        sig = tl.sigmoid(i)
        dforget = total * (before - i * sig)
        tl.store(di_ptr + at, total * (1.0 - forget) * sig * (1.0 + i * (1.0 - sig)), mask=mask)
        tl.store(df_ptr + at, dforget * (1.0 - lower) * g * (1.0 - g), mask=mask)
        dlower += tl.sum(tl.where(mask, dforget * (1.0 - g), 0.0), 0)
    tl.store(dlower_ptr + seq * channels + cols, dlower, mask=live)
    tl.store(dstate_ptr + seq * channels + cols, carry, mask=live)


def _grid(i: Tensor) -> tuple[int, int]:
    return triton.cdiv(i.shape[2], _BLOCK_D), i.shape[0]


def forward(i: Tensor, f: Tensor, lower: Tensor, state: Tensor) -> Tensor:
    """h [batch, time, channels] from contiguous gate inputs; see `recurrence`."""
    h = torch.empty_like(i)
    _, time, channels = i.shape
    _forward_kernel[_grid(i)](
        i, f, lower, state.contiguous(), h, time, channels, BLOCK_T=_BLOCK_T, BLOCK_D=_BLOCK_D, num_warps=_WARPS
    )
    return h


def backward(
    dh: Tensor, h: Tensor, i: Tensor, f: Tensor, lower: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of (i, f, lower, state)."""
    batch, time, channels = i.shape
    di, df = torch.empty_like(i), torch.empty_like(f)
    dlower = torch.empty((batch, channels), dtype=torch.float32, device=i.device)
    dstate = torch.empty((batch, channels), dtype=state.dtype, device=i.device)
    _backward_kernel[_grid(i)](
        dh,
        h,
        i,
        f,
        lower,
        state.contiguous(),
        di,
        df,
        dlower,
        dstate,
        time,
        channels,
        BLOCK_T=_BLOCK_T,
        BLOCK_D=_BLOCK_D,
        num_warps=_WARPS,
    )
    return di, df, dlower.sum(0).to(lower.dtype), dstate
