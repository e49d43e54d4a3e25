"""What runs a model token by token: the contract that golden model, fast engine and accelerator share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from sterna.model.geometry import Geometry
from sterna.spec.numerics import IntArray


@dataclass(frozen=True)
class Step:
    """The result of one token."""

    sampled: int  # token id of the largest logit, the lowest on ties
    logits: (
        npt.NDArray[np.int32] | None
    )  # one a vocabulary entry, numerics.LOGIT_FRAC fractional bits; None unless asked for
    counters: Mapping[str, int] = field(default_factory=dict)  # what the engine can tell of the token; names vary


class Engine(Protocol):
    """A model with its recurrent state. Not safe for use from two threads at once."""

    @property
    def geometry(self) -> Geometry:
        """Sizes of the model."""
        ...

    def reset(self) -> None:
        """Forget the recurrent state; also what makes an engine usable again after an error."""
        ...

    def step(self, token: int, *, logits: bool = False) -> Step:
        """Run one token and advance the state.

        Args:
            token: Its id.
            logits: Return the logits too; without it an engine may skip moving them.

        Raises:
            SternaError: the id is outside the vocabulary, or the device failed.
        """
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


@runtime_checkable
class BatchedEngine(Engine, Protocol):
    """An engine that can read many tokens of the sequence at once, faster than one by one."""

    def prefill(self, tokens: Sequence[int], *, logits: bool = False) -> Step:
        """Run the tokens and advance the state past them; the same as a :meth:`step` for each.

        Args:
            tokens: Their ids, at least one.
            logits: Return the logits of the last token too.

        Returns:
            The result of the last token, with the counters of all. Only its logits are computed: saturations of the
            logits of the others are not counted.

        Raises:
            SternaError: there are no tokens, an id is outside the vocabulary, or the device failed.
        """
        ...


@runtime_checkable
class Resumable(Protocol):
    """An engine whose recurrent state can be read and set, so that texts with one beginning share its cost."""

    state: IntArray  # [layers, hidden], 16 fractional bits; reading and setting copy
