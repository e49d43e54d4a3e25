"""A LiteDRAM controller as the host sees it through its registers: the DFI injector, PHY adjustments, a chip.

The chip works only after the init sequence of its description, in order and with its pauses. What is read of a byte
lane is right only while bitslip and delay of the PHY are in the lane's window, and the strobes were paused and let go
since the last change. One burst a row is kept, which is what leveling writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sterna.spec.board import DramDescription
from sterna.spec.dfi import DfiCommand, DfiControl

_PHY_REGISTERS = (
    *("dly_sel", "rdly_dq_rst", "rdly_dq_inc", "rdly_dq_bitslip_rst", "rdly_dq_bitslip"),
    *("burstdet_clr", "burstdet_seen"),
)
_PHASE_REGISTERS = ("command", "command_issue", "address", "baddress")
_PRECHARGE_ALL = 1 << 10
_RESET_SECONDS = 200e-6  # RESET# is low at least so long
_DDR3_STEPS = (
    ("Release reset", 0, 0, DfiControl.ODT | DfiControl.RESET_N, 50000),
    ("Bring CKE high", 0, 0, DfiControl.CKE | DfiControl.ODT | DfiControl.RESET_N, 10000),
    ("Load Mode Register 2, CWL=5", 0x200, 2, 15, 0),
    ("Load Mode Register 3", 0, 3, 15, 0),
    ("Load Mode Register 1", 6, 1, 15, 0),
    ("Load Mode Register 0, CL=6, BL=8", 0x320, 0, 15, 200),
    ("ZQ Calibration", _PRECHARGE_ALL, 0, DfiCommand.WE | DfiCommand.CS, 200),
)
_SDR_STEPS = (
    ("Bring CKE high", 0, 0, DfiControl.CKE | DfiControl.ODT | DfiControl.RESET_N, 20000),
    ("Precharge All", _PRECHARGE_ALL, 0, DfiCommand.RAS | DfiCommand.WE | DfiCommand.CS, 0),
    ("Load Mode Register, CL=2, BL=1", 0x20, 0, 15, 200),
)


def software_dram(
    kind: str = "DDR3", *, size: int = 1 << 24, data_bytes: int = 16, byte_lanes: int = 2, ranks: int = 1
) -> DramDescription:
    """The description of a controller of ``kind`` "DDR3" or "SDR"; registers stand as LiteDRAM has them."""
    ddr3 = kind == "DDR3"
    phases = 2 if ddr3 else 1
    words = max(1, byte_lanes * (4 if ddr3 else 1) // 4)
    registers = {"ddrctrl_init_done": (0, 1), "ddrctrl_init_error": (4, 1)}
    if ddr3:
        registers |= {f"ddrphy_{name}": (0x800 + 4 * i, 1) for i, name in enumerate(_PHY_REGISTERS)}
    address = 0x1000
    registers["sdram_dfii_control"] = (address, 1)
    for phase in range(phases):
        for name, count in (*((name, 1) for name in _PHASE_REGISTERS), ("wrdata", words), ("rddata", words)):
            address += 4
            registers[f"sdram_dfii_pi{phase}_{name}"] = (address, count)
            address += 4 * (count - 1)
    return DramDescription(
        kind=kind,
        bytes=size,
        data_bytes=data_bytes,
        byte_lanes=byte_lanes,
        ranks=ranks,
        phases=phases,
        phy={"rdphase": 0, "wrphase": phases - 1} | ({"bitslips": 4, "delays": 8} if ddr3 else {}),
        registers=registers,
        init_sequence=tuple((*step[:3], int(step[3]), step[4]) for step in (_DDR3_STEPS if ddr3 else _SDR_STEPS)),
    )


class SoftwareDram:
    """Registers of the controller in 32-bit words.

    Args:
        description: What it is.
        clock: Its frequency in hertz.
        cycles: Returns the cycles that have passed.
        windows: Of each byte lane the bitslip and the delays at which it reads right; default: one that is never the
            start value.
    """

    def __init__(
        self,
        description: DramDescription,
        *,
        clock: int,
        cycles: Callable[[], int],
        windows: Sequence[tuple[int, range]] | None = None,
    ) -> None:
        self._description, self._cycles = description, cycles
        self._reset_cycles = int(clock * _RESET_SECONDS)
        lanes = description.byte_lanes
        self._windows = tuple(windows) if windows else tuple((1 + i % 3, range(2, 6)) for i in range(lanes))
        self._words = {
            address + 4 * i: (name, i) for name, (address, count) in description.registers.items() for i in range(count)
        }
        self._values = dict.fromkeys(self._words, 0)
        self._values[description.registers["sdram_dfii_control"][0]] = DfiControl.SEL
        self._slips, self._delays = [0] * lanes, [0] * lanes
        self._settled = [True] * lanes
        self._seen: list[tuple[int, int, int]] = []  # commands and controls since the reset
        self._right = False  # as the description has them, so far
        self._since = 0  # cycle of the last
        self._row: dict[tuple[int, int], int] = {}  # open in each bank of each rank
        self._bursts: dict[tuple[int, int, int], list[list[int]]] = {}

    @property
    def ready(self) -> bool:
        """The host has written init_done."""
        return bool(self._get("ddrctrl_init_done"))

    @property
    def failed(self) -> bool:
        """The host has written init_error."""
        return bool(self._get("ddrctrl_init_error"))

    @property
    def started(self) -> bool:
        """The chip works, and the controller drives it."""
        return self._working and bool(self._get("sdram_dfii_control") & DfiControl.SEL)

    @property
    def lanes(self) -> tuple[bool, ...]:
        """Which byte lanes read right."""
        if "delays" not in self._description.phy:
            return (True,) * self._description.byte_lanes
        places = zip(self._windows, self._slips, self._delays, self._settled, strict=True)
        return tuple(slip == good and delay in delays and calm for (good, delays), slip, delay, calm in places)

    def knows(self, address: int) -> bool:
        """Whether there is such a register."""
        return address in self._words

    def read(self, address: int) -> int:
        """A register's value."""
        return self._values[address]

    def write(self, address: int, value: int) -> None:
        """Write a register, with what that does."""
        name, _ = self._words[address]
        if name.endswith(("rddata", "burstdet_seen")):
            return
        self._values[address] = value
        if name == "sdram_dfii_control":
            self._control(value)
        elif name.endswith("command_issue"):
            self._command(int(name.removeprefix("sdram_dfii_pi").split("_")[0]))
        elif name == "ddrphy_burstdet_clr":
            self._set("ddrphy_burstdet_seen", 0)
        elif name.startswith("ddrphy"):
            self._adjust(name.removeprefix("ddrphy_"))

    @property
    def _working(self) -> bool:
        return self._right and len(self._seen) == len(self._description.init_sequence)

    def _get(self, name: str) -> int:
        address, words = self._description.registers[name]
        value = 0
        for i in range(words):
            value = value << 32 | self._values[address + 4 * i]
        return value

    def _set(self, name: str, value: int) -> None:
        address, words = self._description.registers[name]
        for i in range(words):
            self._values[address + 4 * i] = value >> 32 * (words - 1 - i) & 0xFFFF_FFFF

    def _control(self, value: int) -> None:
        if value & DfiControl.SEL:
            return
        if not value & (DfiControl.CKE | DfiControl.RESET_N):
            self._seen, self._right, self._since = [], True, self._cycles()
            self._row, self._bursts = {}, {}
        else:
            self._step(value, 0, 0)

    def _step(self, flags: int, address: int, bank: int) -> None:
        """Compare a step of the init sequence with the description, and the pause before it with what is asked."""
        steps = self._description.init_sequence
        index = len(self._seen)
        if index < len(steps):
            pause = steps[index - 1][4] if index else self._reset_cycles
            waited = (self._cycles() - self._since) % (1 << 32)
            self._right &= steps[index][1:4] == (address, bank, flags) and waited >= pause
            self._since = self._cycles()
            self._seen.append((flags, address, bank))

    def _command(self, phase: int) -> None:
        at = f"sdram_dfii_pi{phase}"
        flags, address, bank = (self._get(f"{at}_{name}") for name in ("command", "address", "baddress"))
        if self._get("sdram_dfii_control") & DfiControl.SEL or not flags & DfiCommand.CS:
            return
        if self._working:
            asked = [flag for flag in (DfiCommand.RANK_0, DfiCommand.RANK_1) if flags & flag]
            everyone = (DfiCommand.RANK_0, DfiCommand.RANK_1)[: self._description.ranks]
            for rank in asked or everyone:
                self._access(flags, phase, (rank, bank), address)
        else:
            self._step(flags, address, bank)

    def _access(self, flags: int, phase: int, place: tuple[int, int], address: int) -> None:
        """A command to one bank of one rank; two ranks that drive the pins at once give nonsense."""
        phy, phases = self._description.phy, range(self._description.phases)
        which = flags & (DfiCommand.RAS | DfiCommand.CAS | DfiCommand.WE)
        if which == DfiCommand.RAS:
            self._row[place] = address
        elif which == DfiCommand.RAS | DfiCommand.WE:
            self._row.pop(place, None)
        elif place in self._row and which == DfiCommand.CAS | DfiCommand.WE:
            if flags & DfiCommand.WRDATA and phase == phy["wrphase"]:
                burst = [self._bytes(self._get(f"sdram_dfii_pi{p}_wrdata")) for p in phases]
                self._bursts[*place, self._row[place]] = burst
        elif place in self._row and which == DfiCommand.CAS and flags & DfiCommand.RDDATA and phase == phy["rdphase"]:
            alone = self._description.ranks == 1 or flags & (DfiCommand.RANK_0 | DfiCommand.RANK_1)
            self._read_burst(self._bursts.get((*place, self._row[place]), []) if alone else [])

    def _bytes(self, value: int) -> list[int]:
        _, words = self._description.registers["sdram_dfii_pi0_wrdata"]
        return list(value.to_bytes(4 * words, "little"))

    def _read_burst(self, burst: list[list[int]]) -> None:
        lanes = self.lanes
        for phase, data in enumerate(burst):
            got = [byte if lanes[i % len(lanes)] else (byte << 1 | byte >> 7) & 0xFF ^ 1 for i, byte in enumerate(data)]
            self._set(f"sdram_dfii_pi{phase}_rddata", int.from_bytes(bytes(got), "little"))
        if "delays" in self._description.phy:
            places = zip(self._windows, self._delays, strict=True)
            self._set("ddrphy_burstdet_seen", sum((d in delays) << i for i, ((_, delays), d) in enumerate(places)))

    def _adjust(self, name: str) -> None:
        chosen = self._get("ddrphy_dly_sel")
        for lane in range(self._description.byte_lanes):
            if name == "dly_sel":
                self._settled[lane] = not chosen >> lane & 1
            elif chosen >> lane & 1:
                self._adjust_lane(lane, name)

    def _adjust_lane(self, lane: int, name: str) -> None:
        phy = self._description.phy
        if name == "rdly_dq_rst":
            self._delays[lane] = 0
        elif name == "rdly_dq_inc":
            self._delays[lane] = (self._delays[lane] + 1) % phy["delays"]
        elif name == "rdly_dq_bitslip_rst":
            self._slips[lane] = 0
        elif name == "rdly_dq_bitslip":
            self._slips[lane] = (self._slips[lane] + 1) % phy["bitslips"]
