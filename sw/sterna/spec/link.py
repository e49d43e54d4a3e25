"""Frames between host and board, on any link that carries bytes (docs/link.md).

A frame is ``FLAG``, a body, and ``FLAG``; one flag may end a frame and begin the next, and empty bodies are ignored. In
a body, ``FLAG`` and ``ESCAPE`` are sent as ``ESCAPE`` and the byte xor ``ESCAPED`` (as in HDLC, RFC 1662). A body ends
with the CRC-32 of all before it (``zlib.crc32``), little-endian like every field. A request is a :data:`REQUEST`
header, then for a WRITE ``length`` bytes of payload; a reply is a :data:`REPLY` header, then for a READ that went well
``length`` bytes. SYNC is the operation 0.

Requests are executed once and in order: the board counts the sequence number that it expects (of
:data:`SEQUENCES`). A request with that number is executed and the count moves on, also when the answer is BAD_REQUEST,
NOT_READY, BUSY or BUS_ERROR. One of the :data:`WINDOW` numbers before it was executed already and its reply was lost: a
READ is done again, a WRITE is only answered, with the status that it had. Any other number
is answered by SEQUENCE, any frame with a bad CRC or length by DAMAGED, both with the number expected, from which the
host goes on. SYNC has any number and makes the next one the expected. So the host may have up to :data:`WINDOW`
requests under way, all READs or all WRITEs, and of its replies a board keeps only the status.
"""

from __future__ import annotations

import struct
from enum import IntEnum

VERSION = 0x0001_0000  # of this protocol, major << 16 | minor

FLAG = 0x7E
ESCAPE = 0x7D
ESCAPED = 0x20  # xor of an escaped byte

REQUEST = struct.Struct("<BBHQ")  # operation, sequence, length in bytes, byte address
REPLY = struct.Struct("<BBH")  # status, sequence, length in bytes
CRC = struct.Struct("<I")
CRC_POLYNOMIAL = 0x04C1_1DB7  # reflected, all ones before and inverted after: CRC-32 of ISO 3309
PAYLOAD_BYTES = 1024  # at most
SEQUENCES = 256
WINDOW = 16
RECEIVE_BYTES = 1024  # that a board takes while it is busy, on links without flow control

UART_RATES = (12_000_000, 6_000_000, 3_000_000, 2_000_000, 1_000_000, 115_200)  # baud, 8N1: a board has one of them
USB_VENDOR, USB_PRODUCT = 0x1209, 0x0001  # pid.codes' pair for tests; a product that is sold needs one of its own
USB_ENDPOINT = 1  # bulk, both ways: 0x01 OUT carries requests, 0x81 IN replies; the bytes are those of a UART


class Kind(IntEnum):
    """Low four bits of an operation."""

    SYNC = 0  # length 0; the answer is OK
    READ = 1
    WRITE = 2


class Space(IntEnum):
    """What the address of a READ or WRITE means: bits 4 to 7 of an operation.

    All but MEMORY hold 32-bit registers: address and length are multiples of four, and a length of more than four goes
    on to the next registers.
    """

    MEMORY = 0  # the board's DRAM, of any alignment
    CORE = 1  # the accelerator's registers (sterna.spec.registers)
    BOARD = 2  # the board's own (sterna.spec.board)
    DRAM = 3  # the DRAM controller's
    DESCRIPTION = 4  # read-only: length in bytes, then that many of a zlib-compressed JSON object (sterna.spec.board)


class Reply(IntEnum):
    """Status of a reply."""

    OK = 0
    SEQUENCE = 1  # a request went missing; the reply's number is the one expected, nothing was done
    DAMAGED = 2  # a frame with a bad CRC or length; likewise
    BAD_REQUEST = 3  # no such operation, space or register, or a length that it does not take, as 0 and those above
    # PAYLOAD_BYTES; registers before one that does not exist, or cannot be written, were accessed
    NOT_READY = 4  # MEMORY before the DRAM is initialised; nothing was done
    BUSY = 5  # MEMORY while a token runs; nothing was done
    BUS_ERROR = 6  # the memory answered with an error response, a bus not in time, or MEMORY is smaller than that


REPLY_TEXT = {
    Reply.OK: "done",
    Reply.SEQUENCE: "a request was lost on the link",
    Reply.DAMAGED: "a frame arrived damaged",
    Reply.BAD_REQUEST: "the board knows no such request; its bitstream is older than this host software",
    Reply.NOT_READY: "the board's DRAM is not initialised",
    Reply.BUSY: "the memory is not open to the host while a token runs",
    Reply.BUS_ERROR: "the board's memory answered with an error",
}


def operation(kind: Kind, space: Space) -> int:
    """The first byte of a request."""
    return space << 4 | kind
