"""What the clusters of a build tell each other during a token, and the clusters run in step (docs/gateware.md)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sterna.errors import DeviceError
from sterna.spec.numerics import IntArray

T = TypeVar("T")


@dataclass(frozen=True)
class Scalars:
    """Sums of squares and largest product: of the part that a cluster holds, or, agreed, of the whole vector."""

    s1: int = 0
    s2: int = 0
    largest: int = 0


@dataclass(frozen=True)
class Activations:
    """Those of a part, int64 [count]; or all in the order of activation memory, int64 [clusters * count]."""

    values: IntArray


Offer = Scalars | Activations
Run = Generator[Offer, Offer, T]  # a cluster at work: yields what it offers, gets what all agreed on, returns a T


def agree(offers: Sequence[Offer], *, vector_width: int) -> Offer:
    """What all clusters get for what each offers, cluster 0 first; one agrees with itself.

    Raises:
        DeviceError: they do not offer the same, which no program of the compiler leads to.
    """
    scalars = [offer for offer in offers if isinstance(offer, Scalars)]
    if len(scalars) == len(offers):
        s1, s2 = sum(offer.s1 for offer in scalars), sum(offer.s2 for offer in scalars)
        return Scalars(s1, s2, max(offer.largest for offer in scalars))
    parts = [offer.values for offer in offers if isinstance(offer, Activations)]
    if len(offers) == 1:
        return Activations(parts[0])
    if len(parts) != len(offers) or len({len(part) for part in parts}) != 1 or len(parts[0]) % vector_width:
        raise _out_of_step()
    steps = np.stack(parts).reshape(len(parts), -1, vector_width)
    return Activations(steps.transpose(1, 0, 2).reshape(-1))


def run_in_step(clusters: Sequence[Run[T]], *, vector_width: int) -> list[T]:
    """Run the clusters of a build, each up to its next offer, until all return.

    Raises:
        DeviceError: their programs are not in step, so that some would wait for ever.
    """
    agreed: Offer | None = None
    while True:
        offers: list[Offer] = []
        results: list[T] = []
        for cluster in clusters:
            try:
                offers.append(next(cluster) if agreed is None else cluster.send(agreed))
            except StopIteration as end:
                results.append(end.value)
        if not offers:
            return results
        if results:
            raise _out_of_step()
        agreed = agree(offers, vector_width=vector_width)


def _out_of_step() -> DeviceError:
    return DeviceError("the programs of the clusters are not in step: load the memory image again")
