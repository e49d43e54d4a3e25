"""What a run needs to go on after a kill: weights, optimiser, step and time, with the values that define the run.

Nothing of a run draws random numbers after its start (batches are a function of seed and step), so there is no
generator to save. The tensors are whole, whatever number of processes held them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from sterna.errors import SternaError
from sterna.train.files import atomic

__all__ = ["STATE_FILE", "collect", "read", "restore", "weights", "write"]

STATE_FILE = "state.pt"


def weights(model: nn.Module) -> dict[str, Any]:
    """All weights of `model`, whole and on the CPU; in other processes than the first perhaps empty. All must call."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def collect(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Weights and optimiser state, as `weights`; all processes must call."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    # Before its first step an optimiser has no state, and asking would make it take a step.
    moments = get_optimizer_state_dict(model, optimizer, options=options) if optimizer.state else None
    return {"model": weights(model), "optimizer": moments}


def write(path: Path, state: Mapping[str, Any], *, identity: Mapping[str, Any]) -> None:
    """Write `state` for a run that is defined by `identity`; an earlier file survives until this one is on the disk."""
    try:
        with atomic(path) as stream:
            torch.save({**state, "identity": json.dumps(identity)}, stream)
    except RuntimeError as error:  # torch's word for a full disk, among others
        raise SternaError(f"the training state {path} cannot be written: {str(error).splitlines()[0]}") from error


def read(path: Path, *, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Read what `write` wrote, mapped from the file where it can be.

    Raises:
        SternaError: no such file, not a state, or the state of another run; names the value that differs.
    """
    if not path.is_file():
        raise SternaError(f"no training state to resume at {path}")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        theirs = json.loads(state["identity"])
    except Exception as error:  # torch.load raises many kinds
        raise SternaError(f"{path} is not a training state: {error}") from error
    mine = json.loads(json.dumps(identity))
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key):
            raise SternaError(
                f"{path} belongs to another run: {key} is {theirs.get(key)!r} there, {mine.get(key)!r} here"
            )
    return state


def restore(state: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the tensors of `state` into `model` and `optimizer`; all processes must call."""
    options = StateDictOptions(full_state_dict=True)
    if state["optimizer"] is not None:
        set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)
    set_model_state_dict(model, state["model"], options=options)  # last: a fresh optimiser is filled by taking a step
