"""Register map of the accelerator: 32-bit registers on AXI4-Lite (docs/program.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag

MAGIC = 0x4E525453  # "STRN"
VERSION = 0x0003_0000  # major << 16 | minor
MAX_SLOTS = 16  # room in the map


class Access(Enum):
    """Who changes a register: the host (RW), the accelerator (RO)."""

    RO = "ro"
    RW = "rw"


class Control(IntFlag):
    """Bits of CONTROL; writing 1 acts, reading gives 0."""

    START = 1 << 0  # run one token
    FRESH = 1 << 1  # with START: the recurrent state counts as zero
    LOGITS = 1 << 2  # with START: write the logits to LOGITS_ADDRESS
    RESET = 1 << 3  # abandon the token, drain the memory port, clear errors and reports
    PREFIX = 1 << 4  # with START: the program is the beginning of one, and its last descriptor ends the token


class SlotMode(IntFlag):
    """Bits of SLOT_n, for builds of several slots; above them, from bit ``SOURCE_OFFSET``, a number of a slot."""

    IDLE = 1 << 0  # the slot takes no part: its state stays, it has no row, no result and no error
    FRESH = 1 << 1  # its recurrent state counts as zero, as with FRESH in CONTROL
    LOGITS = 1 << 2  # its logits are written, as with LOGITS in CONTROL
    CHAINED = 1 << 3  # it goes on from the new state of the slot before: the next token of the same sequence
    MOVED = 1 << 4  # it goes on from the state that the slot of the number held before the token, not from its own


SOURCE_OFFSET = 8  # of the slot's number in SLOT_n
SOURCE_BITS = 4


class Status(IntFlag):
    """Bits of STATUS."""

    BUSY = 1 << 0
    DONE = 1 << 1  # set when a token ends without error, cleared by START and RESET
    ERROR = 1 << 2  # ERROR_CAUSE says why; only RESET clears it


class ErrorCause(IntEnum):
    """Values of ERROR_CAUSE, with what the driver tells the user."""

    NONE = 0
    BUS_READ = 1
    BUS_WRITE = 2
    BAD_OPCODE = 3
    BAD_TRIT = 4
    STREAM_END = 5
    BAD_TOKEN = 6


ERROR_TEXT = {
    ErrorCause.NONE: "no error",
    ErrorCause.BUS_READ: "the memory answered a read with an error response",
    ErrorCause.BUS_WRITE: "the memory answered a write with an error response",
    ErrorCause.BAD_OPCODE: "the program holds an illegal descriptor; load the memory image again",
    ErrorCause.BAD_TRIT: "a weight byte is no trit code; the memory image is corrupt, load it again",
    ErrorCause.STREAM_END: "the program does not end with END; PROGRAM_BEATS does not fit the memory image",
    ErrorCause.BAD_TOKEN: "the token id is outside the vocabulary",
}


class Stall(IntEnum):
    """Why a cycle of a token brought no beat: exactly one reason a cycle, so beats and stalls add up to CYCLES.

    In the first three a read was under way. In all others the buffer was full, or the program read to its end, and the
    reason is what the core was doing.
    """

    STARTUP = 0
    MEMORY = 1
    RESTART = 2
    FETCH = 3
    LOAD = 4
    EMBED = 5
    SUMSQ = 6
    QUANT = 7
    SCALAR = 8
    TABLES = 9
    LANES = 10
    DRAIN = 11
    WRITER = 12
    END = 13


STALL_TEXT = {
    Stall.STARTUP: "before the first beat of the token",
    Stall.MEMORY: "the memory gave no beat though asked: its rate, its refreshes",
    Stall.RESTART: "the first beat after a full buffer was under way",
    Stall.FETCH: "buffer full while a descriptor was fetched and decoded",
    Stall.LOAD: "buffer full while a LOAD took its words",
    Stall.EMBED: "buffer full in an EMBED",
    Stall.SUMSQ: "buffer full in a SUMSQ",
    Stall.QUANT: "buffer full in the passes of a QUANT",
    Stall.SCALAR: "buffer full while a QUANT waited for its reciprocal or scale",
    Stall.TABLES: "buffer full while a MATMUL waited for the tables of its next columns",
    Stall.LANES: "buffer full until the lanes had taken the words of a burst",
    Stall.DRAIN: "buffer full while the last rows of a MATMUL went through lanes and epilogue",
    Stall.WRITER: "buffer full while logits waited for the memory to take them",
    Stall.END: "the token ended",
}


@dataclass(frozen=True)
class Register:
    """One 32-bit register at byte ``offset``, in builds of at least ``slots`` slots."""

    name: str
    offset: int
    access: Access
    doc: str
    slots: int = 1


def _registers() -> tuple[Register, ...]:
    ro, rw = Access.RO, Access.RW
    table = (
        ("MAGIC", ro, f"0x{MAGIC:08X}"),
        ("VERSION", ro, "interface version, major << 16 | minor"),
        ("CONFIG_HASH", ro, "first 32 bits of the configuration's hash"),
        ("CONTROL", rw, "START, FRESH, LOGITS, RESET, PREFIX; reads as 0"),
        ("STATUS", ro, "BUSY, DONE, ERROR"),
        ("ERROR_CAUSE", ro, "why ERROR is set"),
        ("TOKEN", rw, "token id to run; of slot 0"),
        ("SAMPLED", ro, "token id that the sampler chose; of slot 0"),
        ("PROGRAM_ADDRESS", rw, "byte address of the program, low 32 bits, a multiple of the beat"),
        ("PROGRAM_ADDRESS_HIGH", rw, "and the high bits"),
        ("PROGRAM_BEATS", rw, "length of the program in memory beats"),
        ("EMBED_ADDRESS", rw, "byte address of the embedding table, low 32 bits"),
        ("EMBED_ADDRESS_HIGH", rw, "and the high bits"),
        ("EMBED_BEATS", rw, "memory beats of one embedding row, its descriptor included"),
        ("VOCABULARY", rw, "rows of the embedding table"),
        (
            "LOGITS_ADDRESS",
            rw,
            "byte address to which logits go as 32-bit integers, low 32 bits; those of several slots side by side",
        ),
        ("LOGITS_ADDRESS_HIGH", rw, "and the high bits"),
        ("CYCLES", ro, "cycles of the last token, from START to DONE, low 32 bits"),
        ("CYCLES_HIGH", ro, "and the high bits"),
        ("READ_BEATS", ro, "memory beats read for the last token"),
        ("SATURATIONS", ro, "row results of the last token that were clamped"),
        ("TOKENS", ro, "tokens finished since reset"),
    )
    listed = tuple(Register(name, 4 * index, access, doc) for index, (name, access, doc) in enumerate(table))
    stalls = (Register(stall_register(s), STALL_OFFSET + 4 * s, ro, f"stalled cycles: {STALL_TEXT[s]}") for s in Stall)
    return (*listed, *stalls, *_slot_registers())


def _slot_registers() -> Iterator[Register]:
    """Those of a slot each; TOKEN and SAMPLED of slot 0 are the old ones."""
    for slot in range(MAX_SLOTS):
        least = max(slot + 1, 2)
        if slot:
            yield Register(token_register(slot), TOKEN_OFFSET + 4 * slot, Access.RW, SLOT_DOC["TOKEN"], least)
            yield Register(sampled_register(slot), SAMPLED_OFFSET + 4 * slot, Access.RO, SLOT_DOC["SAMPLED"], least)
        yield Register(slot_register(slot), SLOT_OFFSET + 4 * slot, Access.RW, SLOT_DOC["SLOT"], least)


def token_register(slot: int) -> str:
    """Name of the register with the token id to run in ``slot``."""
    return f"TOKEN_{slot}" if slot else "TOKEN"


def sampled_register(slot: int) -> str:
    """Name of the register with the token id that the sampler of ``slot`` chose."""
    return f"SAMPLED_{slot}" if slot else "SAMPLED"


def slot_register(slot: int) -> str:
    """Name of the register with the :class:`SlotMode` of ``slot``."""
    return f"SLOT_{slot}"


def registers_of(slots: int) -> tuple[Register, ...]:
    """The registers of a build."""
    return tuple(register for register in REGISTERS if register.slots <= slots)


def stall_register(stall: Stall) -> str:
    """Name of the register with the cycles of ``stall``."""
    return f"STALL_{stall.name}"


STALL_BITS = 4  # room for 16 reasons
STALL_OFFSET = 0x80  # of the first, a register a reason; the room is aligned to its size
SLOT_DOC = {
    "TOKEN": "token id to run in slot n, from 1 on; in builds of so many slots",
    "SAMPLED": "token id that the sampler chose for slot n, from 1 on",
    "SLOT": f"what slot n does, from 0 on, in builds of several: bits below, a slot's number from bit {SOURCE_OFFSET}",
}
TOKEN_OFFSET, SAMPLED_OFFSET, SLOT_OFFSET = 0x100, 0x140, 0x180  # of slot 0, if it had one there
REGISTERS = _registers()
REGISTERS_BY_NAME = {register.name: register for register in REGISTERS}
OFFSET = {register.name: register.offset for register in REGISTERS}
REGISTER_SPACE_BITS = 9  # byte address width of the register port
