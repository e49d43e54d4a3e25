"""The register map on AXI4-Lite; the map itself is data in ``sterna.spec.registers``."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.spec.config import HardwareConfig
from sterna.spec.registers import (
    MAGIC,
    REGISTER_SPACE_BITS,
    STALL_BITS,
    VERSION,
    Access,
    Register,
    Stall,
    registers_of,
    stall_register,
)
from sterna_hw.axi import AXI4Lite, Response

CONTROL = "CONTROL"  # acts when written, reads as 0
_STALLS = {stall_register(stall) for stall in Stall}


class Registers(wiring.Component):
    """AXI4-Lite subordinate with a port for every register of the specification.

    One write and one read at a time, independent of each other. AW and W may come in either order. Latency: ``bvalid``
    rises 2 cycles after the cycle in which the later of AW and W was taken and the registers change with it;
    ``rvalid`` rises 2 cycles after the cycle of AR. Addresses are rounded down to a multiple of 4.

    Answers: OKAY; SLVERR for a write to a read-only register (ignored); DECERR for an address without a register
    (reads give 0).

    Args:
        config: Its hash is CONFIG_HASH, and its slots have registers each.

    Attributes:
        bus: In The host. WSTRB selects the bytes that are written.
        control: Out The bits written to CONTROL, for the one cycle in which ``bvalid`` rises; 0 otherwise.
        <register>: Out (32 bits) One for each other RW register, its name in lower case; 0 after reset.
        <register>: In (32 bits) One for each other RO register but MAGIC, VERSION and CONFIG_HASH, which are constants.
        stall: Out The reason whose register is read.
        stall_cycles: In (32 bits) Its value, in the same cycle.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._registers = registers_of(config.slots)
        self._constants = {"MAGIC": MAGIC, "VERSION": VERSION, "CONFIG_HASH": config.hash}
        members = {
            register.name.lower(): Out(32) if register.access is Access.RW else In(32)
            for register in self._registers
            if register.name not in self._constants and not _is_stall(register)
        }
        members |= {"stall": Out(STALL_BITS), "stall_cycles": In(32)}
        super().__init__({"bus": In(AXI4Lite(REGISTER_SPACE_BITS)), **members})

    def elaborate(self, platform: object) -> Module:
        """Writes and reads each wait in registers for a cycle, so nothing runs from the bus inputs to its outputs."""
        m = Module()
        self._elaborate_write(m)
        self._elaborate_read(m)
        return m

    def _elaborate_write(self, m: Module) -> None:
        bus = self.bus
        have_address, have_data = Signal(), Signal()
        index = Signal(REGISTER_SPACE_BITS - 2)
        value = Signal(32)
        strobes = Signal(4)
        m.d.comb += [bus.awready.eq(~have_address), bus.wready.eq(~have_data)]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [have_address.eq(1), index.eq(bus.awaddr[2:])]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [have_data.eq(1), value.eq(bus.wdata), strobes.eq(bus.wstrb)]

        m.d.sync += self.control.eq(0)
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(have_address & have_data & ~bus.bvalid):
            m.d.sync += [have_address.eq(0), have_data.eq(0), bus.bvalid.eq(1)]
            mask = Cat(bit.replicate(8) for bit in strobes)
            with m.Switch(index):
                for register in self._registers:
                    with m.Case(register.offset // 4):
                        if register.access is Access.RO:
                            m.d.sync += bus.bresp.eq(Response.SLVERR)
                            continue
                        port = getattr(self, register.name.lower())
                        kept = 0 if register.name == CONTROL else port & ~mask
                        m.d.sync += [port.eq(value & mask | kept), bus.bresp.eq(Response.OKAY)]
                with m.Default():
                    m.d.sync += bus.bresp.eq(Response.DECERR)

    def _elaborate_read(self, m: Module) -> None:
        bus = self.bus
        have_address = Signal()
        index = Signal(REGISTER_SPACE_BITS - 2)
        m.d.comb += [bus.arready.eq(~have_address), self.stall.eq(index)]
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [have_address.eq(1), index.eq(bus.araddr[2:])]

        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(have_address & ~bus.rvalid):
            m.d.sync += [have_address.eq(0), bus.rvalid.eq(1)]
            with m.Switch(index):
                for register in self._registers:
                    with m.Case(register.offset // 4):
                        m.d.sync += [bus.rdata.eq(self._readable(register)), bus.rresp.eq(Response.OKAY)]
                with m.Default():
                    m.d.sync += [bus.rdata.eq(0), bus.rresp.eq(Response.DECERR)]

    def _readable(self, register: Register) -> object:
        if register.name == CONTROL:
            return 0
        if _is_stall(register):
            return self.stall_cycles
        name = register.name
        return self._constants[name] if name in self._constants else getattr(self, name.lower())


def _is_stall(register: Register) -> bool:
    return register.name in _STALLS
