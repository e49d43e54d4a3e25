"""The figures of ``make bench`` for people: tables in Markdown and a picture of where the cycles went."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sterna.compiler.account import StreamAccount
from sterna.errors import SternaError
from sterna.spec.registers import STALL_TEXT, Stall

IDEAL = "ideal"  # the memory of a case that names none
BEATS = ("trits", "padding", "parameters", "descriptors", "embedding")  # fields of a StreamAccount
BEAT_TEXT = {
    "trits": "beats of trits at five a byte",
    "padding": "beats of columns and rows that fill words",
    "parameters": "beats of norm weights and lower bounds",
    "descriptors": "beats of descriptors",
    "embedding": "beats of the embedding row",
}


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One model on one configuration; cycles and bytes are exact, speeds are of the simulation on this machine.

    ``efficiency`` is the roofline efficiency of the whole token, ``bound`` what its bytes allow at most. ``cycles``
    are ``beats`` and ``stalls``, counted by the hardware; ``stream`` says what was in the beats, in bytes.
    """

    model: str
    config: str
    memory: str
    bytes_per_cycle: float
    weight_bytes: int
    stream_bytes: int
    cycles: int
    beats: int
    stalls: dict[str, int]  # names of `Stall`
    stream: dict[str, int]  # fields of `StreamAccount`
    integers_compared: int
    efficiency: float
    bound: float
    trits_per_second: float
    cycles_per_second: float

    @property
    def case(self) -> str:
        """As it is named on the command line."""
        return f"{self.model}:{self.config}" + (f":{self.memory}" if self.memory != IDEAL else "")

    def parts(self) -> dict[str, float]:
        """Cycles by what they were: beats by their contents, then stalls; they add up to ``cycles``."""
        beat = self.stream_bytes / self.beats
        return {name: self.stream[name] / beat for name in BEATS} | {name: float(n) for name, n in self.stalls.items()}


def stream_bytes(account: StreamAccount) -> dict[str, int]:
    """What ``Measurement.stream`` holds."""
    return {name: getattr(account, name) for name in BEATS}


def markdown(measurements: Sequence[Measurement]) -> str:
    """All tables."""
    return "\n\n".join((roofline_table(measurements), stall_table(measurements), speed_table(measurements)))


def roofline_table(measurements: Sequence[Measurement]) -> str:
    """Cycles and efficiency of whole tokens."""
    header = (
        "model",
        "configuration",
        "memory",
        "B/cycle",
        "weight bytes",
        "cycles a token",
        "roofline",
        "bound by bytes",
    )
    return _table(
        header,
        (
            (
                m.model,
                m.config,
                m.memory,
                f"{m.bytes_per_cycle:g}",
                f"{m.weight_bytes:,}",
                f"{m.cycles:,}",
                f"{100 * m.efficiency:.2f} %",
                f"{100 * m.bound:.2f} %",
            )
            for m in measurements
        ),
    )


def stall_table(measurements: Sequence[Measurement]) -> str:
    """Where the cycles of a token went, a column a case; reasons that never came are left out."""
    texts = BEAT_TEXT | {stall.name: f"{stall.name}: {STALL_TEXT[stall]}" for stall in Stall}
    parts = [m.parts() for m in measurements]

    def cells(values: Iterable[float]) -> list[str]:
        return [f"{value:,.0f} ({100 * value / m.cycles:.3f} %)" for value, m in zip(values, measurements, strict=True)]

    lines = [(text, *cells(p[name] for p in parts)) for name, text in texts.items() if any(p[name] for p in parts)]
    lines.append(("all cycles", *cells(m.cycles for m in measurements)))
    return _table(("cycles of a token", *(m.case for m in measurements)), lines)


def speed_table(measurements: Sequence[Measurement]) -> str:
    """How fast this machine simulates."""
    lines = (
        (m.case, f"{m.cycles_per_second / 1e3:,.0f} k", f"{m.trits_per_second / 1e6:,.1f} M") for m in measurements
    )
    return _table(("simulated", "cycles/s", "trits/s"), lines)


def picture(measurements: Sequence[Measurement]) -> bytes:
    """A PNG: the whole token of each case as a bar, and beside it, larger, what was no beat of trits.

    Raises:
        SternaError: there is no matplotlib.
    """
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SternaError("the picture needs matplotlib: pip install 'sterna[plot]'") from error
    everything = (*BEATS, *Stall.__members__)  # a colour each, whatever is shown
    colours = {name: colormaps["tab20"](index) for index, name in enumerate(everything)}
    colours[Stall.MEMORY.name] = (0.9, 0.9, 0.9, 1.0)  # not the accelerator's
    names = [name for name in everything if any(m.parts()[name] for m in measurements)]
    figure = Figure(figsize=(11, 2.2 + 0.5 * len(measurements)), layout="constrained")
    whole, lost = figure.subplots(1, 2, sharey=True)
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
    whole.set_yticks(range(len(measurements)), [m.case for m in measurements])
    whole.invert_yaxis()
    figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()


def _table(header: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, tuple("---" for _ in header), *lines))
