"""AXI4 and AXI4-Lite as wiring signatures, seen from the manager; a subordinate takes them with ``In``.

Members carry the plain AXI names, so that a port ``m_axi`` appears in Verilog as ``m_axi__araddr`` and so on. There are
no ids: every manager here wants its answers in order.
"""

from __future__ import annotations

from enum import IntEnum

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

BOUNDARY_BYTES = 4096  # no burst may cross a multiple of this


class Burst(IntEnum):
    """Values of AxBURST."""

    FIXED = 0
    INCR = 1
    WRAP = 2


class Response(IntEnum):
    """Values of RRESP and BRESP; bit 1 marks an error."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def _check_data_bytes(data_bytes: int) -> None:
    if data_bytes not in (1, 2, 4, 8, 16, 32, 64, 128):
        raise ValueError(f"AXI4 data must be 1, 2, 4, … or 128 bytes wide, not {data_bytes!r}")


def burst_size(data_bytes: int) -> int:
    """The AxSIZE of beats that use the whole data width."""
    _check_data_bytes(data_bytes)
    return data_bytes.bit_length() - 1


class AXI4Read(wiring.Signature):
    """Read channels: ``araddr`` of ``address_width`` bits, ``rdata`` of ``data_bytes`` bytes.

    Raises:
        ValueError: ``data_bytes`` is not a power of two up to 128.
    """

    def __init__(self, address_width: int, data_bytes: int) -> None:
        _check_data_bytes(data_bytes)
        super().__init__(
            {
                "araddr": Out(address_width),
                "arlen": Out(8),
                "arsize": Out(3),
                "arburst": Out(2),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(8 * data_bytes),
                "rresp": In(2),
                "rlast": In(1),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )


class AXI4Write(wiring.Signature):
    """Write channels: ``awaddr`` of ``address_width`` bits, ``wdata`` of ``data_bytes`` bytes, one ``wstrb`` bit each.

    Raises:
        ValueError: ``data_bytes`` is not a power of two up to 128.
    """

    def __init__(self, address_width: int, data_bytes: int) -> None:
        _check_data_bytes(data_bytes)
        super().__init__(
            {
                "awaddr": Out(address_width),
                "awlen": Out(8),
                "awsize": Out(3),
                "awburst": Out(2),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(8 * data_bytes),
                "wstrb": Out(data_bytes),
                "wlast": Out(1),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
            }
        )


class AXI4Lite(wiring.Signature):
    """All five channels of AXI4-Lite with 32-bit data and byte addresses of ``address_width`` bits."""

    def __init__(self, address_width: int) -> None:
        super().__init__(
            {
                "awaddr": Out(address_width),
                "awvalid": Out(1),
                "awready": In(1),
                "wdata": Out(32),
                "wstrb": Out(4),
                "wvalid": Out(1),
                "wready": In(1),
                "bresp": In(2),
                "bvalid": In(1),
                "bready": Out(1),
                "araddr": Out(address_width),
                "arvalid": Out(1),
                "arready": In(1),
                "rdata": In(32),
                "rresp": In(2),
                "rvalid": In(1),
                "rready": Out(1),
            }
        )
