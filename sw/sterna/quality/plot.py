"""The report of :mod:`sterna.quality.report` as a picture."""

from __future__ import annotations

from typing import Any, BinaryIO


def draw(report: dict[str, Any], stream: BinaryIO) -> None:
    """Draw errors, flips and headroom over the layers as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 9), layout="constrained")
    errors, flips, room = figure.subplots(3, 1, sharex=True)
    for quantity, rows in _by(report["values"], "quantity").items():
        layers = [row["layer"] for row in rows]
        for axes, key in ((errors, "sqnr_db"), (room, "headroom_bits")):
            if all(row[key] is not None for row in rows):
                axes.plot(layers, [row[key] for row in rows], marker=".", label=quantity)
    for row in report["activations"]:
        row["kind"] = row["projection"].rpartition(".")[2]
    for kind, rows in _by(report["activations"], "kind").items():
        flips.plot([row["layer"] for row in rows], [100 * row["flipped"] for row in rows], marker=".", label=kind)
    errors.set_ylabel("signal to error, dB")
    flips.set_ylabel("8-bit inputs that differ, %")
    room.set_ylabel("headroom, bits")
    room.set_ylim(bottom=min(0, *room.get_ylim()))
    room.set_xlabel("layer")
    for axes in (errors, flips, room):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small", ncols=4)
    FigureCanvasAgg(figure).print_png(stream)


def _by(rows: list[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of layers, apart by a key."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["layer"] is not None:
            found.setdefault(row[key], []).append(row)
    return found
