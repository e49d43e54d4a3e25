"""The description of a board as registers that can only be read."""

from __future__ import annotations

from amaranth import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In

from sterna_hw.link.access import RegisterAccess


class DescriptionRom(wiring.Component):
    """The number of bytes, then the bytes, the last register filled with zeros; one access every two cycles.

    Args:
        content: The bytes (``BoardDescription.pack()``).

    Attributes:
        access: In From the transfer; a write, or a read beyond the last byte, is an error.
    """

    def __init__(self, *, content: bytes) -> None:
        padded = content + bytes(-len(content) % 4)
        self._words = [len(content), *(int.from_bytes(padded[i : i + 4], "little") for i in range(0, len(padded), 4))]
        super().__init__({"access": In(RegisterAccess())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rom = rom = memory.Memory(shape=32, depth=len(self._words), init=self._words)
        port, access = rom.read_port(), self.access
        begins = access.valid & access.ready
        m.d.comb += [
            access.ready.eq(~access.done),
            port.addr.eq(access.address),
            port.en.eq(begins),
            access.result.eq(port.data),
        ]
        m.d.sync += [
            access.done.eq(begins),
            access.error.eq(access.write | access.address[len(port.addr) :].any() | (port.addr >= len(self._words))),
        ]
        return m
