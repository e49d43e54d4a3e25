"""Where the elements of a vector stand: which a cluster holds, and which column of a projection reads which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.model.geometry import Geometry
from sterna.spec.config import HardwareConfig
from sterna.spec.numerics import IntArray

T = TypeVar("T", bound=np.generic)


def part(length: int, config: HardwareConfig, cluster: int) -> IntArray:
    """Elements, or rows, of ``length`` that cluster ``cluster`` holds, in order, int64: in a build of one, all."""
    size = length // config.clusters
    return np.arange(cluster * size, (cluster + 1) * size)


@dataclass(frozen=True)
class Arrangement:
    """One vector, as the memories and the stream of one cluster have it."""

    held: IntArray  # elements in the order of their addresses, and rows of the projections that make them, in order
    columns: IntArray | None  # elements in the order of the columns of what reads them; None: as they are numbered

    @classmethod
    def share(cls, length: int, config: HardwareConfig, cluster: int) -> Arrangement:
        """A vector of ``length`` of which each cluster holds its part.

        Row t of activation memory is ``vector_width`` elements of each cluster, those from t * ``vector_width`` on of
        its part, cluster 0 first: what all of them quantise in a cycle.
        """
        held = part(length, config, cluster)
        if config.clusters == 1:
            return cls(held, None)
        steps = np.arange(length).reshape(config.clusters, -1, config.vector_width)
        return cls(held, steps.transpose(1, 0, 2).reshape(-1))

    @property
    def count(self) -> int:
        """Elements that the cluster holds."""
        return len(self.held)

    def in_columns(self, values: npt.NDArray[T]) -> npt.NDArray[T]:
        """``values`` [..., length], all of them, in the order of the columns."""
        return values if self.columns is None else values.take(self.columns, axis=-1)


def check_shares(geometry: Geometry, config: HardwareConfig) -> None:
    """Refuse a model that the clusters of ``config`` cannot share equally.

    Raises:
        SternaError: one of its sizes cannot be divided; the sentence names it.
    """
    if config.clusters == 1:
        return
    step = config.clusters * config.vector_width
    for name, multiple in (("hidden", step), ("inner", step), ("vocab", config.clusters)):
        size = getattr(geometry, name)
        if size % multiple:
            raise SternaError(
                f"the model has {name} {size}, and the {config.clusters} clusters of configuration {config.name} share "
                f"multiples of {multiple}: choose a configuration of fewer clusters or a model of other sizes"
            )
