"""How fast a link loads memory: computed from the frames, and measured on an open board."""

from __future__ import annotations

import time

from sterna.link.transport import LinkTransport
from sterna.progress import Progress, counting
from sterna.spec.link import CRC, PAYLOAD_BYTES, REQUEST, WINDOW

UART_BITS = 10  # of a byte: start, eight, stop
USB_BYTES_PER_SECOND = 13 * 512 * 8000  # bulk packets that fit a microframe of USB 2.0 high speed, and nothing else
ROUND_TRIP = 1e-3  # seconds from a request to its reply, supposed: a USB adapter's frame
ESCAPED_SHARE = 2 / 256  # of random bytes
MEASURED_BYTES = 1 << 18


def wire_bytes() -> float:
    """Mean bytes on the link for a WRITE of :data:`PAYLOAD_BYTES` random ones."""
    return 2 + (REQUEST.size + PAYLOAD_BYTES + CRC.size) * (1 + ESCAPED_SHARE)


def load_rate(bytes_per_second: float, *, round_trip: float = ROUND_TRIP) -> float:
    """Payload in bytes a second over a link that moves ``bytes_per_second``: the line's, or the window's if less."""
    line = bytes_per_second * PAYLOAD_BYTES / wire_bytes()
    window = WINDOW * PAYLOAD_BYTES / (round_trip + wire_bytes() / bytes_per_second)
    return min(line, window)


def measure(transport: LinkTransport, *, size: int = MEASURED_BYTES, progress: Progress | None = None) -> float:
    """Bytes a second written to the board's memory, by the wall clock; contents stay, as what was there is written.

    Raises:
        DeviceError: the link failed, or a token runs.
    """
    size = min(size, transport.memory_bytes)
    with counting(progress, total=2 * size, label="load rate", unit="B") as count:
        kept = b""
        for address in range(0, size, 1 << 14):
            kept += transport.read_memory(address, min(1 << 14, size - address))
            count(1 << 14)
        started = time.monotonic()
        transport.write_memory(0, kept)
        return size / (time.monotonic() - started)
