"""Register map of the accelerator: 32-bit registers on AXI4-Lite (docs/program.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag

MAGIC = 0x4E525453  # "STRN"
VERSION = 0x0001_0000  # major << 16 | minor


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


@dataclass(frozen=True)
class Register:
    """One 32-bit register at byte ``offset``."""

    name: str
    offset: int
    access: Access
    doc: str


def _registers() -> tuple[Register, ...]:
    ro, rw = Access.RO, Access.RW
    table = (
        ("MAGIC", ro, f"0x{MAGIC:08X}"),
        ("VERSION", ro, "interface version, major << 16 | minor"),
        ("CONFIG_HASH", ro, "first 32 bits of the configuration's hash"),
        ("CONTROL", rw, "START, FRESH, LOGITS, RESET; reads as 0"),
        ("STATUS", ro, "BUSY, DONE, ERROR"),
        ("ERROR_CAUSE", ro, "why ERROR is set"),
        ("TOKEN", rw, "token id to run"),
        ("SAMPLED", ro, "token id that the sampler chose"),
        ("PROGRAM_ADDRESS", rw, "byte address of the program, low 32 bits, a multiple of the beat"),
        ("PROGRAM_ADDRESS_HIGH", rw, "and the high bits"),
        ("PROGRAM_BEATS", rw, "length of the program in memory beats"),
        ("EMBED_ADDRESS", rw, "byte address of the embedding table, low 32 bits"),
        ("EMBED_ADDRESS_HIGH", rw, "and the high bits"),
        ("EMBED_BEATS", rw, "memory beats of one embedding row, its descriptor included"),
        ("VOCABULARY", rw, "rows of the embedding table"),
        ("LOGITS_ADDRESS", rw, "byte address to which logits go as 32-bit integers, low 32 bits"),
        ("LOGITS_ADDRESS_HIGH", rw, "and the high bits"),
        ("CYCLES", ro, "cycles of the last token, from START to DONE, low 32 bits"),
        ("CYCLES_HIGH", ro, "and the high bits"),
        ("READ_BEATS", ro, "memory beats read for the last token"),
        ("STARVED_CYCLES", ro, "cycles of the last token in which the stream had room and the memory gave nothing"),
        ("SATURATIONS", ro, "row results of the last token that were clamped"),
        ("TOKENS", ro, "tokens finished since reset"),
    )
    return tuple(Register(name, 4 * index, access, doc) for index, (name, access, doc) in enumerate(table))


REGISTERS = _registers()
OFFSET = {register.name: register.offset for register in REGISTERS}
REGISTER_SPACE_BITS = 8  # byte address width of the register port
