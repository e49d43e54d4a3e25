"""Starts the DRAM of a board: the init sequence through the DFI injector, then read leveling of a DDR3 (docs/link.md).

The requests of a step go out together, because a reply may take a millisecond. Between two commands to the chip lies at
least a request on the link: more cycles than any chip asks between ACTIVATE, WRITE, READ and PRECHARGE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sterna.errors import DeviceError
from sterna.link.client import LinkClient, Request, write_words
from sterna.link.clock import wait_cycles
from sterna.progress import Progress, counting
from sterna.spec.board import BoardDescription
from sterna.spec.dfi import DfiCommand, DfiControl
from sterna.spec.link import Kind, Space

RESET_SECONDS = 200e-6  # RESET# low with stable clocks, JEDEC JESD79-3
NARROWEST = 2  # delays of a window that leaves any margin
PATTERNS = 3  # bursts that must be read right
_SEED = 20_150_608

ACTIVATE = DfiCommand.RAS | DfiCommand.CS
WRITE = DfiCommand.CAS | DfiCommand.WE | DfiCommand.CS | DfiCommand.WRDATA
READ = DfiCommand.CAS | DfiCommand.CS | DfiCommand.RDDATA
PRECHARGE = DfiCommand.RAS | DfiCommand.WE | DfiCommand.CS
_RANKS = (DfiCommand.RANK_0, DfiCommand.RANK_1)


@dataclass(frozen=True)
class Window:
    """Delays from ``first`` on at which a byte lane reads right."""

    lane: int
    bitslip: int
    first: int
    width: int

    @property
    def delay(self) -> int:
        """The middle."""
        return self.first + (self.width - 1) // 2

    def __str__(self) -> str:
        if not self.width:
            return f"byte lane {self.lane} none"
        last = self.first + self.width - 1
        return f"byte lane {self.lane} delays {self.first} to {last} at bitslip {self.bitslip}"


class DramController:
    """The controller behind ``Space.DRAM``; registers are called as LiteDRAM calls them.

    Methods raise ``DeviceError`` when the board cannot be reached.

    Args:
        client: The link to the board.
        board: What its bitstream says of it.
    """

    def __init__(self, client: LinkClient, board: BoardDescription) -> None:
        self._client, self._board, self._dram = client, board, board.dram
        if not 1 <= board.dram.ranks <= len(_RANKS):
            raise DeviceError(f"the board's DRAM has {board.dram.ranks} ranks; this host starts one or two")

    def start(self, *, progress: Progress | None = None) -> tuple[Window, ...]:
        """Start the chip anew, which loses its contents; returns the window chosen for each byte lane.

        Raises:
            DeviceError: a lane reads right at no setting; the memory stays closed.
        """
        self._execute(self._set("ddrctrl_init_done", 0), self._set("ddrctrl_init_error", 0))
        self._execute(self._set("sdram_dfii_control", 0))
        wait_cycles(self._client, int(RESET_SECONDS * self._board.clock))
        for _, address, bank, flags, cycles in self._dram.init_sequence:
            if flags & DfiCommand.CS:
                self._execute(self._place(0, address, bank), self._issue(0, flags))
            else:
                self._execute(self._set("sdram_dfii_control", flags))
            wait_cycles(self._client, cycles)
        windows = self._level(progress) if self._dram.phy.get("delays") else ()
        self._execute(self._set("sdram_dfii_control", DfiControl.SEL), self._set("ddrctrl_init_done", 1))
        return windows

    def give_up(self) -> None:
        """Mark the memory as faulty and close it."""
        self._execute(self._set("ddrctrl_init_error", 1), self._set("ddrctrl_init_done", 0))

    def _level(self, progress: Progress | None) -> tuple[Window, ...]:
        """Try every bitslip and delay, all lanes at once, and put each lane into the middle of its widest window."""
        slips, delays = self._dram.phy["bitslips"], self._dram.phy["delays"]
        right = np.zeros((slips, delays, self._dram.byte_lanes), bool)
        everyone = (1 << self._dram.byte_lanes) - 1
        self._execute(*self._adjust(everyone, "rdly_dq_bitslip_rst"))
        with counting(progress, total=slips * delays, label="read leveling", unit="setting") as count:
            for slip in range(slips):
                self._execute(*self._adjust(everyone, "rdly_dq_rst"))
                for delay in range(delays):
                    right[slip, delay] = self._lanes_right()
                    self._execute(*self._adjust(everyone, "rdly_dq_inc"))
                    count(1)
                self._execute(*self._adjust(everyone, "rdly_dq_bitslip"))
        windows = tuple(widest(lane, right[..., lane]) for lane in range(self._dram.byte_lanes))
        for window in windows:
            mask = 1 << window.lane
            strobes = ["rdly_dq_bitslip_rst", "rdly_dq_rst"]
            strobes += window.bitslip * ["rdly_dq_bitslip"] + window.delay * ["rdly_dq_inc"]
            self._execute(*self._adjust(mask, *strobes))
        # A read at too late a delay has left the gate of a lane's strobe open; one at a right delay closes it.
        self._lanes_right()
        self._execute(*self._adjust(everyone))
        self._require(windows)
        return windows

    def _require(self, windows: Sequence[Window]) -> None:
        bad = [window.lane for window in windows if window.width < NARROWEST]
        if not bad:
            bad = [lane for lane, right in enumerate(self._lanes_right()) if not right]
        if bad:
            self.give_up()
            raise DeviceError(
                f"read leveling failed: byte lane {bad[0]} of the DRAM has no window of {NARROWEST} delays in which it "
                f"reads right (widest: {'; '.join(map(str, windows))}): switch the board off and on, then start "
                "again; if that does not help, its memory or the bitstream's timing is at fault"
            )

    def _lanes_right(self) -> npt.NDArray[np.bool_]:
        """Which byte lanes give back what was written, on every rank, with a strobe that was seen."""
        dram = self._dram
        rng = np.random.default_rng(_SEED)
        right = np.ones(dram.byte_lanes, bool)
        for _ in range(PATTERNS):
            for rank in _RANKS[: dram.ranks] if dram.ranks > 1 else (DfiCommand(0),):
                right &= self._burst_right(rng, rank)
                if not right.any():
                    return right
        return right

    def _burst_right(self, rng: np.random.Generator, rank: DfiCommand) -> npt.NDArray[np.bool_]:
        """Write a burst at row 0 and read it back; which byte lanes are right."""
        dram = self._dram
        phases, (_, words) = range(dram.phases), self._register("sdram_dfii_pi0_wrdata")
        burst = [int.from_bytes(rng.bytes(4 * words), "little") for _ in phases]
        self._execute(
            self._set("ddrphy_burstdet_clr", 1),
            *(self._place(phase, 0, 0) for phase in phases),
            *(self._set(f"sdram_dfii_pi{phase}_wrdata", burst[phase]) for phase in phases),
            self._issue(0, ACTIVATE | rank),
            self._issue(dram.phy["wrphase"], WRITE | rank),
            self._issue(dram.phy["rdphase"], READ | rank),
            self._issue(0, PRECHARGE | rank),
        )
        *read, seen = self._values(*(f"sdram_dfii_pi{phase}_rddata" for phase in phases), "ddrphy_burstdet_seen")
        wrong = b"".join((a ^ b).to_bytes(4 * words, "little") for a, b in zip(read, burst, strict=True))
        lanes = np.frombuffer(wrong, np.uint8).reshape(-1, dram.byte_lanes)
        strobes = seen >> np.arange(dram.byte_lanes) & 1
        return ~lanes.any(axis=0) & strobes.astype(bool)

    def _adjust(self, lanes: int, *strobes: str) -> Iterator[Request]:
        """Pulse adjustments of lanes while their strobes are held, then hold and let go all, which realigns them."""
        yield self._set("ddrphy_dly_sel", lanes)
        for name in strobes:
            yield self._set(f"ddrphy_{name}", 1)
        for value in (0, (1 << self._dram.byte_lanes) - 1, 0):
            yield self._set("ddrphy_dly_sel", value)

    def _place(self, phase: int, address: int, bank: int) -> Request:
        first, _ = self._register(f"sdram_dfii_pi{phase}_address", f"sdram_dfii_pi{phase}_baddress")
        return write_words(Space.DRAM, first, address, bank)

    def _issue(self, phase: int, flags: int) -> Request:
        first, _ = self._register(f"sdram_dfii_pi{phase}_command", f"sdram_dfii_pi{phase}_command_issue")
        return write_words(Space.DRAM, first, flags, 1)

    def _set(self, name: str, value: int) -> Request:
        address, words = self._register(name)
        return write_words(Space.DRAM, address, *(value >> 32 * i & 0xFFFF_FFFF for i in reversed(range(words))))

    def _values(self, *names: str) -> list[int]:
        places = [self._register(name) for name in names]
        read = self._client.execute(Request(Kind.READ, Space.DRAM, at, 4 * words) for at, words in places)
        return [int.from_bytes(np.frombuffer(data, "<u4").astype(">u4").tobytes(), "big") for data in read]

    def _register(self, name: str, following: str = "") -> tuple[int, int]:
        """Address and words of a register, after which ``following`` stands."""
        registers = self._dram.registers
        if name not in registers or (following and registers.get(following, (None,))[0] != registers[name][0] + 4):
            raise DeviceError(
                f"the board's DRAM controller has no register {following or name} where this host needs it: "
                "build and flash a bitstream of this release"
            )
        return registers[name]

    def _execute(self, *requests: Request) -> None:
        self._client.execute(requests)


def widest(lane: int, right: npt.NDArray[np.bool_]) -> Window:
    """The widest run of neighbouring delays in ``right`` [bitslips, delays]; the first of equals, width 0 for none."""
    best = Window(lane, 0, 0, 0)
    for slip, row in enumerate(right):
        edges = np.flatnonzero(np.diff(np.concatenate(([False], row, [False]))))
        for first, end in edges.reshape(-1, 2).tolist():
            if end - first > best.width:
                best = Window(lane, slip, first, end - first)
    return best
