"""Writes the tables of docs/link.md: ``python -m sterna.link.tables docs/link.md``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from sterna.explore.program import image_bytes
from sterna.importer.synthetic import GEOMETRIES
from sterna.link.rates import UART_BITS, USB_BYTES_PER_SECOND, load_rate
from sterna.spec import board, link
from sterna.spec.config import preset
from sterna.spec.tables import render, table

MODELS = {"370M": "ecpix5", "1.3B": "ecpix5", "2.7B": "butterstick"}  # geometries and the boards that hold them
_KINDS = {
    link.Kind.SYNC: "makes the next number the expected one; length 0",
    link.Kind.READ: "length bytes from the address",
    link.Kind.WRITE: "the payload to the address",
}
_SPACES = {
    link.Space.MEMORY: "the board's DRAM, of any alignment",
    link.Space.CORE: "the accelerator's registers ([program.md](program.md#registers))",
    link.Space.BOARD: "the board's own registers",
    link.Space.DRAM: "the DRAM controller's registers",
    link.Space.DESCRIPTION: "read-only: length, then that many bytes of a zlib-compressed JSON object",
}


def request_table() -> str:
    """Operations and spaces."""
    kinds = [(str(kind.value), f"`{kind.name}`", text) for kind, text in _KINDS.items()]
    spaces = [(str(space.value), f"`{space.name}`", text) for space, text in _SPACES.items()]
    return table(("low 4 bits", "kind", ""), kinds) + "\n\n" + table(("high 4 bits", "space", "address means"), spaces)


def reply_table() -> str:
    """Statuses of replies."""
    lines = [(str(status.value), f"`{status.name}`", link.REPLY_TEXT[status]) for status in link.Reply]
    return table(("status", "name", "meaning"), lines)


def register_table() -> str:
    """The board's own registers."""
    lines = [(f"0x{r.offset:02X}", f"`{r.name}`", r.access.value, r.doc) for r in board.REGISTERS]
    return table(("offset", "register", "access", "meaning"), lines)


def rate_table() -> str:
    """Computed times of loading."""
    links = [(f"UART, {rate:,} baud", rate / UART_BITS) for rate in link.UART_RATES]
    sizes = {name: image_bytes(GEOMETRIES[name.lower()], preset(config)) for name, config in MODELS.items()}
    lines = []
    for name, speed in [("USB 2.0 high speed", float(USB_BYTES_PER_SECOND)), *links]:
        rate = load_rate(speed)
        lines.append((name, f"{rate / 1e6:.3g} MB/s", *(f"{size / rate:,.1f} s" for size in sizes.values())))
    return table(("link", "rate", *(f"{name}, {size / 1e6:,.0f} MB" for name, size in sizes.items())), lines)


TABLES: dict[str, Callable[[], str]] = {
    "requests": request_table,
    "replies": reply_table,
    "board": register_table,
    "rates": rate_table,
}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(render(path.read_text(), TABLES))
