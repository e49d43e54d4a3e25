"""The golden model behind the engine contract."""

from __future__ import annotations

import numpy as np

from sterna.engines.engine import Step
from sterna.golden.model import GoldenModel, Trace
from sterna.model.geometry import Geometry
from sterna.model.store import Model
from sterna.spec.numerics import IntArray


class GoldenEngine:
    """The specification itself, one sequence, in NumPy: slow, and the yardstick of the others."""

    def __init__(self, model: Model) -> None:
        self._golden = GoldenModel(model)

    @property
    def geometry(self) -> Geometry:
        """Sizes of the model."""
        return self._golden.model.geometry

    @property
    def state(self) -> IntArray:
        """Recurrent state, int64 [layers, hidden], 16 fractional bits; a copy."""
        return self._golden.state[:, 0].copy()

    @state.setter
    def state(self, state: IntArray) -> None:
        self._golden.state[:, 0] = state

    def reset(self) -> None:
        """Forget the sequence."""
        self._golden.reset()

    def step(self, token: int, *, logits: bool = False) -> Step:
        """Run one token; see :class:`sterna.engines.engine.Engine`."""
        trace = Trace()
        values = self._golden.step([token], trace=trace)[0]
        return Step(
            int(values.argmax()), values.astype(np.int32) if logits else None, {"saturations": trace.saturations}
        )

    def close(self) -> None:
        """Nothing is held."""
