"""The loss curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO

__all__ = ["loss_curve"]


def loss_curve(rows: Sequence[Mapping[str, str]], stream: BinaryIO) -> None:
    """Draw the lines of a training log (see `Progress`) as a PNG: losses over tokens, below them the learning rate."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second, and only the first process draws
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    tokens = [float(row["tokens"]) / 1e6 for row in rows]
    loss.plot(tokens, [float(row["train_nats"]) for row in rows], color="C0", lw=0.8, label="training, each a batch")
    scored = [row for row in rows if row["valid_nats"]]
    if scored:
        at = [float(row["tokens"]) / 1e6 for row in scored]
        best = min(float(row["valid_bits_per_byte"]) for row in scored)
        label = f"validation, best {best:.4f} bits/byte"
        loss.plot(at, [float(row["valid_nats"]) for row in scored], color="C1", marker=".", label=label)
        # The same losses in the unit that does not depend on the tokenizer: one factor, as both are the same text.
        factor = float(scored[-1]["valid_bits_per_byte"]) / float(scored[-1]["valid_nats"])
        bits = loss.secondary_yaxis("right", functions=(lambda nats: nats * factor, lambda bits: bits / factor))
        bits.set_ylabel("bits/byte")
    loss.set_ylabel("nats/token")
    loss.grid(alpha=0.3)
    loss.legend()
    rate.plot(tokens, [float(row["lr"]) for row in rows], color="C2", lw=0.8)
    rate.set_ylabel("rate")
    rate.set_xlabel("tokens, millions")
    rate.grid(alpha=0.3)
    FigureCanvasAgg(figure).print_png(stream)
