"""The board's end of the link: requests in, replies out, and the buses between which they go."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec.link import Space
from sterna.spec.registers import REGISTER_SPACE_BITS
from sterna_hw.axi import AXI4Lite, AXI4Read, AXI4Write
from sterna_hw.board_registers import BoardRegisters
from sterna_hw.dram import Wishbone
from sterna_hw.link.description import DescriptionRom
from sterna_hw.link.framing import BODY_BYTES, FrameReceiver, FrameSender
from sterna_hw.link.ports import AxiLitePort, MemoryPort, WishbonePort
from sterna_hw.link.requests import RequestHandler
from sterna_hw.link.transfer import Transfer

PATIENCE = 1 << 15  # cycles: dozens of refreshes, and fewer than fill a UART's receive buffer


class Endpoint(wiring.Component):
    """Executes the requests of ``sterna.spec.link``.

    A frame is kept in a buffer until its CRC is known, and the payload of a reply takes its place. So nothing is taken
    from the link from the end of a request to the end of its reply.

    Args:
        address_width: Bits of a byte address of the memory, 32 at most.
        data_bytes: A beat of the memory, 4 to 64.
        memory_bytes: Size of the memory, a power of two.
        description: Content of ``Space.DESCRIPTION``.
        build_id: 128 bits.
        patience: Cycles after which a bus that does not answer is an error.

    Attributes:
        received: In Bytes from the host.
        sent: Out Bytes to the host.
        restart: In Forget what there is of a frame; only while ``listening``.
        listening: Out Bytes are taken from the link.
        memory: Out The DRAM.
        core: Out The accelerator's registers.
        dram: Out The DRAM controller's registers.
        memory_free: In No token runs.
        memory_claimed: Out From the cycle after ``memory_free`` allowed a request until its last access has ended.
        memory_locked, memory_ready, memory_failed, overflow: In As in ``System``.
    """

    def __init__(
        self,
        *,
        address_width: int,
        data_bytes: int,
        memory_bytes: int,
        description: bytes,
        build_id: int,
        patience: int = PATIENCE,
    ) -> None:
        self._port = MemoryPort(address_width=address_width, data_bytes=data_bytes)
        self._transfer = Transfer(address_width=address_width, data_bytes=data_bytes, patience=patience)
        self._requests = RequestHandler(memory_bytes=memory_bytes)
        self._board = BoardRegisters(build_id=build_id)
        self._description = DescriptionRom(content=description)
        read, write = AXI4Read(address_width, data_bytes), AXI4Write(address_width, data_bytes)
        super().__init__(
            {
                "received": In(stream.Signature(8)),
                "sent": Out(stream.Signature(8)),
                "restart": In(1),
                "listening": Out(1),
                "memory": Out(wiring.Signature({**dict(read.members), **dict(write.members)})),
                "core": Out(AXI4Lite(REGISTER_SPACE_BITS)),
                "dram": Out(Wishbone()),
                "memory_free": In(1),
                "memory_claimed": Out(1),
                "memory_locked": In(1),
                "memory_ready": In(1),
                "memory_failed": In(1),
                "overflow": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receiver = receiver = FrameReceiver()
        m.submodules.sender = sender = FrameSender()
        m.submodules.requests = requests = self._requests
        m.submodules.transfer = transfer = self._transfer
        m.submodules.memory = port = self._port
        m.submodules.board = board = self._board
        m.submodules.description = description = self._description
        m.submodules.core = core = AxiLitePort(address_width=REGISTER_SPACE_BITS)
        m.submodules.dram = dram = WishbonePort()
        wiring.connect(m, wiring.flipped(self.received), receiver.received)
        wiring.connect(m, sender.sent, wiring.flipped(self.sent))
        wiring.connect(m, requests.reply, sender.body)
        wiring.connect(m, requests.job, transfer.job)
        wiring.connect(m, transfer.memory, port.access)
        wiring.connect(m, port.bus, wiring.flipped(self.memory))
        wiring.connect(m, core.bus, wiring.flipped(self.core))
        wiring.connect(m, dram.bus, wiring.flipped(self.dram))
        for name in ("write", "byte", "index", "end", "good"):
            m.d.comb += getattr(requests, name).eq(getattr(receiver, name))
        m.d.comb += [
            receiver.enable.eq(requests.listening),
            receiver.restart.eq(self.restart),
            requests.done.eq(transfer.done),
            requests.status.eq(transfer.status),
            requests.sender_idle.eq(sender.idle),
            requests.memory_ready.eq(self.memory_ready),
            requests.memory_free.eq(self.memory_free),
            self.listening.eq(requests.listening),
            self.memory_claimed.eq(transfer.claims | ~port.access.idle),
            board.damaged.eq(requests.damaged),
            board.locked.eq(self.memory_locked),
            board.ready.eq(self.memory_ready),
            board.failed.eq(self.memory_failed),
            board.overflow.eq(self.overflow),
        ]

        # The frame buffer; what comes after the longest body lands beyond it and makes the frame damaged.
        m.submodules.buffer = buffer = memory.Memory(shape=8, depth=BODY_BYTES + 2, init=[])
        write, read = buffer.write_port(), buffer.read_port()
        m.d.comb += [
            write.en.eq(receiver.write | transfer.write),
            write.addr.eq(Mux(transfer.write, transfer.result_index, receiver.index)),
            write.data.eq(Mux(transfer.write, transfer.result, receiver.byte)),
            read.addr.eq(Mux(requests.replying, requests.reply_index, transfer.index)),
            transfer.byte.eq(read.data),
            requests.reply_byte.eq(read.data),
        ]

        # Registers; what was read is kept for the transfer, which begins to use it in the cycle after `done`.
        spaces: dict[Space, Any] = {
            Space.CORE: core,
            Space.BOARD: board,
            Space.DRAM: dram,
            Space.DESCRIPTION: description,
        }
        with m.Switch(transfer.space):
            for space, registers in spaces.items():
                with m.Case(space):
                    m.d.comb += [
                        registers.access.valid.eq(transfer.registers.valid),
                        transfer.registers.ready.eq(registers.access.ready),
                        transfer.registers.done.eq(registers.access.done),
                        transfer.registers.error.eq(registers.access.error),
                    ]
                    with m.If(registers.access.done):
                        m.d.sync += transfer.registers.result.eq(registers.access.result)
        for registers in spaces.values():
            m.d.comb += [
                registers.access.write.eq(transfer.registers.write),
                registers.access.address.eq(transfer.registers.address),
                registers.access.data.eq(transfer.registers.data),
            ]
        return m
