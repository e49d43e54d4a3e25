"""Moves the payload of one request between the frame buffer and memory or registers."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from sterna.spec.link import PAYLOAD_BYTES, REQUEST, Reply, Space
from sterna_hw.link.access import MemoryAccess, RegisterAccess
from sterna_hw.link.framing import BODY_BYTES

REGISTER_BYTES = 4


def transfer_job() -> data.StructLayout:
    """Layout of a job: a request that may be carried out."""
    return data.StructLayout({"write": 1, "space": Space, "address": 32, "length": range(PAYLOAD_BYTES + 1)})


class Transfer(wiring.Component):
    """Bytes go a cycle each through one beat of memory, or through one register, which is then accessed whole.

    Reads are not overlapped with what they feed; a write of memory goes on while the next beat gathers.

    Args:
        address_width: Of the memory, bits.
        data_bytes: A beat of the memory.
        patience: Cycles that a bus may take to begin or end an access. One that takes longer is left to itself.

    Attributes:
        job: In At least one byte. For registers, address and length are multiples of four.
        done: Out High for a cycle at the end.
        status: Out With ``done``: OK; BUS_ERROR (an error response of the memory, or no answer in time);
            BAD_REQUEST (an error of a register).
        index: Out Place in the frame buffer that is read; of the payload's first byte while no job runs.
        byte: In What is there, a cycle later.
        write: Out Whether ``result`` is to be written to the buffer, at ``result_index``.
        result_index, result: Out Likewise.
        claims: Out A job with the memory is under way.
        memory, registers, space: Out Accesses; ``space`` says of what, and is not MEMORY for ``registers``.
    """

    def __init__(self, *, address_width: int, data_bytes: int, patience: int) -> None:
        if not REGISTER_BYTES <= data_bytes <= 64:
            raise ValueError(f"data_bytes must be 4 to 64, not {data_bytes!r}")
        if address_width > 32:
            raise ValueError(f"address_width must be at most 32, not {address_width!r}")
        self._address_width, self._data_bytes, self._patience = address_width, data_bytes, patience
        super().__init__(
            {
                "job": In(stream.Signature(transfer_job())),
                "done": Out(1),
                "status": Out(Reply),
                "index": Out(range(BODY_BYTES)),
                "byte": In(8),
                "write": Out(1),
                "result_index": Out(range(BODY_BYTES)),
                "result": Out(8),
                "claims": Out(1),
                "memory": Out(MemoryAccess(address_width, data_bytes)),
                "registers": Out(RegisterAccess()),
                "space": Out(Space),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        memory, registers = self.memory, self.registers
        beat_bits, register_bits = exact_log2(self._data_bytes), exact_log2(REGISTER_BYTES)
        job_write, of_memory = Signal(), Signal()
        address = Signal(32 - register_bits)  # counts registers, also of memory
        lane = Signal(range(self._data_bytes))
        left = Signal(range(PAYLOAD_BYTES + 1))
        position = Signal(range(BODY_BYTES), init=REQUEST.size)
        gathered = [Signal(8, name=f"lane_{i}") for i in range(self._data_bytes)]
        strobes = Signal(self._data_bytes)
        waited = Signal(range(self._patience + 1))

        move, ends = Signal(), Signal()  # a byte is moved; it is the last of its beat or register
        tired = waited == self._patience
        m.d.comb += [
            ends.eq((left == 1) | Mux(of_memory, lane.all(), lane[:register_bits].all())),
            self.index.eq(position + move),
            memory.address.eq(address[beat_bits - register_bits :]),
            memory.data.eq(Cat(gathered)),
            memory.strobes.eq(strobes),
            memory.write.eq(job_write),
            registers.address.eq(address),
            registers.data.eq(Cat(gathered[:REGISTER_BYTES])),
            registers.write.eq(job_write),
        ]
        m.d.sync += [self.write.eq(0), self.result_index.eq(position), waited.eq(0)]
        byte_read = Mux(
            of_memory, memory.result.word_select(lane, 8), registers.result.word_select(lane[:register_bits], 8)
        )
        with m.If(move):
            m.d.sync += [left.eq(left - 1), position.eq(position + 1), lane.eq(Mux(ends, 0, lane + 1))]

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.comb += [self.job.ready.eq(1), memory.start.eq(1)]
                request = self.job.payload
                m.d.sync += [
                    job_write.eq(request.write),
                    self.space.eq(request.space),
                    of_memory.eq(request.space == Space.MEMORY),
                    address.eq(request.address[register_bits:]),
                    lane.eq(Mux(request.space == Space.MEMORY, request.address[:beat_bits], 0)),
                    left.eq(request.length),
                    self.status.eq(Reply.OK),
                    strobes.eq(0),
                ]
                with m.If(self.job.valid):
                    m.next = "ACCESS"
                    with m.If(request.write):
                        m.next = "GATHER"
            with m.State("GATHER"):
                m.d.comb += move.eq(1)
                for i, byte in enumerate(gathered):
                    with m.If(lane == i):
                        m.d.sync += [byte.eq(self.byte), strobes[i].eq(1)]
                with m.If(ends):
                    m.next = "ACCESS"
            with m.State("ACCESS"):
                m.d.comb += [memory.valid.eq(of_memory), registers.valid.eq(~of_memory)]
                m.d.sync += waited.eq(waited + 1)
                with m.If(Mux(of_memory, memory.ready, registers.ready)):
                    m.d.sync += waited.eq(0)
                    m.next = "WAIT"
                with m.Elif(tired):
                    self._give_up(m)
            with m.State("WAIT"):
                m.d.sync += waited.eq(waited + 1)
                with m.If(Mux(of_memory, memory.done, registers.done)):
                    m.d.sync += [
                        waited.eq(0),
                        strobes.eq(0),
                        address.eq(address + Mux(of_memory, self._data_bytes // REGISTER_BYTES, 1)),
                    ]
                    m.next = "SCATTER"
                    with m.If(job_write):
                        m.next = "GATHER"
                        with m.If(left == 0):
                            m.next = "SETTLE"
                    with m.If(~of_memory & registers.error):
                        m.d.sync += self.status.eq(Reply.BAD_REQUEST)
                        m.next = "END"
                with m.Elif(tired):
                    self._give_up(m)
            with m.State("SCATTER"):
                m.d.comb += move.eq(1)
                m.d.sync += [self.write.eq(1), self.result.eq(byte_read)]
                with m.If(ends):
                    m.next = "ACCESS"
                    with m.If(left == 1):
                        m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.sync += waited.eq(waited + 1)
                with m.If(~of_memory | memory.idle):
                    with m.If(of_memory & memory.error):
                        m.d.sync += self.status.eq(Reply.BUS_ERROR)
                    m.next = "END"
                with m.Elif(tired):
                    self._give_up(m)
            with m.State("END"):
                m.d.comb += self.done.eq(1)
                m.d.sync += position.eq(REQUEST.size)
                m.next = "IDLE"
        m.d.comb += self.claims.eq(of_memory & ~fsm.ongoing("IDLE"))
        return m

    def _give_up(self, m: Module) -> None:
        m.d.sync += self.status.eq(Reply.BUS_ERROR)
        m.next = "END"
