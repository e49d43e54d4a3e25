"""A board behind a link as a transport of the driver (``sterna.engines.transport``)."""

from __future__ import annotations

from collections.abc import Callable

from sterna.engines.transport import Transport, register_offset
from sterna.errors import DeviceError, SternaError
from sterna.link.client import LinkClient, Request
from sterna.link.clock import CYCLES, Stopwatch, wait_cycles
from sterna.link.dram import DramController
from sterna.link.identity import BUILD_DIGITS, Identity, read_identity
from sterna.link.memtest import SHORT, check_memory
from sterna.link.pipe import BytePipe
from sterna.progress import Progress
from sterna.spec.board import OFFSET, MemoryState
from sterna.spec.config import HardwareConfig
from sterna.spec.link import Kind, Space
from sterna.spec.registers import Control, Status

TOKEN_SECONDS = 60.0  # of the board's time for a token; the largest models take about one
RESET_SECONDS = 10.0  # of the board's time, in which an abandoned token must come to rest
LOCK_SECONDS = 0.1  # likewise for the clocks of the memory
TESTS = ("short", "full", "none")
_WORD = 4
_STATUS = Request(Kind.READ, Space.CORE, register_offset("STATUS"), _WORD)


class LinkTransport(Transport):
    """An open board, which has told what it is, and whose memory is started.

    Takes over ``pipe``: closing the transport closes it, and so does an error in this constructor. A memory that is
    running already stays as it is, with its contents.

    Args:
        pipe: The open connection.
        build: Build id in hexadecimal, or its beginning, that the board must have; any when None.
        memory_test: "short" tests the memory for a moment after it was started, "full" tests all of it now, "none" not.
        timeout: Seconds, of the board's time, that :meth:`wait` allows when its caller names none.
        progress: Makes bars for the start and the test of the memory.

    Raises:
        SternaError: an option that has no such value.
        DeviceError: nothing answers, the bitstream is another one, or the memory does not work.
    """

    def __init__(
        self,
        pipe: BytePipe,
        *,
        build: str | None = None,
        memory_test: str = "short",
        timeout: float | str = TOKEN_SECONDS,
        progress: Progress | None = None,
    ) -> None:
        self._client: LinkClient | None = None
        self._name = pipe.name
        try:
            self._timeout = number("timeout", timeout)
            if memory_test not in TESTS:
                raise SternaError(f"memory_test must be one of {', '.join(TESTS)}, not {memory_test!r}")
            self._client = LinkClient(pipe)
            self._identity = read_identity(self._client)
            if build is not None:
                self._require_build(build)
            self._start_memory(memory_test, progress)
        except BaseException:
            self._client = None
            pipe.close()
            raise

    @property
    def config(self) -> HardwareConfig:
        """The configuration that the bitstream holds, by its own word."""
        return self._identity.description.config

    @property
    def memory_bytes(self) -> int:
        """See :attr:`Transport.memory_bytes`."""
        return self._identity.description.dram.bytes

    @property
    def identity(self) -> Identity:
        """What the board said when it was opened."""
        return self._identity

    @property
    def repeats(self) -> int:
        """How often the link made requests be sent again."""
        return self._open().repeats

    def read_memory(self, address: int, size: int) -> bytes:
        """See :meth:`Transport.read_memory`."""
        self._require_range(address, size)
        return self._open().read(Space.MEMORY, address, size)

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """See :meth:`Transport.write_memory`."""
        self._require_range(address, len(data))
        self._open().write(Space.MEMORY, address, data)

    def read_register(self, name: str) -> int:
        """See :meth:`Transport.read_register`."""
        return self._open().read_word(Space.CORE, register_offset(name))

    def write_register(self, name: str, value: int) -> None:
        """See :meth:`Transport.write_register`."""
        self._open().write_word(Space.CORE, register_offset(name, value=value), value)

    def wait(self, mask: Status, timeout: float | None = None) -> Status:
        """See :meth:`Transport.wait`; seconds are the board's."""
        limit = self._timeout if timeout is None else timeout
        status = self._poll(lambda status: bool(status & mask), limit)
        if not status & mask:
            raise DeviceError(
                f"time-out: the accelerator at {self._name} did not reach {mask!r} in {limit:g} s; STATUS is {status!r}"
            )
        return status

    def reset(self) -> None:
        """See :meth:`Transport.reset`; also finds the way back to a board that has lost count of the requests."""
        client = self._open()
        client.sync()
        client.write_word(Space.CORE, register_offset("CONTROL", value=Control.RESET), Control.RESET)
        if self._poll(lambda status: status == 0, RESET_SECONDS):
            raise DeviceError(
                f"the accelerator at {self._name} did not come to rest within {RESET_SECONDS:g} s of a reset: "
                "switch the board off and on"
            )

    def test_memory(self, part: range | None = None, *, progress: Progress | None = None) -> None:
        """Overwrite the bytes ``part``, or all, of the memory and read them back; see :func:`check_memory`.

        Raises:
            SternaError: ``part`` is not inside the memory.
            DeviceError: the memory is faulty, and is marked so on the board.
        """
        self.reset()  # a token that somebody left running has the memory
        client, board = self._open(), self._identity.description
        try:
            check_memory(self, board.dram, range(board.dram.bytes) if part is None else part, progress=progress)
        except DeviceError:
            DramController(client, board).give_up()
            raise

    def close(self) -> None:
        """See :meth:`Transport.close`; the board's memory keeps its contents."""
        if self._client:
            self._client.close()
            self._client = None

    def _start_memory(self, test: str, progress: Progress | None) -> None:
        client, board = self._open(), self._identity.description
        state = self._identity.memory
        if not state & MemoryState.LOCKED:
            wait_cycles(client, int(LOCK_SECONDS * board.clock))
            state = MemoryState(client.read_word(Space.BOARD, OFFSET["MEMORY_STATE"]))
        if not state & MemoryState.LOCKED:
            raise DeviceError(
                f"the clocks of the memory at {self._name} do not run: switch the board off and on, then flash "
                f"the bitstream of a {board.board} again"
            )
        fresh = not state & MemoryState.READY
        if fresh:
            DramController(client, board).start(progress=progress)
        if test == "full":
            self.test_memory(progress=progress)
        elif test == "short" and fresh:
            self.test_memory(range(min(SHORT.stop, board.dram.bytes)), progress=progress)

    def _poll(self, enough: Callable[[Status], bool], seconds: float) -> Status:
        """STATUS, read until it is enough or the time has passed."""
        client, watch = self._open(), Stopwatch()
        while True:
            status_word, cycles = client.execute((_STATUS, CYCLES))
            status = Status(int.from_bytes(status_word, "little"))
            if enough(status) or watch.advance(cycles) > seconds * self._identity.description.clock:
                return status

    def _require_build(self, build: str) -> None:
        wanted, found = build.lower().removeprefix("0x"), self._identity.build
        if not wanted or len(wanted) > BUILD_DIGITS or wanted.strip("0123456789abcdef"):
            raise SternaError(f"build must be up to {BUILD_DIGITS} hexadecimal digits, not {build!r}")
        if not found.startswith(wanted):
            raise DeviceError(
                f"the board at {self._name} holds build {found}, not {wanted}: its bitstream is stale; "
                f"flash it again (`sterna flash {self._identity.description.board}`)"
            )

    def _require_range(self, address: int, size: int) -> None:
        self._open()
        if not 0 <= address <= address + size <= self.memory_bytes:
            raise DeviceError(
                f"bytes {address}..{address + size} are not inside the board's memory of {self.memory_bytes} bytes"
            )

    def _open(self) -> LinkClient:
        if not self._client:
            raise DeviceError(f"the board at {self._name} is closed")
        return self._client


def number(name: str, value: float | str) -> float:
    """An option that may come as text.

    Raises:
        SternaError: it is no positive number.
    """
    try:
        found = float(value)
    except ValueError:
        found = 0.0
    if not found > 0:
        raise SternaError(f"{name} must be a positive number, not {value!r}")
    return found
