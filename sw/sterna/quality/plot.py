"""The report of :mod:`sterna.quality.report` as a picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

Row = dict[str, Any]


def draw(report: Row, stream: BinaryIO) -> None:
    """Draw errors, flips and headroom over the layers as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 9), layout="constrained")
    errors, room, flips = figure.subplots(3, 1, sharex=True)
    figure.suptitle(f"{report['model']} against {report['reference']}", fontsize="medium")
    quantities = _by(report["values"], lambda row: str(row["quantity"]))
    for colour, (quantity, rows) in enumerate(quantities.items()):
        for axes, key in ((errors, "sqnr_db"), (room, "headroom_bits")):
            known = [row for row in rows if row[key] is not None]
            if known:
                layers = [row["layer"] for row in known]
                axes.plot(layers, [row[key] for row in known], f"C{colour}.-", label=quantity)
    for projection, rows in _by(report["activations"], lambda row: row["projection"].rpartition(".")[2]).items():
        flips.plot([row["layer"] for row in rows], [100 * row["flipped"] for row in rows], ".-", label=projection)
    errors.set_ylabel("signal to error, dB")
    room.set_ylabel("headroom, bits")
    room.set_ylim(bottom=0)
    flips.set_ylabel("8-bit inputs that differ, %")
    flips.set_xlabel("layer")
    flips.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (errors, room, flips):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small", ncols=4)
    FigureCanvasAgg(figure).print_png(stream)


def _by(rows: list[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    """The rows of layers, apart by a key."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["layer"] is not None:
            found.setdefault(key(row), []).append(row)
    return found
