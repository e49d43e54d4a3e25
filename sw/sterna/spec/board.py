"""What a board tells the host: its own registers, and the description that its bitstream carries (docs/link.md).

Nothing about a board has to be installed on the host: how its DRAM is started and which configuration it holds is
read from the board itself.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from enum import IntFlag
from typing import Any

from sterna.errors import SternaError
from sterna.spec.config import HardwareConfig
from sterna.spec.registers import Access, Register

MAGIC = 0x424E5253  # "SRNB"
BUILD_ID_WORDS = 4  # 128 bits of a SHA-256


class MemoryState(IntFlag):
    """Bits of MEMORY_STATE."""

    LOCKED = 1 << 0  # the clocks of the memory run
    READY = 1 << 1  # the host has initialised it
    FAILED = 1 << 2  # the host has found it faulty


_RO, _RW = Access.RO, Access.RW
_TABLE = (
    ("MAGIC", _RO, f"0x{MAGIC:08X}"),
    ("LINK_VERSION", _RO, "version of the link protocol, major << 16 | minor"),
    *((f"BUILD_ID_{i}", _RO, f"bits {32 * i} to {32 * i + 31} of the build id") for i in range(BUILD_ID_WORDS)),
    ("MEMORY_STATE", _RO, "LOCKED, READY, FAILED"),
    ("DAMAGED", _RO, "frames that arrived damaged since configuration"),
    ("OVERFLOWS", _RO, "bytes lost because the receive buffer was full"),
    ("CYCLES", _RO, "cycles of the clock since configuration, modulo 2**32; with a wall clock, its rate"),
    ("SCRATCH", _RW, "holds what the host writes; for tests of the link"),
)
REGISTERS = tuple(Register(name, 4 * index, access, doc) for index, (name, access, doc) in enumerate(_TABLE))
OFFSET = {register.name: register.offset for register in REGISTERS}
REGISTER_SPACE_BITS = 6  # byte address width


@dataclass(frozen=True, kw_only=True)
class DramDescription:
    """A LiteDRAM controller, as far as the host that starts it needs to know.

    Commands are flags of the DFI injector's command register. Cycles are of the controller's clock.
    """

    kind: str  # "DDR3" or "SDR"
    bytes: int  # of memory
    data_bytes: int  # of the AXI4 port
    byte_lanes: int  # of the data bus at the chip
    ranks: int = 1  # sets of chips on that bus
    phases: int  # DFI phases in a cycle of the controller
    phy: dict[str, int]  # latencies, read and write phase, and for DDR3 the number of bitslips and delays
    registers: dict[str, tuple[int, int]]  # name to byte address in Space.DRAM and number of 32-bit words, high first
    init_sequence: tuple[tuple[str, int, int, int, int], ...]  # what, address, bank, command, cycles to wait


@dataclass(frozen=True, kw_only=True)
class BoardDescription:
    """What a bitstream carries about itself, in ``Space.DESCRIPTION``."""

    board: str  # its name for ``make bitstream``
    clock: int  # hertz, of accelerator and memory controller
    links: tuple[str, ...]  # that the bitstream has: "uart:12000000", "usb"
    config: HardwareConfig
    dram: DramDescription

    def pack(self) -> bytes:
        """Compressed JSON, the same for the same description."""
        return zlib.compress(json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode(), 9)

    @classmethod
    def unpack(cls, data: bytes) -> BoardDescription:
        """The description in ``data``.

        Raises:
            SternaError: it is damaged, or written by another version.
        """
        try:
            fields: dict[str, Any] = json.loads(zlib.decompress(data))
            dram = fields.pop("dram")
            dram["registers"] = {name: tuple(place) for name, place in dram["registers"].items()}
            dram["init_sequence"] = tuple(tuple(step) for step in dram["init_sequence"])
            fields["links"] = tuple(fields["links"])
            return cls(
                **{**fields, "config": HardwareConfig(**fields["config"]), "dram": DramDescription(**dram)},
            )
        except (zlib.error, ValueError, KeyError, TypeError) as error:
            raise SternaError(
                f"the board's description cannot be read ({error}): its bitstream was built by another version of "
                "sterna; build and flash it again"
            ) from error
