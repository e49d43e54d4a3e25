"""What runs a model token by token: the contract that golden model, fast engine and accelerator share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
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

    def prefill(
        self, tokens: Sequence[int], *, logits: bool = False, progress: Callable[[int], object] | None = None
    ) -> Step:
        """Run the tokens and advance the state past them; the same as a :meth:`step` for each.

        Args:
            tokens: Their ids, at least one.
            logits: Return the logits of the last token too.
            progress: Called with the number of tokens after each piece of them that was run.

        Returns:
            The result of the last token, with the counters of all. The logits of the others may not be computed:
            saturations of theirs may be missing from the counters.

        Raises:
            SternaError: there are no tokens, an id is outside the vocabulary, or the device failed.
        """
        ...


@runtime_checkable
class Resumable(Protocol):
    """An engine whose recurrent state can be read and set, so that texts with one beginning share its cost."""

    state: IntArray  # [layers, hidden], 16 fractional bits; reading and setting copy


class Origin(Enum):
    """What a token in a slot goes on from, if not from a state that some slot held before the pass."""

    FRESH = "fresh"  # an empty state
    CHAIN = "chain"  # the state after the token in the slot before, in the same pass


@dataclass(frozen=True)
class SlotToken:
    """A token for one slot in one pass over the weights; ``origin`` may be the number of a slot."""

    token: int
    origin: Origin | int
    logits: bool = False


@dataclass(frozen=True)
class Pass:
    """The results of one pass by slot; ``counters`` are those of all slots together."""

    sampled: Mapping[int, int]
    logits: Mapping[int, npt.NDArray[np.int32]]
    counters: Mapping[str, int]


@runtime_checkable
class SlotEngine(BatchedEngine, Protocol):
    """An engine that runs a token in each of several slots in one pass over the weights.

    Each slot holds a recurrent state. ``step``, ``prefill`` and ``reset`` treat the engine as one sequence and use the
    slots as they like: a caller of ``run`` leaves them alone.
    """

    @property
    def slots(self) -> int:
        """How many there are."""
        ...

    def run(self, tokens: Mapping[int, SlotToken], *, head: bool = True) -> Pass:
        """Run one token in each slot that is named; the others keep their state.

        Args:
            tokens: By slot, at least one. Any of them may go on from the state that any slot held before the pass.
            head: Compute logits; without it nothing is sampled and the pass is shorter.

        Raises:
            SternaError: an id, slot or origin that does not exist; nothing was started.
            DeviceError: the device failed; all states are lost, :meth:`reset` makes it usable again.
        """
        ...
