"""What the memory stream reads for a token: the embedding row of each slot, then the program."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import segment, token_request


class TokenSegments(wiring.Component):
    """Asks for the segments of a token, one after the other, beside what else goes on.

    The first is offered two cycles after ``start``, a further row two cycles after the one before was taken, and the
    program in the cycle after the last row. The stream may take the program only after words of the rows have made room
    in the buffer.

    Attributes:
        start: In One cycle: ask for the rows of ``slots`` and for the program.
        slots: In The slots that are not idle, with ``start``.
        request: In The token, from the cycle after ``start`` on.
        segment: Out(stream) To the weight stream.
        asking: Out Segments are left.
        bad_token: Out One cycle: a token id is not below ``vocabulary``; nothing more is asked for until reset.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "slots": In(config.slots),
                "request": In(token_request(config)),
                "segment": Out(stream.Signature(segment(config))),
                "asking": Out(1),
                "bad_token": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        request, slots = self.request, self._config.slots
        beat_bits = self._config.beat_bytes.bit_length() - 1
        waiting = Signal(slots)
        rest = Signal(slots)
        row = Signal(40)  # beats of the table before the token's row
        token = Signal(32)  # of the first slot that waits
        m.d.comb += rest.eq(waiting & (waiting - 1))
        for slot in reversed(range(slots)):
            with m.If(waiting[slot]):
                m.d.comb += token.eq(request.tokens[slot])
        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += waiting.eq(self.slots)
                with m.If(self.start):
                    m.next = "ADDRESS"
                    with m.If(~self.slots.any()):
                        m.next = "PROGRAM"
            with m.State("ADDRESS"):
                m.d.sync += row.eq(token[:24] * request.embed_beats[:16])
                m.next = "ROW"
                with m.If(token >= request.vocabulary):
                    m.d.comb += self.bad_token.eq(1)
                    m.next = "FAILED"
            with m.State("ROW"):
                m.d.comb += [
                    self.segment.valid.eq(1),
                    self.segment.payload.address.eq(request.embed_address + (row << beat_bits)),
                    self.segment.payload.beats.eq(request.embed_beats),
                ]
                with m.If(self.segment.ready):
                    m.d.sync += waiting.eq(rest)
                    m.next = "PROGRAM"
                    with m.If(rest.any()):
                        m.next = "ADDRESS"
            with m.State("PROGRAM"):
                m.d.comb += [
                    self.segment.valid.eq(1),
                    self.segment.payload.address.eq(request.program_address),
                    self.segment.payload.beats.eq(request.program_beats),
                ]
                with m.If(self.segment.ready):
                    m.next = "IDLE"
            with m.State("FAILED"):
                pass
        m.d.comb += self.asking.eq(~fsm.ongoing("IDLE"))
        return m
