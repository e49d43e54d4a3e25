"""What a block keeps for its backward pass.

    none       what autograd, or the partitioner of torch.compile, chooses
    selective  the block's input, the outputs of the ternary products and the statistics of each token; norms, 8-bit
               activations, trits, the recurrence and the gates are computed again in the backward pass
    full       the block's input alone; everything is computed again

The gradients are the same in every mode. Kept in selective mode, in bytes a token, with a float32 residual and bfloat16
products: 4 d of input, 2 (4 d + 2 inner) of products, about 50 of statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import sterna.reference.product  # noqa: F401 - defines the operator below
from sterna.errors import SternaError

__all__ = ["MODES", "checkpointed", "require_mode"]

MODES = ("none", "selective", "full")

Result = TypeVar("Result")


def require_mode(mode: str) -> None:
    """Refuse what is no mode."""
    if mode not in MODES:
        raise SternaError(f"there is no checkpointing mode {mode!r}; choose one of {', '.join(MODES)}")


def _keep(*operators: Any) -> Callable[[], Any]:
    """Make the contexts of a checkpoint that keeps the results of `operators` and computes the rest again."""

    def policy(_context: Any, operator: Any, *_args: Any, **_options: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if operator in operators else CheckpointPolicy.PREFER_RECOMPUTE

    return partial(create_selective_checkpoint_contexts, policy)


# "full" has a policy too: without one, torch.compile of torch 2.11 keeps some products all the same.
_CONTEXTS = {
    "selective": _keep(
        torch.ops.sterna.ternary_product.default,
        torch.ops.aten.mean.default,  # beta of the weights
        torch.ops.aten.mean.dim,  # norms and activation scales: four bytes a token each
        torch.ops.aten.amax.default,
    ),
    "full": _keep(),
}


def checkpointed(mode: str, function: Callable[..., Result], *arguments: object) -> Result:
    """Return function(*arguments), which keeps for its backward pass what `mode` says."""
    if mode == "none" or not torch.is_grad_enabled():
        return function(*arguments)
    result: Result = checkpoint(
        function,
        *arguments,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing here draws random numbers
        context_fn=_CONTEXTS[mode],
    )
    return result
