"""Who answers on a link: the board's own registers and the description in its bitstream."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from sterna.errors import DeviceError
from sterna.link.client import LinkClient
from sterna.spec import link
from sterna.spec.board import BUILD_ID_WORDS, MAGIC, OFFSET, BoardDescription, MemoryState
from sterna.spec.link import Space

BUILD_DIGITS = 8 * BUILD_ID_WORDS  # of a build id in hexadecimal
_LENGTH_BYTES = 4
_LONGEST = 1 << 16  # bytes of a description that are believed


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a board says of itself."""

    build: str  # hexadecimal build id
    memory: MemoryState
    damaged: int  # frames that arrived so since configuration
    overflows: int  # bytes that the board had no room for
    description: BoardDescription


def read_identity(client: LinkClient) -> Identity:
    """Ask the board at the other end of ``client``.

    Raises:
        DeviceError: nothing answers, it is no board of ours, or it speaks another version of the protocol.
        SternaError: its description was written by another release.
    """
    client.sync()
    words = struct.unpack(f"<{len(OFFSET)}I", client.read(Space.BOARD, 0, 4 * len(OFFSET)))
    own = dict(zip(OFFSET, words, strict=True))
    if own["MAGIC"] != MAGIC:
        raise DeviceError(
            f"no Sterna board answers at {client.name}: MAGIC is 0x{own['MAGIC']:08X}, expected 0x{MAGIC:08X}"
        )
    if own["LINK_VERSION"] >> 16 != link.VERSION >> 16:
        raise DeviceError(
            f"the board at {client.name} speaks version {own['LINK_VERSION'] >> 16} of the link protocol, this host "
            f"version {link.VERSION >> 16}: build and flash a bitstream of this release"
        )
    number = sum(own[f"BUILD_ID_{i}"] << 32 * i for i in range(BUILD_ID_WORDS))
    return Identity(
        build=f"{number:0{BUILD_DIGITS}x}",
        memory=MemoryState(own["MEMORY_STATE"]),
        damaged=own["DAMAGED"],
        overflows=own["OVERFLOWS"],
        description=_description(client),
    )


def _description(client: LinkClient) -> BoardDescription:
    size = client.read_word(Space.DESCRIPTION, 0)
    if size > _LONGEST:
        raise DeviceError(f"the board at {client.name} claims a description of {size} bytes: build and flash it again")
    packed = client.read(Space.DESCRIPTION, _LENGTH_BYTES, -(-size // 4) * 4)
    return BoardDescription.unpack(packed[:size])
