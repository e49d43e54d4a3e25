"""What a training run is made of: model sizes, optimiser, schedule, budget; with named presets."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sterna.errors import SternaError
from sterna.reference.config import HGRNBitConfig

__all__ = ["PRESETS", "TrainConfig", "preset"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. Sizes are in tokens unless a name says otherwise.

    The learning rate is a function of the elapsed fraction of the budget alone: a linear rise over `warmup`, then a
    cosine down to `final_lr`. The fraction is tokens seen over `total_tokens` or, if larger, seconds trained over
    `max_seconds`, so that a run limited by time ends with its schedule complete.
    """

    model: HGRNBitConfig = field(default_factory=HGRNBitConfig)
    context: int = 1024
    batch: int = 128  # sequences per optimiser step
    micro_batch: int = 64  # sequences per forward and backward pass
    total_tokens: int = 1_500_000_000
    max_seconds: float | None = None  # training time, summed over resumed runs
    lr: float = 4e-3
    final_lr: float = 0.0
    warmup: float = 0.02
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1  # of ternary weights only
    weight_decay_until: float = 0.5  # fraction of the budget; ternary training ends better without decay
    grad_clip: float = 1.0
    seed: int = 0
    bf16: bool = True  # integer products and their results in bfloat16; parameters and residual stay float32
    compile: bool = True
    log_steps: int = 20
    valid_steps: int = 500
    valid_chunks: int = 256
    save_seconds: float = 300.0

    def __post_init__(self) -> None:
        for name in ("context", "batch", "micro_batch", "total_tokens", "log_steps", "valid_steps", "valid_chunks"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise SternaError(f"{name} must be a positive integer, not {value!r}")
        if self.batch % self.micro_batch:
            raise SternaError(f"batch ({self.batch}) must be a multiple of micro_batch ({self.micro_batch})")
        for name in ("lr", "grad_clip"):
            if not getattr(self, name) > 0:
                raise SternaError(f"{name} must be positive, not {getattr(self, name)!r}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise SternaError(f"max_seconds must be positive, not {self.max_seconds!r}")
        if not 0 <= self.warmup < 1:
            raise SternaError(f"warmup is a fraction of the run in [0, 1), not {self.warmup!r}")

    def fraction(self, *, tokens: int, seconds: float) -> float:
        """Elapsed fraction of the budget; the run ends at 1."""
        share = tokens / self.total_tokens
        return share if self.max_seconds is None else max(share, seconds / self.max_seconds)

    def lr_at(self, fraction: float) -> float:
        """Learning rate at the elapsed fraction of the budget."""
        if fraction < self.warmup:
            return self.lr * fraction / self.warmup
        rest = min(1.0, (fraction - self.warmup) / (1 - self.warmup))
        return self.final_lr + (self.lr - self.final_lr) * 0.5 * (1 + math.cos(math.pi * rest))

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON-ready values."""
        return asdict(self)


def _model(**sizes: Any) -> HGRNBitConfig:
    return HGRNBitConfig(**sizes)


PRESETS: dict[str, TrainConfig] = {
    "tiny": TrainConfig(
        model=_model(vocab_size=512, hidden_size=64, num_hidden_layers=2, intermediate_size=128),
        context=64,
        batch=16,
        micro_batch=16,
        total_tokens=200_000,
        bf16=False,
        compile=False,
        valid_steps=50,
        valid_chunks=64,
    ),
    "30m": TrainConfig(model=_model(vocab_size=4096, hidden_size=512, num_hidden_layers=8)),
}


def preset(name: str, **changes: Any) -> TrainConfig:
    """The preset `name` with `changes` to its fields; None means no change."""
    if name not in PRESETS:
        raise SternaError(f"no preset {name!r}; there are {', '.join(sorted(PRESETS))}")
    return replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})
