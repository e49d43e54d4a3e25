"""What long work asks of a progress bar; :func:`sterna.cli.progress.progress` makes one that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def counting(progress: Progress | None, *, total: int, label: str, unit: str) -> Iterator[Callable[[int], object]]:
    """The function that counts units on a bar, if there is ``progress``; the bar is taken away at the end."""
    if progress is None:
        yield lambda n: None
        return
    bar = progress(total=total, label=label, unit=unit)
    try:
        yield bar.update
    finally:
        bar.close()
