"""Errors, ranges and flips of traced values, summed up part by part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.model.store import Model
from sterna.spec.numerics import GATE_FRAC, GATE_IN_FRAC, LOGIT_FRAC, STATE_FRAC, VALUE_MAX, IntArray

Floats = npt.NDArray[Any]
Quantised = npt.NDArray[np.int8]

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


class _Error:
    """Power of a signal and of what differs from it."""

    def __init__(self) -> None:
        self._signal = self._error = 0.0
        self.worst: float | None = None

    def add(self, expected: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> None:
        error = found - expected
        self.worst = max(self.worst or 0.0, float(np.abs(error).max(initial=0.0)))
        self._signal += float(np.sum(expected * expected))
        self._error += float(np.sum(error * error))

    def decibels(self) -> float | None:
        """Signal over error; None where either is nothing."""
        return 10 * math.log10(self._signal / self._error) if self._signal and self._error else None


class ValueSum:
    """Sums over one result: ours as integers, the references as floats."""

    def __init__(self, place: Place, frac: int) -> None:
        self.place, self.frac = place, frac
        self._count = self._clamped = self._largest = 0
        self._squares = 0.0
        self._error, self._baseline = _Error(), _Error()

    def add(self, ours: IntArray, theirs: Floats, clamped: int, exact: Floats | None) -> None:
        """All [positions, rows]; ``exact`` is the float64 reference, if there is one."""
        expected = theirs.astype(np.float64)
        self._count += ours.size
        self._clamped += clamped
        self._largest = max(self._largest, int(np.abs(ours).max(initial=0)))
        self._squares += float(np.sum(expected * expected))
        self._error.add(expected, np.ldexp(ours.astype(np.float64), -self.frac))
        if exact is not None:
            self._baseline.add(expected, exact)

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
            "sqnr_db": self._error.decibels(),
            "worst_error": self._error.worst,
            "baseline_sqnr_db": self._baseline.decibels(),
        }


class ActivationSum:
    """Sums over the 8-bit inputs of one projection."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = self._flipped = self._steps = 0
        self._baseline: int | None = None

    def add(self, ours: Quantised, theirs: Quantised, exact: Quantised | None) -> None:
        """All [positions, columns]; ``exact`` is the float64 reference, if there is one."""
        steps = np.abs(ours.astype(np.int16) - theirs)
        self._count += steps.size
        self._flipped += int(np.count_nonzero(steps))
        self._steps = max(self._steps, int(steps.max(initial=0)))
        if exact is not None:
            self._baseline = (self._baseline or 0) + int(np.count_nonzero(theirs != exact))

    def result(self) -> dict[str, Any]:
        """See :func:`sterna.quality.report.measure`."""
        layer = self._name.split(".")[1] if "." in self._name else None
        return {
            "projection": self._name,
            "layer": None if layer is None else int(layer),
            "flipped": self._flipped / self._count,
            "largest_step": self._steps,
            "baseline_flipped": None if self._baseline is None else self._baseline / self._count,
        }


class ChoiceSum:
    """How often the same token is chosen, and the widest margin of the reference at which it is not."""

    def __init__(self) -> None:
        self.equal = 0
        self.widest = 0.0  # 0 where every choice is the same

    def add(self, expected: npt.NDArray[Any], found: npt.NDArray[Any]) -> None:
        """Add logits [positions, vocabulary] of the reference and of what is compared with it."""
        second, first = np.partition(expected, -2, axis=-1)[:, -2:].T
        other = found.argmax(axis=-1) != expected.argmax(axis=-1)
        self.equal += int(np.count_nonzero(~other))
        self.widest = max(self.widest, float(np.max((first - second)[other], initial=0.0)))
