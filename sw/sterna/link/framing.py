"""Bodies to frames and back; the rules stand in :mod:`sterna.spec.link`."""

from __future__ import annotations

import zlib

from sterna.spec.link import CRC, ESCAPE, ESCAPED, FLAG, PAYLOAD_BYTES, REQUEST

_FLAG = bytes([FLAG])
_PAIRS = tuple((bytes([value]), bytes([ESCAPE, value ^ ESCAPED])) for value in (ESCAPE, FLAG))
# No body is longer, with every byte of it escaped.
_LONGEST = 2 * (REQUEST.size + PAYLOAD_BYTES + CRC.size)


def frame(body: bytes) -> bytes:
    """``body`` with its CRC, escaped, between flags."""
    text = body + CRC.pack(zlib.crc32(body))
    for value, pair in _PAIRS:
        text = text.replace(value, pair)
    return _FLAG + text + _FLAG


class Unframer:
    """Finds the bodies in a stream of bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes | None]:
        """Bodies that ``data`` completes, without CRC; None for each that arrived damaged."""
        *texts, rest = (self._rest + data).split(_FLAG)
        self._rest = rest[: _LONGEST + 1]  # longer ones are damaged, and keep being so
        return [_body(text) for text in texts if text]


def _body(text: bytes) -> bytes | None:
    for value, pair in reversed(_PAIRS):
        text = text.replace(pair, value)
    body, crc = text[: -CRC.size], text[-CRC.size :]
    return body if body and crc == CRC.pack(zlib.crc32(body)) else None
