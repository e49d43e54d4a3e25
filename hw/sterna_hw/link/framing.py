"""Frames of ``sterna.spec.link``: flags, escapes and CRC, one byte a cycle."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.crc import Algorithm
from amaranth.lib.wiring import In, Out

from sterna.spec.link import CRC, CRC_POLYNOMIAL, ESCAPE, ESCAPED, FLAG, PAYLOAD_BYTES, REQUEST

BODY_BYTES = REQUEST.size + PAYLOAD_BYTES + CRC.size  # of the longest frame, without flags and escapes

CRC_32 = Algorithm(
    crc_width=8 * CRC.size,
    polynomial=CRC_POLYNOMIAL,
    initial_crc=0xFFFF_FFFF,
    reflect_input=True,
    reflect_output=True,
    xor_output=0xFFFF_FFFF,
)


def body_byte() -> data.StructLayout:
    """Layout of a byte of a frame's body; ``last`` marks the one before the CRC."""
    return data.StructLayout({"data": 8, "last": 1})


class FrameReceiver(wiring.Component):
    """Takes flags and escapes out of a stream of bytes, and checks the CRC.

    A byte of a body, its CRC included, leaves in the cycle after it was taken; ``end`` comes in the cycle after the
    flag.

    Attributes:
        received: In Bytes of the link; ready while ``enable``, except at ``end``.
        enable: In Whether bytes are taken.
        restart: In Forget what there is of a frame, and the byte that is taken in this cycle; a flag comes next.
        write: Out High with each byte of a body.
        byte: Out That byte.
        index: Out Its place in the body, BODY_BYTES + 1 at most; at ``end``, the number of bytes.
        end: Out High for a cycle after each body that was not empty.
        good: Out With ``end``: the body ends with the CRC of the bytes before it, and is not too long.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "received": In(stream.Signature(8)),
                "enable": In(1),
                "restart": In(1),
                "write": Out(1),
                "byte": Out(8),
                "index": Out(range(BODY_BYTES + 2)),
                "end": Out(1),
                "good": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC_32().create()
        flag, escaped = Signal(), Signal()  # a flag was taken, an escape before this byte
        received = self.received.payload
        m.d.comb += [
            self.received.ready.eq(self.enable & ~flag),
            crc.data.eq(self.byte),
            crc.valid.eq(self.write),
            crc.start.eq(flag),
            self.end.eq(flag & (self.index != 0) & ~self.restart),
            self.good.eq(crc.match_detected & (self.index <= BODY_BYTES)),
        ]
        m.d.sync += [self.write.eq(0), flag.eq(0)]
        with m.If(self.received.valid & self.received.ready):
            m.d.sync += [self.byte.eq(received ^ Mux(escaped, ESCAPED, 0)), escaped.eq(0)]
            with m.If(received == FLAG):
                m.d.sync += flag.eq(1)
            with m.Elif(received == ESCAPE):
                m.d.sync += escaped.eq(1)
            with m.Else():
                m.d.sync += self.write.eq(1)
        with m.If(self.write & (self.index <= BODY_BYTES)):
            m.d.sync += self.index.eq(self.index + 1)
        with m.If(flag | self.restart):
            m.d.sync += self.index.eq(0)
        with m.If(self.restart):
            m.d.sync += [self.write.eq(0), flag.eq(0)]
        return m


class FrameSender(wiring.Component):
    """Makes a frame of a body: flag, body and CRC with escapes, flag.

    The first flag is offered in the cycle after the first byte of a body, then a byte a cycle if it is taken.

    Attributes:
        body: In Bytes, without the CRC.
        sent: Out Bytes for the link.
        idle: Out No frame is begun, all bytes are taken.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "body": In(stream.Signature(body_byte())),
                "sent": Out(stream.Signature(8)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC_32().create()
        body, sent = self.body, self.sent
        room = Signal()
        byte = Signal(8)  # to be sent, with an escape if it has to be
        present = Signal()  # there is one
        special, escaped = Signal(), Signal()
        taken = Signal()  # it went out itself
        index = Signal(range(CRC.size))
        m.d.comb += [
            room.eq(~sent.valid | sent.ready),
            special.eq((byte == FLAG) | (byte == ESCAPE)),
            taken.eq(present & room & (~special | escaped)),
            crc.data.eq(body.payload.data),
            crc.valid.eq(body.valid & body.ready),
        ]
        with m.If(room):
            m.d.sync += sent.valid.eq(present)
            with m.If(present):
                m.d.sync += [
                    sent.payload.eq(Mux(special, Mux(escaped, byte ^ ESCAPED, ESCAPE), byte)),
                    escaped.eq(special & ~escaped),
                ]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += crc.start.eq(1)
                with m.If(room & body.valid):
                    m.d.sync += [sent.valid.eq(1), sent.payload.eq(FLAG)]
                    m.next = "BODY"
            with m.State("BODY"):
                m.d.comb += [present.eq(body.valid), byte.eq(body.payload.data), body.ready.eq(taken)]
                with m.If(taken & body.payload.last):
                    m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += [present.eq(1), byte.eq(crc.crc.word_select(index, 8))]
                with m.If(taken):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == CRC.size - 1):
                        m.next = "FLAG"
            with m.State("FLAG"), m.If(room):
                m.d.sync += [sent.valid.eq(1), sent.payload.eq(FLAG)]
                m.next = "IDLE"
        m.d.comb += self.idle.eq(fsm.ongoing("IDLE") & ~sent.valid)
        return m
