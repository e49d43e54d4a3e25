"""What a training run is made of: sizes, optimiser, schedule, budget, and how the machine is used."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from sterna.errors import SternaError
from sterna.reference.config import HGRNBitConfig

__all__ = ["Checkpointing", "Parallelism", "TrainConfig"]

Checkpointing = Literal["none", "selective", "full"]
Parallelism = Literal["ddp", "fsdp"]

# What may change when a run is resumed: its length, what it reports, and how (not what) the machine computes.
_FREE = {"total_tokens", "max_seconds", "log_steps", "valid_steps", "valid_chunks", "save_seconds"}
_FREE |= {"micro_batch", "compile", "checkpointing", "parallel"}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; a TOML file has the same keys. Sizes are in tokens unless a name says otherwise.

    The learning rate is a function of the elapsed fraction of the budget alone: a linear rise over `warmup`, then a
    cosine down to `final_lr`, halved from `halve_at` on. The fraction is tokens seen over `total_tokens` or, if larger,
    seconds trained over `max_seconds`, so that a run limited by time ends with its schedule complete. Such a run
    follows the clock; one limited by tokens alone is the same bit for bit also when it is killed and resumed.

    Raises:
        SternaError: a value makes no sense.
    """

    model: HGRNBitConfig = field(default_factory=HGRNBitConfig)
    context: int = 1024
    batch: int = 128  # sequences per optimiser step, of all processes together
    micro_batch: int = 64  # sequences per forward and backward pass of a process, at most
    total_tokens: int = 1_500_000_000
    max_seconds: float | None = None  # training time, summed over resumed runs
    lr: float = 4e-3
    final_lr: float = 0.0
    warmup: float = 0.02
    halve_at: float = 1.0  # fraction of the budget from which the rate is half of the cosine's; 1: never
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1  # of ternary weights only
    weight_decay_until: float = 0.5  # fraction of the budget; ternary training ends better without decay
    grad_clip: float = 1.0
    seed: int = 0
    bf16: bool | None = None  # products and their results in bfloat16, the rest float32; None: on CUDA
    compile: bool | None = None  # torch.compile of the layers and of the loss; None: on CUDA
    checkpointing: Checkpointing = "none"  # activations computed again in the backward pass, to save memory
    parallel: Parallelism = "ddp"  # how several processes (torchrun) share the work: whole models, or shards of one
    log_steps: int = 20
    valid_steps: int = 500
    valid_chunks: int = 256
    save_seconds: float = 300.0  # between two saves of the state, at logged steps

    def __post_init__(self) -> None:
        for name in ("context", "batch", "micro_batch", "total_tokens", "log_steps", "valid_steps", "valid_chunks"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SternaError(f"{name} must be a positive integer, not {value!r}")
        if self.batch % self.micro_batch:
            raise SternaError(f"batch ({self.batch}) must be a multiple of micro_batch ({self.micro_batch})")
        for name in ("lr", "grad_clip", "save_seconds"):
            if not getattr(self, name) > 0:
                raise SternaError(f"{name} must be positive, not {getattr(self, name)!r}")
        for name in ("final_lr", "weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise SternaError(f"{name} must not be negative, not {getattr(self, name)!r}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise SternaError(f"max_seconds must be positive, not {self.max_seconds!r}")
        if not 0 <= self.warmup < 1:
            raise SternaError(f"warmup is a fraction of the run in [0, 1), not {self.warmup!r}")
        for name in ("halve_at", "weight_decay_until"):
            if not 0 <= getattr(self, name) <= 1:
                raise SternaError(f"{name} is a fraction of the run in [0, 1], not {getattr(self, name)!r}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise SternaError(f"betas must lie in [0, 1), not {self.betas!r}")

    def fraction(self, *, tokens: int, seconds: float) -> float:
        """Elapsed fraction of the budget; the run ends at 1."""
        share = tokens / self.total_tokens
        return share if self.max_seconds is None else max(share, seconds / self.max_seconds)

    def lr_at(self, fraction: float) -> float:
        """Learning rate at the elapsed fraction of the budget."""
        if fraction < self.warmup:
            return self.lr * fraction / self.warmup
        rest = min(1.0, (fraction - self.warmup) / (1 - self.warmup))
        rate = self.final_lr + (self.lr - self.final_lr) * 0.5 * (1 + math.cos(math.pi * rest))
        return rate / 2 if self.halve_at < 1 and fraction >= self.halve_at else rate

    def resolved(self, device_type: str) -> TrainConfig:
        """The same run with `bf16` and `compile` decided for the type of device."""
        cuda = device_type == "cuda"
        return replace(
            self,
            bf16=cuda if self.bf16 is None else self.bf16,
            compile=cuda if self.compile is None else self.compile,
        )

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """The values that decide what is computed, by dotted key: those that must not change within a run."""
        values = self.to_dict()
        sizes = {f"model.{key}": value for key, value in values.pop("model").items()}
        return {key: value for key, value in values.items() if key not in _FREE} | sizes
