"""Configuration of an HGRNBit model, as its `config.json` states it.

Source: the MatMul-free language model, arXiv 2406.02528, and the `hgrn_bit` model type of its published code. Keys that
change what is computed are checked; a value that this reference does not implement is an error, never ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sterna.errors import SternaError
from sterna.model.geometry import MODEL_TYPE, check_supported, default_inner
from sterna.model.reservoir import RESERVOIR_MODEL_TYPE, Reservoir

__all__ = ["HGRNBitConfig"]


@dataclass(frozen=True, kw_only=True)
class HGRNBitConfig:
    """Sizes and constants of one model; every field has the meaning of the key of the same name in `config.json`."""

    vocab_size: int = 32000
    hidden_size: int = 2048
    num_hidden_layers: int = 24
    hidden_ratio: int | float = 4
    intermediate_size: int | None = None
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    max_position_embeddings: int = 2048
    bos_token_id: int | None = 0
    eos_token_id: int | None = 0
    pad_token_id: int | None = None
    reservoir: Reservoir | None = None  # None: every weight is trained (docs/reservoir.md)

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SternaError(f"{name} must be a positive integer, not {value!r}")
        size = self.intermediate_size
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise SternaError(f"intermediate_size must be a positive integer or null, not {size!r}")
        for name in ("hidden_ratio", "rms_norm_eps", "initializer_range"):
            number = getattr(self, name)
            if not isinstance(number, (int, float)) or isinstance(number, bool) or not number > 0:
                raise SternaError(f"{name} must be a positive number, not {number!r}")
        if self.reservoir is not None:
            if not isinstance(self.reservoir, Reservoir):
                object.__setattr__(self, "reservoir", Reservoir.from_dict(self.reservoir))
            self.reservoir.check(self.num_hidden_layers)

    @property
    def inner_size(self) -> int:
        """Width of the GLU: `intermediate_size`, or int(hidden_size * hidden_ratio * 2/3) rounded up to 256."""
        if self.intermediate_size is not None:
            return self.intermediate_size
        return default_inner(self.hidden_size, self.hidden_ratio)

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, source: str = "config.json") -> HGRNBitConfig:
        """Build from the parsed `config.json`; `source` names it in errors. Keys without effect here are ignored."""
        check_supported(values, source=source)
        if not values.get("use_lower_bound", True):
            raise SternaError(f"{source}: use_lower_bound is false, the reference has lower bounds always")
        for key in ("vocab_size", "hidden_size", "num_hidden_layers"):
            if key not in values:
                raise SternaError(f"{source}: the key {key} is missing")
        fields = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        for name in ("bos_token_id", "eos_token_id"):
            if isinstance(fields.get(name), list):
                raise SternaError(f"{source}: {name} is a list, only one id is supported")
        return cls(**fields)

    @classmethod
    def from_file(cls, path: str | Path) -> HGRNBitConfig:
        """Read `config.json`, or the one in the directory `path`."""
        path = Path(path)
        if path.is_dir():
            path = path / "config.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SternaError(f"no config.json at {path}") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise SternaError(f"{path} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise SternaError(f"{path} holds no JSON object")
        return cls.from_dict(values, source=str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the `config.json` that the published class writes for this model (weights in bfloat16)."""
        extra = {"reservoir": self.reservoir.to_dict()} if self.reservoir else {}
        return extra | {
            "architectures": ["HGRNBitForCausalLM"],
            "attn_mode": "fused_recurrent",
            "bos_token_id": self.bos_token_id,
            "conv_size": 4,
            "dtype": "bfloat16",
            "eos_token_id": self.eos_token_id,
            "expand_ratio": 1,
            "fuse_cross_entropy": False,
            "hidden_act": "swish",
            "hidden_ratio": self.hidden_ratio,
            "hidden_size": self.hidden_size,
            "initializer_range": self.initializer_range,
            "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_position_embeddings,
            "model_type": RESERVOIR_MODEL_TYPE if self.reservoir else MODEL_TYPE,
            "num_heads": 1,
            "num_hidden_layers": self.num_hidden_layers,
            "pad_token_id": self.pad_token_id,
            "rms_norm_eps": self.rms_norm_eps,
            "share_conv_kernel": True,
            "tie_word_embeddings": False,
            "use_cache": True,
            "use_lower_bound": True,
            "use_short_conv": False,
            "vocab_size": self.vocab_size,
        }
