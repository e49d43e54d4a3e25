"""A picture of the builds that are worth having."""

from __future__ import annotations

import io
from collections.abc import Sequence

from sterna.errors import SternaError
from sterna.explore.search import SLOTS, Candidate

KINDS = ("png", "svg", "pdf")


def plot(best: Sequence[Candidate], *, title: str, kind: str) -> bytes:
    """Tokens a second over LUT sites, a colour for each number of slots, larger dots for more block RAM.

    Args:
        best: What is drawn.
        title: Above it.
        kind: Of the file, one of :data:`KINDS`.

    Raises:
        SternaError: there is no matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SternaError("--plot needs matplotlib: pip install 'sterna[plot]'") from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    most = max(c.block_rams for c in best)
    for index, slots in enumerate(SLOTS):
        builds = [c for c in best if c.slots == slots]
        if builds:
            axes.scatter(
                [c.luts for c in builds],
                [c.tokens_per_second for c in builds],
                s=[8 + 72 * c.block_rams / most for c in builds],
                color=f"C{index}",
                alpha=0.7,
                label=f"{slots} slot{'s' * (slots > 1)}",
            )
    axes.set_xlabel("LUT sites (estimated); larger dots have more block RAM")
    axes.set_ylabel("tokens/s over all slots")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format=kind)
    return stream.getvalue()
