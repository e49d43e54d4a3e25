"""The figures of ``make bench`` as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from sterna.errors import SternaError
from sterna.spec.registers import Stall
from sterna_sim.bench.results import Results
from sterna_sim.bench.throughput import PEERS, Throughput
from sterna_sim.bench.tokens import BEATS, Measurement

_WIDTH, _HEAD, _LINE = 11.0, 1.6, 0.4  # inches: of the picture, of what is not a line of a panel, and of a line


def picture(results: Results) -> bytes:
    """A PNG: where the cycles of each token went, and throughput beside that of others; empty without either.

    Raises:
        SternaError: there is no matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SternaError("the picture needs matplotlib: pip install 'sterna[plot]'") from error
    rates = _rates(results.throughput)
    heights = [_HEAD + _LINE * len(lines) for lines in (results.tokens, rates) if lines]
    if not heights:
        return b""
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    panels = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if results.tokens:
        _cycles(panels.pop(0), results.tokens)
    if rates:
        _throughput(panels.pop(0), rates)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()


def _cycles(panel: Any, measurements: Sequence[Measurement]) -> None:
    """The whole token of each case as a bar, and beside it, larger, what was no beat of trits."""
    from matplotlib import colormaps

    everything = (*BEATS, *Stall.__members__)  # a colour each, whatever is shown
    colours = {name: colormaps["tab20"](index) for index, name in enumerate(everything)}
    colours[Stall.MEMORY.name] = (0.9, 0.9, 0.9, 1.0)  # not the accelerator's
    names = [name for name in everything if any(m.parts()[name] for m in measurements)]
    whole, lost = panel.subplots(1, 2, sharey=True)
    for axes, shown in ((whole, names), (lost, [name for name in names if name not in ("trits", Stall.MEMORY.name)])):
        left = [0.0] * len(measurements)
        for name in shown:
            shares = [100 * m.parts()[name] / m.cycles for m in measurements]
            axes.barh(range(len(measurements)), shares, left=left, color=colours[name], label=name)
            left = [a + b for a, b in zip(left, shares, strict=True)]
        axes.set_xlabel("% of the cycles of a token")
        axes.grid(axis="x", alpha=0.3)
    whole.set_title("whole token")
    lost.set_title("all but trits and MEMORY")
    whole.set_yticks(range(len(measurements)), [str(m.case) for m in measurements])
    whole.invert_yaxis()
    panel.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=6)


def _rates(ours: Sequence[Throughput]) -> list[tuple[str, float, bool]]:
    """Name, tokens a second and whether it is ours; by model."""
    models = list(dict.fromkeys(t.model for t in ours))
    found = []
    for model in models:
        found += [(f"{model} {t.config}, {t.slots}", t.tokens_per_second, True) for t in ours if t.model == model]
        found += [
            (f"{model} {p.system}, {p.sequences or '?'}", p.tokens_per_second, False) for p in PEERS if p.model == model
        ]
    return found


def _throughput(panel: Any, rates: Sequence[tuple[str, float, bool]]) -> None:
    axes = panel.subplots()
    axes.barh(range(len(rates)), [rate for _, rate, _ in rates], color=["C0" if ours else "C7" for *_, ours in rates])
    axes.set_yticks(range(len(rates)), [name for name, *_ in rates])
    axes.set_xscale("log")
    axes.set_xlabel("tokens/s over all sequences (their number behind the name); blue: ours, from simulated cycles")
    axes.grid(axis="x", alpha=0.3)
    axes.invert_yaxis()
