"""Errors, ranges and flips of traced values, summed up part by part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.model.store import Model
from sterna.spec.numerics import GATE_FRAC, GATE_IN_FRAC, LOGIT_FRAC, STATE_FRAC, VALUE_MAX

FORGET = "f"


@dataclass(frozen=True)
class Place:
    """Where a result stands: "layer 3 output gate" is the output gate of layer 3; others have no layer."""

    layer: int | None
    quantity: str

    @classmethod
    def of(cls, name: str) -> Place:
        """The place that a name of :class:`sterna.golden.model.Trace` means."""
        if not name.startswith("layer "):
            return cls(None, name)
        _, layer, quantity = name.split(" ", 2)
        return cls(int(layer), quantity)


def fractional_bits(model: Model, place: Place) -> int:
    """Binary point of a result (docs/numerics.md, "Formats")."""
    if place.layer is None:
        return LOGIT_FRAC if place.quantity == "logits" else model.residual_frac
    layer = model.layers[place.layer]
    points = {FORGET: GATE_FRAC, "state": STATE_FRAC, "output gate": layer.product_frac, "gate": GATE_IN_FRAC}
    if layer.glu is not None:
        points["gated"] = layer.glu.glu_frac
    return points.get(place.quantity, model.residual_frac)


class ValueSum:
    """Sums over one result: ours as integers, the reference as floats."""

    def __init__(self, place: Place, frac: int) -> None:
        self.place, self.frac = place, frac
        self._count = self._clamped = 0
        self._largest = 0
        self._worst = self._squares = self._errors = 0.0

    def add(self, ours: npt.NDArray[np.int64], theirs: npt.NDArray[np.float32], clamped: int) -> None:
        """Both [positions, rows]."""
        expected = theirs.astype(np.float64)
        error = np.ldexp(ours.astype(np.float64), -self.frac) - expected
        self._count += ours.size
        self._clamped += clamped
        self._largest = max(self._largest, int(np.abs(ours).max(initial=0)))
        self._worst = max(self._worst, float(np.abs(error).max(initial=0.0)))
        self._squares += float(np.sum(expected * expected))
        self._errors += float(np.sum(error * error))

    def result(self) -> dict[str, Any]:
        """See :func:`sterna.quality.report.measure`."""
        bounded = self.place.quantity == FORGET  # 0..1 whatever comes
        return {
            "layer": self.place.layer,
            "quantity": self.place.quantity,
            "fractional_bits": self.frac,
            "largest": math.ldexp(self._largest, -self.frac),
            "rms": math.sqrt(self._squares / self._count),
            "headroom_bits": math.log2(VALUE_MAX / self._largest) if self._largest and not bounded else None,
            "clamped": self._clamped,
            "sqnr_db": 10 * math.log10(self._squares / self._errors) if self._errors and self._squares else None,
            "worst_error": self._worst,
        }


class ActivationSum:
    """Sums over the 8-bit inputs of one projection."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = self._flipped = self._steps = 0

    def add(self, ours: npt.NDArray[np.int8], theirs: npt.NDArray[np.int8]) -> None:
        """Both [positions, columns]."""
        steps = np.abs(ours.astype(np.int16) - theirs)
        self._count += steps.size
        self._flipped += int(np.count_nonzero(steps))
        self._steps = max(self._steps, int(steps.max(initial=0)))

    def result(self) -> dict[str, Any]:
        """See :func:`sterna.quality.report.measure`."""
        layer = self._name.split(".")[1] if "." in self._name else None
        return {
            "projection": self._name,
            "layer": None if layer is None else int(layer),
            "flipped": self._flipped / self._count,
            "largest_step": self._steps,
        }
