"""What is done about a request: the rule of sequence numbers, and the checks before a transfer."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from sterna.spec.link import CRC, PAYLOAD_BYTES, REPLY, REQUEST, SEQUENCES, WINDOW, Kind, Reply, Space
from sterna_hw.link.framing import BODY_BYTES, body_byte
from sterna_hw.link.transfer import transfer_job

REQUEST_HEADER = data.StructLayout({"kind": 4, "space": 4, "sequence": 8, "length": 16, "address": 64})
REPLY_HEADER = data.StructLayout({"status": 8, "sequence": 8, "length": 16})
REPLY_BITS = exact_log2(REPLY.size)
assert REQUEST_HEADER.size == 8 * REQUEST.size and REPLY_HEADER.size == 8 * REPLY.size
assert REQUEST.size % REPLY.size == 0  # so that low bits of a place in the buffer count bytes of the reply's header


class RequestHandler(wiring.Component):
    """Takes a frame, has it carried out, and replies; one after the other.

    Args:
        memory_bytes: Size of the memory, a power of two; a request beyond it is answered BUS_ERROR.

    Attributes:
        write, byte, index, end, good: In The frame, from ``FrameReceiver``.
        listening: Out Frames are taken; the frame buffer belongs to the receiver.
        replying: Out The frame buffer is read at ``reply_index``.
        job: Out To ``Transfer``. ``done``, ``status``: In From it.
        reply_index: Out The byte of the frame buffer that the reply needs next.
        reply_byte: In What is there, a cycle later.
        reply: Out To ``FrameSender``. ``sender_idle``: In From it.
        memory_ready: In The memory is initialised.
        memory_free: In The memory is the host's to use.
        damaged: Out High for a cycle for each damaged frame.
    """

    def __init__(self, *, memory_bytes: int) -> None:
        self._memory_bits = exact_log2(memory_bytes)
        super().__init__(
            {
                "write": In(1),
                "byte": In(8),
                "index": In(range(BODY_BYTES + 2)),
                "end": In(1),
                "good": In(1),
                "listening": Out(1),
                "replying": Out(1),
                "job": Out(stream.Signature(transfer_job())),
                "done": In(1),
                "status": In(Reply),
                "reply_index": Out(range(BODY_BYTES)),
                "reply_byte": In(8),
                "reply": Out(stream.Signature(body_byte())),
                "sender_idle": In(1),
                "memory_ready": In(1),
                "memory_free": In(1),
                "damaged": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        request = Signal(REQUEST_HEADER)
        answer = Signal(REPLY_HEADER)
        with m.If(self.write & (self.index < REQUEST.size)):
            m.d.sync += request.eq(Cat(request.as_value()[8:], self.byte))

        good = Signal()
        body = Signal.like(self.index)
        whole = Signal()  # the body has the length that the header asks for
        behind = Signal(range(SEQUENCES))  # requests since the one with this number was due
        expected = Signal(range(SEQUENCES))
        fresh = Signal()  # this one was due, and its status is to be kept
        refusal = Signal(Reply)
        is_write = request.kind == Kind.WRITE
        m.submodules.statuses = statuses = memory.Memory(shape=Reply, depth=WINDOW, init=[])
        kept, known = statuses.write_port(), statuses.read_port(domain="comb")
        slot = request.sequence[: (WINDOW - 1).bit_length()]
        m.d.comb += [kept.addr.eq(slot), kept.data.eq(answer.status), kept.en.eq(fresh), known.addr.eq(slot)]
        m.d.sync += fresh.eq(0)
        m.d.comb += [
            self.job.payload.write.eq(is_write),
            self.job.payload.space.eq(request.space),
            self.job.payload.address.eq(request.address),
            self.job.payload.length.eq(request.length),
        ]
        replied = self._elaborate_reply(m, answer)
        self._elaborate_refusal(m, request, refusal)

        with m.FSM():
            with m.State("LISTEN"):
                m.d.comb += self.listening.eq(~self.end)
                m.d.sync += [good.eq(self.good), body.eq(self.index)]
                with m.If(self.end):
                    m.next = "CHECK"
            with m.State("CHECK"):
                payload = Mux(is_write, request.length, 0)
                m.d.sync += [
                    whole.eq((body == REQUEST.size + CRC.size + payload) | (request.kind > Kind.WRITE)),
                    behind.eq(expected - request.sequence),
                ]
                m.next = "ADMIT"
            with m.State("ADMIT"):
                m.d.sync += [answer.sequence.eq(request.sequence), answer.length.eq(0)]
                m.next = "REPLY"
                with m.If(~good | ~whole | (body < REQUEST.size + CRC.size)):
                    m.d.comb += self.damaged.eq(1)
                    m.d.sync += [answer.status.eq(Reply.DAMAGED), answer.sequence.eq(expected)]
                with m.Elif((Cat(request.kind, request.space) == Kind.SYNC) & (request.length == 0)):
                    m.d.sync += [answer.status.eq(Reply.OK), expected.eq(request.sequence + 1)]
                with m.Elif(behind == 0):
                    m.d.sync += expected.eq(request.sequence + 1)
                    m.next = "PERMIT"
                with m.Elif(behind > WINDOW):
                    m.d.sync += [answer.status.eq(Reply.SEQUENCE), answer.sequence.eq(expected)]
                with m.Elif(is_write):
                    m.d.sync += answer.status.eq(known.data)
                with m.Else():
                    m.next = "PERMIT"
            with m.State("PERMIT"):
                m.d.comb += self.job.valid.eq(refusal == Reply.OK)
                m.d.sync += [answer.status.eq(refusal), fresh.eq(refusal != Reply.OK)]
                m.next = "REPLY"
                with m.If(refusal == Reply.OK):
                    m.next = "EXECUTE"
            with m.State("EXECUTE"):
                m.d.sync += answer.status.eq(self.status)
                with m.If(self.done):
                    m.d.sync += [
                        fresh.eq(1),
                        answer.length.eq(Mux(is_write | (self.status != Reply.OK), 0, request.length)),
                    ]
                    m.next = "REPLY"
            with m.State("REPLY"):
                m.d.comb += self.replying.eq(1)
                with m.If(replied & self.sender_idle):
                    m.next = "LISTEN"
        return m

    def _elaborate_refusal(self, m: Module, request: data.View, refusal: Signal) -> None:
        """Why a request cannot be carried out. What is compared settles in the cycle before it is used."""
        illegal, outside = Signal(), Signal()
        address_bits = self._memory_bits
        last = Signal(address_bits + 1)  # byte, of a range that begins inside
        unaligned = (request.address[:2] | request.length[:2]).any()
        m.d.sync += [
            illegal.eq(
                ((request.kind != Kind.READ) & (request.kind != Kind.WRITE))
                | (request.space > max(Space))
                | (request.length == 0)
                | (request.length > PAYLOAD_BYTES)
                | ((request.space != Space.MEMORY) & (unaligned | request.address[32:].any()))
            ),
            last.eq(request.address[:address_bits] + (request.length[: PAYLOAD_BYTES.bit_length()] - 1)),
        ]
        m.d.comb += outside.eq(last[address_bits] | request.address[address_bits:].any())
        m.d.comb += refusal.eq(Reply.OK)
        with m.If(illegal):
            m.d.comb += refusal.eq(Reply.BAD_REQUEST)
        with m.Elif(request.space == Space.MEMORY):
            with m.If(~self.memory_ready):
                m.d.comb += refusal.eq(Reply.NOT_READY)
            with m.Elif(~self.memory_free):
                m.d.comb += refusal.eq(Reply.BUSY)
            with m.Elif(outside):
                m.d.comb += refusal.eq(Reply.BUS_ERROR)

    def _elaborate_reply(self, m: Module, answer: data.View) -> Signal:
        """Hands on header and payload while ``replying``; the result is high when all is handed on.

        The header takes the places before the payload in the frame buffer.
        """
        first = REQUEST.size - REPLY.size
        position = Signal(range(BODY_BYTES), init=first)
        following = Signal.like(position)  # made beforehand: the buffer's address is the longest path of the link
        last = Signal.like(position)
        load, finished = Signal(), Signal()
        reply = self.reply
        m.d.sync += last.eq(REQUEST.size - 1 + answer.length)
        begun = Signal()  # `last` has settled
        m.d.comb += [
            load.eq(begun & ~finished & (~reply.valid | reply.ready)),
            self.reply_index.eq(Mux(load, following, position)),
        ]
        header = answer.as_value().word_select(position[:REPLY_BITS], 8)
        with m.If(reply.ready):
            m.d.sync += reply.valid.eq(0)
        with m.If(load):
            m.d.sync += [
                reply.valid.eq(1),
                reply.payload.data.eq(Mux(position < REQUEST.size, header, self.reply_byte)),
                reply.payload.last.eq(position == last),
                finished.eq(position == last),
                position.eq(following),
                following.eq(following + 1),
            ]
        m.d.sync += begun.eq(self.replying)
        with m.If(~self.replying):
            m.d.sync += [position.eq(first), following.eq(first + 1), finished.eq(0)]
        return finished & ~reply.valid
