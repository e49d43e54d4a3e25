"""How a transfer reaches the spaces of ``sterna.spec.link``: one access at a time, seen from the transfer.

An access begins in a cycle with ``valid`` and ``ready``; ``done`` is high for one cycle at its end. What is accessed
keeps to its own bus whatever happens: an access whose ``done`` was not waited for goes on, and ``ready`` stays low
until its end.
"""

from __future__ import annotations

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class RegisterAccess(wiring.Signature):
    """A 32-bit register; ``address`` counts registers. ``error`` is valid with ``done``, ``result`` from then on."""

    def __init__(self) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "write": Out(1),
                "address": Out(30),
                "data": Out(32),
                "done": In(1),
                "error": In(1),
                "result": In(32),
            }
        )


class MemoryAccess(wiring.Signature):
    """A beat of memory; ``address`` counts beats, ``strobes`` are of bytes.

    Writes are done when they are accepted; they are in memory at ``idle``. ``error`` is high from ``done`` of a read,
    or from ``idle``, when an access since ``start`` failed. ``result`` stays until the next read.
    """

    def __init__(self, address_width: int, data_bytes: int) -> None:
        super().__init__(
            {
                "start": Out(1),
                "valid": Out(1),
                "ready": In(1),
                "write": Out(1),
                "address": Out(address_width - (data_bytes.bit_length() - 1)),
                "data": Out(8 * data_bytes),
                "strobes": Out(data_bytes),
                "done": In(1),
                "error": In(1),
                "idle": In(1),
                "result": In(8 * data_bytes),
            }
        )
