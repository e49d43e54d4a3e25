"""Which weights of a model are fixed and which layers have no GLU (docs/reservoir.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.spec import generator

__all__ = ["RESERVOIR_MODEL_TYPE", "Reservoir"]

RESERVOIR_MODEL_TYPE = "hgrn_bit_reservoir"
_GLU_KINDS = ("gate", "down")


@dataclass(frozen=True, kw_only=True)
class Reservoir:
    """The key ``reservoir`` of ``config.json``.

    Raises:
        SternaError: a value makes no sense by itself; :meth:`check` compares with the number of layers.
    """

    seed: int = 1
    shared: bool = True  # one stream of trits for each kind of projection, whatever the layer
    fixed: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # projection: its layers with generated trits
    mixer_only: tuple[int, ...] = ()  # layers without a GLU

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or not 0 <= self.seed < 1 << 32:
            raise SternaError(f"reservoir: seed must be an integer of 32 bits, not {self.seed!r}")
        if not isinstance(self.shared, bool):
            raise SternaError(f"reservoir: shared must be true or false, not {self.shared!r}")
        if not isinstance(self.fixed, Mapping) or (unknown := set(self.fixed) - set(generator.KINDS)):
            what = f"has the unknown projection {min(unknown)!r}" if isinstance(self.fixed, Mapping) else "is no table"
            raise SternaError(f"reservoir: fixed {what}; it maps {', '.join(generator.KINDS)} to lists of layers")
        object.__setattr__(self, "fixed", {kind: _layers(f"fixed.{kind}", v) for kind, v in self.fixed.items()})
        object.__setattr__(self, "mixer_only", _layers("mixer_only", self.mixer_only))
        for kind in _GLU_KINDS:
            if missing := set(self.fixed.get(kind, ())) & set(self.mixer_only):
                raise SternaError(f"reservoir: layer {min(missing)} is mixer_only and has no {kind} to fix")

    @classmethod
    def from_dict(cls, values: object) -> Reservoir:
        """Take over the parsed table; ``to_dict`` is its inverse."""
        if not isinstance(values, Mapping):
            raise SternaError(f"reservoir must be a table, not {values!r}")
        if unknown := set(values) - set(cls.__dataclass_fields__):
            raise SternaError(
                f"reservoir: unknown key {min(unknown)!r}; there are {', '.join(cls.__dataclass_fields__)}"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        fixed = {kind: list(layers) for kind, layers in self.fixed.items()}
        return {"seed": self.seed, "shared": self.shared, "fixed": fixed, "mixer_only": list(self.mixer_only)}

    def check(self, layers: int) -> None:
        """Refuse layers that a model of so many does not have."""
        lists = {f"fixed.{kind}": listed for kind, listed in self.fixed.items()} | {"mixer_only": self.mixer_only}
        for name, listed in lists.items():
            if listed and max(listed) >= layers:
                raise SternaError(f"reservoir: {name} lists layer {max(listed)}; the last of {layers} is {layers - 1}")

    def is_fixed(self, kind: str, layer: int) -> bool:
        """Whether the trits of this projection are generated."""
        return layer in self.fixed.get(kind, ())

    def stream(self, kind: str, layer: int) -> int | None:
        """Where the trits of a projection come from: a stream of the generator, None if they are no generated ones."""
        return generator.stream(kind, layer, shared=self.shared) if self.is_fixed(kind, layer) else None

    def packed(self, kind: str, layer: int, rows: int, columns: int) -> npt.NDArray[np.uint8]:
        """Generated trits of a fixed projection, uint8 [rows, ceil(columns / 5)]."""
        stream = generator.stream(kind, layer, shared=self.shared)
        return generator.fixed_rows(self.seed, stream, range(rows), columns)


def _layers(name: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not all(
        isinstance(value, int) and not isinstance(value, bool) and value >= 0 for value in values
    ):
        raise SternaError(f"reservoir: {name} must be a list of layer numbers, not {values!r}")
    return tuple(sorted(set(values)))
