"""A serial port whose bits need not last a whole number of cycles."""

from __future__ import annotations

from amaranth import C, Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from sterna.spec.link import RECEIVE_BYTES

PHASE_BITS = 16
FRAME_BITS = 10  # start, eight of data, stop
ERROR_BOUND = 0.25  # of a bit: what we may add to half a bit of margin, the rest is the other side's


def bit_step(clock_hz: int, baud: int) -> int:
    """Share of a bit in a cycle, in units of 2**-PHASE_BITS.

    Raises:
        ValueError: at the end of a frame an edge or a sample could be off by more than ``ERROR_BOUND`` of a bit: up to
            a cycle because they fall on whole cycles, and the rounding of the share times the bits of a frame.
    """
    for name, value in (("clock_hz", clock_hz), ("baud", baud)):
        if not isinstance(value, int) or value <= 0:
            raise ValueError(f"{name} must be a positive integer, not {value!r}")
    step = round((baud << PHASE_BITS) / clock_hz)
    drift = FRAME_BITS * abs(step * clock_hz / (baud << PHASE_BITS) - 1)
    if baud / clock_hz + drift > ERROR_BOUND:
        raise ValueError(
            f"{baud} baud cannot be made from a clock of {clock_hz} Hz: edges would be off by "
            f"{baud / clock_hz + drift:.2f} of a bit, at most {ERROR_BOUND} is allowed"
        )
    return step


class Uart(wiring.Component):
    """Eight data bits, no parity, one stop bit, no flow control.

    A byte is sampled in the middle of its bits and is there 6 cycles after the middle of its stop bit; one whose stop
    bit is low is dropped. Up to ``RECEIVE_BYTES`` wait in a buffer; what comes when it is full is lost. Bytes are sent
    back to back, at most two cycles longer than their bits.

    Args:
        clock_hz: Of the ``sync`` domain.
        baud: Bits a second; see :func:`bit_step` for the limits.

    Attributes:
        rx: In The pin; asynchronous.
        tx: Out The pin, from a register; high when nothing is sent.
        received: Out Bytes from the pin.
        sent: In Bytes for the pin.
        overflow: Out High for a cycle for each byte that was lost because the buffer was full.
    """

    def __init__(self, *, clock_hz: int, baud: int) -> None:
        self._step = bit_step(clock_hz, baud)
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "received": Out(stream.Signature(8)),
                "sent": In(stream.Signature(8)),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._elaborate_receiver(m)
        self._elaborate_sender(m)
        return m

    def _elaborate_receiver(self, m: Module) -> None:
        m.submodules.buffer = buffer = SyncFIFOBuffered(width=8, depth=RECEIVE_BYTES)
        rx = Signal(init=1)
        m.submodules.synchroniser = FFSynchronizer(self.rx, rx, init=1)

        # The edge came half a cycle before it was seen, on average, and the sample nearest to the middle is wanted:
        # one cycle of phase is set in advance.
        phase = Signal(PHASE_BITS)
        middle = Signal()  # of a bit
        shift = Signal(8)
        left = Signal(range(FRAME_BITS))  # bits after this one
        write = Signal()
        m.d.comb += middle.eq((phase + self._step)[PHASE_BITS])
        m.d.sync += [phase.eq(phase + self._step), write.eq(0)]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [phase.eq((1 << PHASE_BITS - 1) + self._step), left.eq(FRAME_BITS - 1)]
                with m.If(~rx):
                    m.next = "FRAME"
            with m.State("FRAME"), m.If(middle):
                m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.d.sync += write.eq(rx)
                    m.next = "STOP"
                with m.Elif((left == FRAME_BITS - 1) & rx):  # not a start bit
                    m.next = "IDLE"
                with m.Else():
                    m.d.sync += shift.eq(Cat(shift[1:], rx))
            with m.State("STOP"), m.If(rx):  # at once, but for a framing error or a break
                m.next = "IDLE"
        m.d.comb += [
            buffer.w_data.eq(shift),
            buffer.w_en.eq(write),
            self.overflow.eq(write & ~buffer.w_rdy),
            self.received.payload.eq(buffer.r_data),
            self.received.valid.eq(buffer.r_rdy),
            buffer.r_en.eq(self.received.ready),
        ]

    def _elaborate_sender(self, m: Module) -> None:
        phase = Signal(PHASE_BITS)
        edge = Signal()  # the bit ends with this cycle
        shift = Signal(FRAME_BITS - 1, init=-1)  # after this bit
        left = Signal(range(FRAME_BITS + 1))  # bits, this one included
        m.d.comb += [
            edge.eq((phase + self._step)[PHASE_BITS]),
            self.sent.ready.eq(left == 0),
        ]
        m.d.sync += phase.eq(phase + self._step)
        with m.If(left == 0):
            m.d.sync += phase.eq(0)
            with m.If(self.sent.valid):
                m.d.sync += [self.tx.eq(0), shift.eq(Cat(self.sent.payload, C(1, 1))), left.eq(FRAME_BITS)]
        with m.Elif(edge):
            m.d.sync += [Cat(self.tx, shift).eq(Cat(shift, C(1, 1))), left.eq(left - 1)]
