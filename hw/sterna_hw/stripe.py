"""One wide memory port over several narrow ones, so that a design uses the rate of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from sterna_hw.axi import AXI4Read, AXI4Write, Response, burst_size

READ_DEPTH = 32  # beats by which one port may be ahead of another


class Stripe(wiring.Component):
    """Beats of ``wide`` are cut into slices, slice p of every beat lies in the memory behind ``port{p}``.

    A burst of ``wide`` is one of as many beats on every port, at ``bases[p]`` plus the address divided by the number of
    ports. So bursts stay within 4 KiB as long as the bases are multiples of it. Answers are joined: a beat is given
    when all slices are there, an error of one port is an error of the beat. Writes are answered when all ports have.

    Read data takes one cycle more than the slowest port's; addresses and write data pass in the same cycle.

    Args:
        address_width: Bits of a byte address of ``wide``.
        port_address_width: Bits of a byte address of a port.
        data_bytes: Width of ``wide``.
        bases: Byte address of each port's part of the memory; their number is that of the ports, a power of two.

    Attributes:
        wide: In AXI4, INCR bursts of full beats, answered in order.
        port0, port1, …: Out AXI4 of ``data_bytes / len(bases)`` bytes.
    """

    def __init__(self, *, address_width: int, port_address_width: int, data_bytes: int, bases: Sequence[int]) -> None:
        ports = len(bases)
        if ports < 2 or ports & (ports - 1) or ports > data_bytes:
            raise ValueError(f"the number of ports must be a power of two from 2 to {data_bytes}, not {ports!r}")
        part = 1 << (address_width - exact_log2(ports))
        for base in bases:
            if base % min(part, 4096) or base + part > 1 << port_address_width:
                raise ValueError(
                    f"a base must be a multiple of 4096 below 2**{port_address_width} - {part}, not {base:#x}"
                )
        self._bases = tuple(bases)
        narrow_bytes = data_bytes // ports
        self._narrow_bits, self._size = 8 * narrow_bytes, burst_size(narrow_bytes)
        super().__init__(
            {
                "wide": In(_both(address_width, data_bytes)),
                **{f"port{index}": Out(_both(port_address_width, narrow_bytes)) for index in range(ports)},
            }
        )

    @property
    def ports(self) -> int:
        """Number of narrow ports."""
        return len(self._bases)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        wide = self.wide
        ports = [getattr(self, f"port{index}") for index in range(self.ports)]
        for name in ("ar", "aw"):
            self._split(m, name, ports)
            address = getattr(wide, f"{name}addr")[exact_log2(self.ports) :]
            for port, base in zip(ports, self._bases, strict=True):
                m.d.comb += [
                    getattr(port, f"{name}addr").eq(address + base),
                    getattr(port, f"{name}len").eq(getattr(wide, f"{name}len")),
                    getattr(port, f"{name}size").eq(self._size),
                    getattr(port, f"{name}burst").eq(getattr(wide, f"{name}burst")),
                ]
        self._split(m, "w", ports)
        for index, port in enumerate(ports):
            m.d.comb += [
                port.wdata.eq(wide.wdata.word_select(index, self._narrow_bits)),
                port.wstrb.eq(wide.wstrb.word_select(index, self._narrow_bits // 8)),
                port.wlast.eq(wide.wlast),
            ]
        self._join_reads(m, ports)
        self._join_answers(m, ports)
        return m

    def _split(self, m: Module, channel: str, ports: Sequence[Any]) -> None:
        """A transfer of ``wide`` ends when every port has taken it; ports that took it early see no second one."""
        valid = getattr(self.wide, f"{channel}valid")
        taken = Signal(self.ports, name=f"{channel}_taken")
        now = Signal(self.ports, name=f"{channel}_now")
        m.d.comb += now.eq(taken | Cat(getattr(port, f"{channel}ready") for port in ports))
        m.d.comb += getattr(self.wide, f"{channel}ready").eq(now.all())
        for index, port in enumerate(ports):
            m.d.comb += getattr(port, f"{channel}valid").eq(valid & ~taken[index])
        with m.If(valid):
            m.d.sync += taken.eq(now & ~now.all().replicate(self.ports))

    def _join_reads(self, m: Module, ports: Sequence[Any]) -> None:
        layout = data.StructLayout({"data": self._narrow_bits, "resp": 2, "last": 1})
        buffers = []
        for index, port in enumerate(ports):
            buffer = SyncFIFOBuffered(width=layout.size, depth=READ_DEPTH)
            m.submodules[f"read{index}"] = buffer
            m.d.comb += [
                buffer.w_data.eq(Cat(port.rdata, port.rresp, port.rlast)),
                buffer.w_en.eq(port.rvalid),
                port.rready.eq(buffer.w_rdy),
            ]
            buffers.append(buffer)
        slices = [data.View(layout, buffer.r_data) for buffer in buffers]
        m.d.comb += [
            self.wide.rvalid.eq(Cat(buffer.r_rdy for buffer in buffers).all()),
            self.wide.rdata.eq(Cat(piece.data for piece in slices)),
            self.wide.rresp.eq(_worst([piece.resp for piece in slices])),
            self.wide.rlast.eq(slices[0].last),
        ]
        m.d.comb += [buffer.r_en.eq(self.wide.rvalid & self.wide.rready) for buffer in buffers]

    def _join_answers(self, m: Module, ports: Sequence[Any]) -> None:
        m.d.comb += [
            self.wide.bvalid.eq(Cat(port.bvalid for port in ports).all()),
            self.wide.bresp.eq(_worst([port.bresp for port in ports])),
        ]
        m.d.comb += [port.bready.eq(self.wide.bvalid & self.wide.bready) for port in ports]


def _both(address_width: int, data_bytes: int) -> wiring.Signature:
    read, write = AXI4Read(address_width, data_bytes), AXI4Write(address_width, data_bytes)
    return wiring.Signature({**dict(read.members), **dict(write.members)})


def _worst(responses: Sequence[Any]) -> Cat:
    """SLVERR when one is an error, OKAY otherwise."""
    return Cat(0, Cat(response[1] for response in responses).any())[: len(Response).bit_length() - 1]
