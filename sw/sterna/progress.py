"""What long work asks of a progress bar; :func:`sterna.cli.progress.progress` makes one that fits."""

from __future__ import annotations

from typing import Protocol


class ProgressBar(Protocol):
    """Counts units; tqdm's bars do."""

    def update(self, n: int) -> object:
        """Count ``n`` more units."""

    def close(self) -> object:
        """Take the bar away."""


class Progress(Protocol):
    """Makes a progress bar of ``total`` units."""

    def __call__(self, *, total: int, label: str, unit: str) -> ProgressBar:
        """Return the bar at zero."""
