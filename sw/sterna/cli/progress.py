"""Progress on standard error: the one place that knows tqdm."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

LOG_SECONDS = 5.0  # between two lines where standard error is no terminal


def loading(device: str) -> dict[str, Any]:
    """The option of :func:`sterna.load` that shows how far a memory image is on its way to an accelerator."""
    from sterna.engines.transport import parse_device, transports

    return {"loading": progress} if parse_device(device)[0] in transports() else {}


class _Lines:
    """Turns the redrawing of a bar into lines of a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.strip("\r\n ")
        if line:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


def progress(
    iterable: Iterable[Any] | None = None, *, total: int | None = None, label: str = "", unit: str = "it"
) -> Any:
    """A bar over ``iterable``, or one that counts by ``update(n)`` until ``close()``; also a context manager.

    On a terminal the bar is drawn; elsewhere work that takes longer than a few seconds leaves a line every few seconds.
    STERNA_PROGRESS=0 turns all of it off, STERNA_PROGRESS=1 draws the bar wherever standard error goes.
    """
    choice = os.environ.get("STERNA_PROGRESS")
    drawn = choice == "1" or sys.stderr.isatty()
    scale = unit == "B"
    common: dict[str, Any] = {
        "total": total,
        "desc": label or None,
        "unit": unit if scale else f" {unit}",
        "unit_scale": scale,
        "disable": choice == "0",
        "leave": False,  # the command's own output says that it is done
    }
    if drawn:
        return tqdm(iterable, file=sys.stderr, dynamic_ncols=True, **common)
    return tqdm(
        iterable,
        file=_Lines(sys.stderr),
        ncols=79,
        ascii=True,
        mininterval=LOG_SECONDS,
        delay=LOG_SECONDS,
        miniters=1,
        **common,
    )
