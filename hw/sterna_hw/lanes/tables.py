"""Tables of sums: the byte of five trits is the address of its sum over five activations."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import word_shape
from sterna_hw.lanes.blocks import TABLE_ADDRESS_BITS, build_step, ranks

TABLE_WIDTH = 11  # |sum of five activations| <= 5 * 128 = 640 < 2**10


def entries_shape(config: HardwareConfig) -> data.ArrayLayout:
    """One table entry a byte of a word."""
    return data.ArrayLayout(signed(TABLE_WIDTH), config.word_bytes)


class SumTables(wiring.Component):
    """One table a byte of the word, for one slot: 512 entries of 11 bits, two halves of 243 used.

    Lookup: ``entries[g]`` is, two cycles with ``enable`` after ``word`` and ``half``, the entry ``word[g]`` of table
    g (a cycle of block RAM, a cycle of output register). Everything is held while ``enable`` is low. Invalid codes
    (243 and above) read zero or what was there: never written, they are not part of the walk.

    Build: in a cycle with ``step.valid``, ``activations`` holds the row for the step. One cycle later the
    operand (row, spread as the step says, inverted when subtracting) is registered, one more and the running sums are,
    and in that cycle they are written if the step says so. Reading one half while the other is written is the
    intended use; a lookup sees what was written in earlier cycles.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {
                "step": In(build_step(config)),
                "activations": In(word_shape(config)),
                "enable": In(1),
                "half": In(1),
                "word": In(word_shape(config)),
                "entries": Out(entries_shape(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        width = numerics.Q_WIDTH

        operand = Signal(self._config.word_bytes * width)
        adding, subtract = Signal(), Signal()
        write_1, write_2 = Signal(), Signal()
        address_1, address_2 = Signal(TABLE_ADDRESS_BITS), Signal(TABLE_ADDRESS_BITS)
        m.d.sync += [
            operand.eq(self._spread_row(m) ^ self.step.subtract.replicate(len(operand))),
            adding.eq(self.step.valid),
            subtract.eq(self.step.subtract),
            write_1.eq(self.step.write),
            address_1.eq(self.step.address),
            write_2.eq(write_1),
            address_2.eq(address_1),
        ]
        for group in range(self._config.word_bytes):
            table = memory.Memory(shape=signed(TABLE_WIDTH), depth=1 << TABLE_ADDRESS_BITS, init=[])
            m.submodules[f"table_{group}"] = table
            write, read = table.write_port(), table.read_port()

            term = operand.word_select(group, width).as_signed()
            total = Signal(signed(TABLE_WIDTH), name=f"total_{group}")
            # A lowest bit of 1 + subtract carries into the sum: inverting and adding one in a single adder.
            m.d.sync += total.eq(0)
            with m.If(adding):
                m.d.sync += total.eq((Cat(Const(1, 1), total).as_signed() + Cat(subtract, term).as_signed()) >> 1)
            m.d.comb += [
                write.en.eq(write_2),
                write.addr.eq(address_2),
                write.data.eq(total),
                read.en.eq(self.enable),
                read.addr.eq(Cat(self.word[group], self.half)),
            ]
            with m.If(self.enable):
                m.d.sync += self.entries[group].eq(read.data)
        return m

    def _spread_row(self, m: Module) -> Signal:
        """The activation row, or one chunk of it repeated."""
        units = 1 << (ranks(self._config) - 1)
        row = self.activations.as_value()
        spread = Signal(len(row))
        unit_width = len(row) // units
        for unit in range(units):
            with m.Switch(self.step.start | (unit & self.step.spread)):
                for source in range(units):
                    with m.Case(source):
                        m.d.comb += spread.word_select(unit, unit_width).eq(row.word_select(source, unit_width))
        return spread
