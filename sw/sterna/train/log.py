"""The log of a run: one CSV line for each logged step, and the loss curve drawn from it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, fields
from pathlib import Path

from sterna.train.files import atomic, write_text
from sterna.train.plot import loss_curve

__all__ = ["CURVE_FILE", "LOG_FILE", "Log", "Progress"]

LOG_FILE = "log.csv"
CURVE_FILE = "loss.png"


@dataclass(frozen=True)
class Progress:
    """What is logged and what a progress callback receives; losses are means per token in nats."""

    step: int
    tokens: int
    seconds: float  # of training, without the time between a kill and its resumption
    fraction: float  # of the budget
    lr: float
    train_nats: float  # of this step's batch
    grad_norm: float
    tokens_per_second: float
    memory_bytes: int  # most that this process held so far: on the GPU where it trains on one, else resident
    valid_nats: float | None = None
    valid_bits_per_byte: float | None = None


COLUMNS = tuple(field.name for field in fields(Progress))


class Log:
    """`log.csv` and `loss.png` in the directory of a run."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOG_FILE
        self._curve = directory / CURVE_FILE

    def rewind(self, step: int) -> None:
        """Drop what was logged after `step`: a killed run logged steps that it will take again."""
        if not self._path.exists():
            return
        kept = [row for row in self._rows() if int(row["step"]) <= step]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
        write_text(self._path, text.getvalue())

    def add(self, progress: Progress) -> None:
        """Append one line; after a validation, draw the curve again."""
        values = ["" if v is None else f"{v:.9g}" if isinstance(v, float) else v for v in vars(progress).values()]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if not stream.tell():
                writer.writerow(COLUMNS)
            writer.writerow(values)
        if progress.valid_nats is not None:
            self.draw()

    def draw(self) -> None:
        """Draw `loss.png` from what is logged."""
        with atomic(self._curve) as stream:
            loss_curve(self._rows(), stream)

    def _rows(self) -> list[dict[str, str]]:
        """All whole lines; a kill can tear the last one."""
        with self._path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return [row for row in rows if None not in row.values() and None not in row]
