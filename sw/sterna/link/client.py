"""The host's end of the protocol of :mod:`sterna.spec.link`: requests in, answers out, whatever the link loses.

Go-back-N: up to :data:`~sterna.spec.link.WINDOW` requests are on their way. When one or its reply is found missing or
damaged, all from the oldest unanswered one are sent again; the board executes none twice.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from sterna.errors import DeviceError
from sterna.link.framing import Unframer, frame
from sterna.link.pipe import BytePipe
from sterna.spec.link import PAYLOAD_BYTES, REPLY, REPLY_TEXT, REQUEST, SEQUENCES, WINDOW, Kind, Reply, Space, operation

TIMEOUT = 0.5  # seconds of silence after which a reply counts as lost
ATTEMPTS = 8  # of one request, before the device does
NOISE_BYTES = 64 * PAYLOAD_BYTES  # received without an answer among them: as good as silence; repeats are fewer

_WORD = struct.Struct("<I")
_SILENT = "does not answer: check the cable, the board's power and that its bitstream is loaded (`sterna flash`)"
_GARBLED = "damages what it carries: check the cable and the rate"
_MISCOUNTED = "lost count of the requests: the board was reset or configured anew, so start again"
_COMPLAINTS = {Reply.SEQUENCE: _MISCOUNTED, Reply.DAMAGED: _GARBLED}


@dataclass(frozen=True, slots=True)
class Request:
    """One READ or WRITE."""

    kind: Kind
    space: Space
    address: int
    length: int  # bytes to read, or of the payload
    payload: bytes = b""

    def body(self, sequence: int) -> bytes:
        """What a frame carries."""
        return REQUEST.pack(operation(self.kind, self.space), sequence, self.length, self.address) + self.payload


def reads(space: Space, address: int, size: int) -> Iterator[Request]:
    """Requests that read a range; pieces end where addresses are multiples of their size."""
    for start, end in _pieces(address, size):
        yield Request(Kind.READ, space, start, end - start)


def writes(space: Space, address: int, data: bytes | bytearray | memoryview) -> Iterator[Request]:
    """Requests that write a range; pieces as of :func:`reads`."""
    for start, end in _pieces(address, len(data)):
        yield Request(Kind.WRITE, space, start, end - start, bytes(data[start - address : end - address]))


def write_words(space: Space, address: int, *values: int) -> Request:
    """The request that writes registers one after the other."""
    payload = struct.pack(f"<{len(values)}I", *values)
    return Request(Kind.WRITE, space, address, len(payload), payload)


class LinkClient:
    """Executes requests on the board behind a pipe, which the client takes over.

    Any method raises ``DeviceError`` when the board cannot be reached or refuses; the next one begins anew.

    Args:
        pipe: The open connection.
        timeout: Seconds of silence after which a reply counts as lost.
        attempts: How often a request is tried before that counts as the loss of the device.
    """

    def __init__(self, pipe: BytePipe, *, timeout: float = TIMEOUT, attempts: int = ATTEMPTS) -> None:
        self._pipe, self._timeout, self._attempts = pipe, timeout, attempts
        self._unframer = Unframer()
        self._next = 0  # number of the next request
        self._synced = False
        self._repeats = 0

    @property
    def name(self) -> str:
        """Of the pipe."""
        return self._pipe.name

    @property
    def repeats(self) -> int:
        """How often requests had to be sent again since the start."""
        return self._repeats

    def sync(self) -> None:
        """Agree with the board on the number of the next request; what was under way is forgotten."""
        self._synced = False
        number = (self._next + SEQUENCES // 2) % SEQUENCES  # far from any reply still under way
        request = frame(REQUEST.pack(Kind.SYNC, number, 0, 0))
        complaint = _SILENT
        for _ in range(self._attempts):
            self._pipe.write(request)
            noise = 0
            while noise < NOISE_BYTES and (data := self._pipe.read(self._timeout)):
                noise += len(data)
                replies = list(self._replies(data))
                if any(reply is not None and reply[:2] == (Reply.OK, number) for reply in replies):
                    self._next = (number + 1) % SEQUENCES
                    self._synced = True
                    return
                complaint = _GARBLED
        self._fail(complaint)

    def execute(self, requests: Iterable[Request]) -> list[bytes]:
        """Execute requests in order, and return what each has read (b"" for a WRITE)."""
        answers: list[bytes] = []
        for _, same in itertools.groupby(requests, key=lambda request: request.kind):
            answers += self._run(list(same))
        return answers

    def read(self, space: Space, address: int, size: int) -> bytes:
        """``size`` bytes from ``address`` on."""
        return b"".join(self.execute(reads(space, address, size)))

    def write(self, space: Space, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store ``data`` from ``address`` on."""
        self.execute(writes(space, address, data))

    def read_word(self, space: Space, address: int) -> int:
        """A 32-bit register."""
        return int(_WORD.unpack(self.read(space, address, _WORD.size))[0])

    def write_word(self, space: Space, address: int, value: int) -> None:
        """Write a 32-bit register."""
        self.execute([write_words(space, address, value)])

    def close(self) -> None:
        """Close the pipe."""
        self._pipe.close()

    def _run(self, requests: Sequence[Request]) -> list[bytes]:
        """Execute requests of one kind."""
        if not self._synced:
            self.sync()
        first = self._next
        answers: list[bytes] = []
        sent = 0  # of the requests, answered ones included
        attempts = noise = 0  # since the last answer
        cause = ""  # of the first of them
        repeating = False  # until the oldest is answered, complaints are about what was sent before
        while len(answers) < len(requests):
            limit = min(len(answers) + WINDOW, len(requests))
            if sent < limit:
                self._send(frame(requests[i].body((first + i) % SEQUENCES)) for i in range(sent, limit))
                sent = limit
            data = self._receive()
            noise += len(data)
            complaint = None if data and noise < NOISE_BYTES else _SILENT
            for reply in self._replies(data):
                if reply is None:
                    complaint = complaint or _GARBLED
                    continue
                status, number, answer = reply
                ahead = (number - first - len(answers)) % SEQUENCES
                if status in _COMPLAINTS:
                    complaint = complaint or _COMPLAINTS[status]
                elif ahead == 0 and sent > len(answers):
                    answers.append(self._answer(requests[len(answers)], status, answer))
                    attempts = noise = 0
                    repeating, complaint, cause = False, None, ""
                elif ahead < sent - len(answers):
                    complaint = complaint or _GARBLED  # the replies before this one are lost
            if complaint and (complaint is _SILENT or not repeating):
                attempts += 1
                noise = 0
                cause = complaint if cause in ("", _SILENT) else cause
                if attempts >= self._attempts:
                    self._fail(cause)
                self._repeats += 1
                repeating, sent = True, len(answers)
        self._next = (first + len(requests)) % SEQUENCES
        return answers

    def _send(self, frames: Iterable[bytes]) -> None:
        try:
            self._pipe.write(b"".join(frames))
        except DeviceError:
            self._synced = False
            raise

    def _receive(self) -> bytes:
        try:
            return self._pipe.read(self._timeout)
        except DeviceError:
            self._synced = False
            raise

    def _replies(self, data: bytes) -> Iterator[tuple[Reply, int, bytes] | None]:
        """Status, number and contents of each reply in ``data``; None for a damaged one."""
        for body in self._unframer.feed(data):
            if body is None or len(body) < REPLY.size:
                yield None
                continue
            status, number, length = REPLY.unpack_from(body)
            contents = body[REPLY.size :]
            yield (Reply(status), number, contents) if status in REPLY_TEXT and len(contents) <= length else None

    def _answer(self, request: Request, status: Reply, contents: bytes) -> bytes:
        if status is not Reply.OK:
            self._fail_with(f"the board at {self.name} refused a {request.kind.name}: {REPLY_TEXT[status]}")
        if len(contents) != (request.length if request.kind is Kind.READ else 0):
            self._fail_with(
                f"the board at {self.name} answers by other rules: use a bitstream and a host of one release"
            )
        return contents

    def _fail(self, complaint: str) -> NoReturn:
        self._fail_with(f"the link {self.name} {complaint}")

    def _fail_with(self, text: str) -> NoReturn:
        self._synced = False
        raise DeviceError(text)


def _pieces(address: int, size: int) -> Iterator[tuple[int, int]]:
    start, end = address, address + size
    while start < end:
        stop = min(end, start - start % PAYLOAD_BYTES + PAYLOAD_BYTES)
        yield start, stop
        start = stop
