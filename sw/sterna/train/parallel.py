"""One run on several processes (started by torchrun): who computes which rows, and how gradients come together.

Every process draws the same batch of the same step and takes its own rows of it, so the mean gradient is that of one
process, up to the order of sums. A run of one process is the case of one rank, with nothing to exchange.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.nn.parallel import DistributedDataParallel

from sterna.errors import SternaError
from sterna.reference.modeling import HGRNBitForCausalLM
from sterna.train.config import Parallelism

__all__ = ["Loss", "Ranks", "join"]

_TIMEOUT = timedelta(minutes=30)  # of an exchange in training: the other process is gone or stuck
_PATIENCE = timedelta(days=1)  # while the first process alone prepares data or scores the result


class Loss(nn.Module):
    """The model's loss as a forward pass, which is what the engines wrap."""

    def __init__(self, model: HGRNBitForCausalLM, *, dtype: torch.dtype | None, head: Callable[..., Tensor]) -> None:
        super().__init__()
        self.model = model
        self._dtype = dtype
        self._head = head

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean loss in nats of `targets` [batch, time] after `ids`."""
        return self.model.loss(ids, targets, dtype=self._dtype, head=self._head)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1
    patient: dist.ProcessGroup | None = None  # waits for long work of one process

    @property
    def leads(self) -> bool:
        """True in the one process that writes files and talks."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """The rows of a batch that are this process's."""
        if batch % self.world:
            raise SternaError(f"batch ({batch}) must be a multiple of the number of processes ({self.world})")
        share = batch // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def wrap(self, loss: Loss, mode: Parallelism) -> nn.Module:
        """Make the backward pass of `loss` leave the mean gradient of all processes; before the optimiser is made."""
        if self.world == 1:
            return loss
        if mode == "ddp":
            return DistributedDataParallel(loss, gradient_as_bucket_view=True)
        # Each block is gathered whole for its passes, so beta of a BitLinear is the mean of its whole weight, as ever.
        for layer in loss.model.model.layers:
            fully_shard(layer)
        fully_shard(loss.model, reshard_after_forward=True)  # embedding, head, norm; also after a validation
        register_fsdp_forward_method(loss.model, "loss")
        return loss

    def accumulate(self, loss: nn.Module, *, last: bool) -> AbstractContextManager[object]:
        """Around each pass of a step: whole models exchange gradients in the last, shards in each, to save memory."""
        if isinstance(loss, DistributedDataParallel) and not last:
            return loss.no_sync()
        return nullcontext()

    def mean(self, value: Tensor) -> float:
        """Mean of a scalar over the processes; waits for the device."""
        return float(self.total(value)) / self.world

    def total(self, value: Tensor) -> Tensor:
        """Sum of a tensor over the processes."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def largest(self, value: float) -> float:
        """The largest `value` of any process, for decisions that all must take alike."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return float(shared)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Run the block in the first process while the others wait, then in the others."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def wait(self) -> None:
        """Return when all processes are here; patient."""
        if self.world > 1:
            dist.barrier(group=self.patient)


@contextmanager
def join(device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the processes that torchrun started, if it did; gives the ranks and this process's device.

    Raises:
        SternaError: the machine has fewer GPUs than processes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(), device
        return
    if device.startswith("cuda"):
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise SternaError(f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}")
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo", timeout=_TIMEOUT)
    patient = dist.new_group(backend="gloo", timeout=_PATIENCE)
    yield Ranks(rank=dist.get_rank(), world=world, patient=patient), device
    dist.destroy_process_group()  # not after an error: the others may never come
