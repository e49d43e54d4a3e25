"""The board's own registers, ``Space.BOARD``; the map is data in ``sterna.spec.board``."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In

from sterna.spec import link
from sterna.spec.board import BUILD_ID_WORDS, MAGIC, REGISTER_SPACE_BITS, REGISTERS, MemoryState
from sterna.spec.registers import Access
from sterna_hw.link.access import RegisterAccess


class BoardRegisters(wiring.Component):
    """Reads and writes take two cycles each.

    Args:
        build_id: Shown in BUILD_ID_0 (low bits) and the registers after it.

    Attributes:
        access: In From the transfer; an address without a register, or a write to one that is read-only, is an error.
        locked, ready, failed: In MEMORY_STATE; ``locked`` may be asynchronous.
        damaged: In High for a cycle for each damaged frame.
        overflow: In High for a cycle for each byte lost.
    """

    def __init__(self, *, build_id: int) -> None:
        if not 0 <= build_id < 1 << 32 * BUILD_ID_WORDS:
            raise ValueError(f"build_id must have at most {32 * BUILD_ID_WORDS} bits, not {build_id:#x}")
        self._build_id = build_id
        super().__init__(
            {
                "access": In(RegisterAccess()),
                "locked": In(1),
                "ready": In(1),
                "failed": In(1),
                "damaged": In(1),
                "overflow": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        access = self.access
        locked = Signal()
        m.submodules.synchroniser = FFSynchronizer(self.locked, locked)
        damaged, overflows, cycles, scratch = Signal(32), Signal(32), Signal(32), Signal(32)
        m.d.sync += [
            cycles.eq(cycles + 1),
            damaged.eq(damaged + self.damaged),
            overflows.eq(overflows + self.overflow),
        ]
        bits = {MemoryState.LOCKED: locked, MemoryState.READY: self.ready, MemoryState.FAILED: self.failed}
        values = {
            "MAGIC": MAGIC,
            "LINK_VERSION": link.VERSION,
            **{f"BUILD_ID_{i}": self._build_id >> 32 * i & 0xFFFF_FFFF for i in range(BUILD_ID_WORDS)},
            "MEMORY_STATE": Cat(bits[MemoryState(1 << i)] for i in range(len(bits))),
            "DAMAGED": damaged,
            "OVERFLOWS": overflows,
            "CYCLES": cycles,
            "SCRATCH": scratch,
        }
        m.d.comb += access.ready.eq(~access.done)
        begins = access.valid & access.ready
        m.d.sync += [access.done.eq(begins), access.error.eq(1)]
        index_bits = REGISTER_SPACE_BITS - 2
        index, outside = access.address[:index_bits], access.address[index_bits:].any()
        with m.If(begins & ~outside), m.Switch(index):
            for register in REGISTERS:
                with m.Case(register.offset // 4):
                    m.d.sync += access.result.eq(values[register.name])
                    if register.access is Access.RO:
                        m.d.sync += access.error.eq(access.write)
                        continue
                    m.d.sync += access.error.eq(0)
                    with m.If(access.write):
                        m.d.sync += scratch.eq(access.data)
        return m
