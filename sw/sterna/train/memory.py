"""How much memory a run takes, and the sentence for when there is not enough."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sterna.errors import SternaError
from sterna.train.config import TrainConfig

__all__ = ["enough_memory", "memory_bytes"]

# Of errors that are no class of their own: torch's CPU allocator, the CUDA driver, cuBLAS.
_WORDS = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def memory_bytes(device: torch.device) -> int:
    """Peak memory of this process so far: allocated on a CUDA device, else resident."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes there, KiB on Linux


@contextmanager
def enough_memory(config: TrainConfig) -> Iterator[None]:
    """Turn running out of memory into a sentence that says what takes less."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not any(words in str(error) for words in _WORDS):
            raise
        raise SternaError(
            f"out of memory: lower micro_batch (now {config.micro_batch} sequences of {config.context} tokens) or set "
            f'checkpointing (now "{config.checkpointing}") to "selective" or "full"; the state saved last is kept'
        ) from error
