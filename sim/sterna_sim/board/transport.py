"""A simulated board as a device: ``twin:ecpix5``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from sterna.errors import SternaError
from sterna.link.transport import LinkTransport
from sterna.progress import Progress, counting
from sterna_boards.boards import find_board
from sterna_sim.board.build import board_core, board_library
from sterna_sim.board.pipe import TwinPipe
from sterna_sim.board.twin import Twin, Wiring
from sterna_sim.compile import Progress as BuildProgress

BUILD_ID = 0  # nobody flashes a twin
BUILD_STEPS = 4  # elaboration, Verilator, C++, linking
READY_SECONDS = 1e-3  # from configuration until a board listens: its clocks start after 0.66 ms


class TwinTransport(LinkTransport):
    """The top of a board, simulated with its memory chip, behind its serial pins. The first use compiles it.

    Args:
        address: Name of the board.
        wiring: Between its FPGA and its memory.
        build: See :class:`~sterna.link.transport.LinkTransport`, as for the rest.
        memory_test: Likewise; "short" takes some ten minutes here.
        timeout: Likewise.
        progress: Likewise.
        building: Called with a few words at each step of a compilation; when None, ``progress`` shows them.

    Raises:
        SternaError: an unknown board or option, or a failed build.
        DeviceError: the board does not start.
    """

    def __init__(
        self,
        *,
        address: str = "ecpix5",
        wiring: Wiring | None = None,
        build: str | None = None,
        memory_test: str = "none",
        timeout: float | str = 600.0,
        progress: Progress | None = None,
        building: BuildProgress | None = None,
    ) -> None:
        with _shown(progress) as shown:
            self.pipe = open_pipe(address, wiring=wiring, building=building or shown)
        super().__init__(self.pipe, build=build, memory_test=memory_test, timeout=timeout, progress=progress)


@contextmanager
def _shown(progress: Progress | None) -> Iterator[BuildProgress | None]:
    """Steps of a build on a bar, which appears with the first of them."""
    with ExitStack() as bars:
        count: Callable[[int], object] | None = None

        def step(words: str) -> None:
            nonlocal count
            if count is None:
                count = bars.enter_context(
                    counting(progress, total=BUILD_STEPS, label="building the twin", unit="step")
                )
            count(1)

        yield step


def open_pipe(name: str = "ecpix5", *, wiring: Wiring | None = None, building: BuildProgress | None = None) -> TwinPipe:
    """The serial line of a board that has just been configured.

    Raises:
        SternaError: there is no such board, it has no serial line, or the build failed.
    """
    board = find_board(name)
    rates = [rate for kind, _, rate in (link.partition(":") for link in board.links) if kind == "uart"]
    if not rates:
        raise SternaError(f"the board {name} has no serial line for a twin to talk on")
    library = board_library(board, links=board.links, build_id=BUILD_ID, progress=building)
    core = board_core(board)
    twin = Twin(library, recipe=board.recipe, core=core, baud=int(rates[0]), wiring=wiring)
    twin.run(round(READY_SECONDS * twin.tick_rate))
    return TwinPipe(twin, name=f"twin:{name}")
