"""The fast link: USB 2.0 at high speed as two streams of bytes."""

from typing import Any

from amaranth import Module, ResetInserter, ResetSignal, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import AsyncFIFO
from amaranth.lib.wiring import In, Out

from sterna.spec.link import CRC, REPLY, WINDOW
from sterna_hw.link.skid import Skid
from sterna_hw.link.usb_descriptors import FULL_SPEED_PACKET
from sterna_hw.link.usb_device import UlpiSignature, UsbDevice

REQUEST_DEPTH = 16  # bytes between the clocks: more than both synchronisers hold, so that each cycle can carry one
# Likewise, and room for the replies to a window of writes: a host may fetch them only when it has sent them all, while
# each reply, being followed by a pause, could else take one of the endpoint's two buffers. One block RAM.
REPLY_DEPTH = 2048
assert WINDOW * 2 * (REPLY.size + CRC.size + 1) <= REPLY_DEPTH  # every byte escaped, and a flag
PAUSE = 60  # cycles of 60 MHz: 1 us without a byte ends a packet; a board pauses less within a reply


class Packets(wiring.Component):
    """Ends packets where the stream pauses, in the ``usb`` domain.

    One byte is held back until the next one comes, or until none has come for :data:`PAUSE` cycles: then it is the last
    of its packet. While ``limit`` is high a packet also ends after :data:`FULL_SPEED_PACKET` - 1 bytes.

    Ports
    -----
    i : In(stream of bytes)
    o : Out(stream of {byte, last})
        Once valid, a byte and its ``last`` stay until they are taken.
    limit : In(1)
    """

    i: In(stream.Signature(8))
    o: Out(stream.Signature(data.StructLayout({"byte": 8, "last": 1})))
    limit: In(1)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        i, o = self.i, self.o
        held, full, pause, length = Signal(8), Signal(), Signal(range(PAUSE + 1)), Signal(range(FULL_SPEED_PACKET))
        paused = pause == PAUSE
        ends = paused | (self.limit & (length == FULL_SPEED_PACKET - 2))
        m.d.comb += [
            o.valid.eq(full & (i.valid | ends)),
            o.payload.byte.eq(held),
            o.payload.last.eq(ends),
            i.ready.eq(~full | (o.valid & o.ready)),
        ]
        with m.If(i.ready):
            m.d.usb += [held.eq(i.payload), full.eq(i.valid), pause.eq(0)]
        with m.Elif(~i.valid & ~paused):
            m.d.usb += pause.eq(pause + 1)
        with m.If(o.valid & o.ready):
            m.d.usb += length.eq(length + 1)
            with m.If(ends | ~self.limit):
                m.d.usb += length.eq(0)
        return m


class UsbLink(wiring.Component):
    """Byte streams of the ``sync`` domain to and from a USB host, over a ULPI PHY in the ``usb`` domain.

    The domain ``usb`` (60 MHz, with a reset) is the caller's: its clock comes from the PHY or goes to it, by board. Two
    bulk endpoints of 512 bytes carry plain bytes, packets mean nothing. What the host sends waits here and in the host
    while ``rx`` is held up; nothing is lost. A packet to the host leaves when it is full, or 1 us after the last
    byte. What is sent while no host has configured the device is dropped, so that a pulled cable does not hold up the
    sender.

    Parameters
    ----------
    board : str
        Product string, the name of the board.
    build_id : int
        128 bits, the serial number.

    Ports
    -----
    rx : Out(stream of bytes)
        From the host. One byte a cycle at most.
    tx : In(stream of bytes)
        To the host.
    ulpi : Out(UlpiSignature)
        The PHY is held in reset as long as ``sync`` is.
    """

    def __init__(self, *, board: str, build_id: int) -> None:
        self._device = UsbDevice(board=board, build_id=build_id)
        super().__init__(
            {"rx": Out(stream.Signature(8)), "tx": In(stream.Signature(8)), "ulpi": Out(UlpiSignature())},
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.device = device = self._device
        packets = Packets()
        unread = Signal()  # no host has configured the device: in reset, `packets` takes all and passes nothing on
        m.submodules.packets = ResetInserter({"usb": unread})(packets)
        m.submodules.from_host = from_host = AsyncFIFO(width=8, depth=REQUEST_DEPTH, w_domain="usb", r_domain="sync")
        m.submodules.to_host = to_host = AsyncFIFO(width=8, depth=REPLY_DEPTH, w_domain="sync", r_domain="usb")
        wiring.connect(m, device.rx, from_host.w_stream)
        wiring.connect(m, from_host.r_stream, wiring.flipped(self.rx))
        m.submodules.tx_skid = skid = Skid(8)  # whether the queue is full is known late
        wiring.connect(m, wiring.flipped(self.tx), skid.i)
        wiring.connect(m, skid.o, to_host.w_stream)
        wiring.connect(m, to_host.r_stream, packets.i)
        wiring.connect(m, packets.o, device.tx)
        wiring.connect(m, device.ulpi, wiring.flipped(self.ulpi))
        m.d.comb += [
            unread.eq(~device.configured),
            packets.limit.eq(~device.high_speed),
            device.phy_reset.eq(ResetSignal("sync", allow_reset_less=True)),
        ]
        return m
