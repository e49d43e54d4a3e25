"""The memories on chip: vector, state, parameter and activation memory.

All of them are block RAM of one write and one read port; they start as zeros and are not cleared by reset. A read has a
latency of one cycle; what a read in the cycle of a write to the same place gives is not used, and a bitstream gives
anything (``sterna_boards.collisions``). Where two read ports share the physical one, each holds its data only until
*either* is enabled again. The two are never enabled in the same cycle; if they were, ``element_read`` would win and the
data of ``row_read`` would mean nothing.
"""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import MemoryRead, MemoryWrite, row_values, word_shape


def _select(m: Module, parts: list[Value], index: Value) -> Value:
    """``parts[index]``; one part needs no index."""
    if len(parts) == 1:
        return parts[0]
    chosen = Signal(len(parts[0]))
    with m.Switch(index):
        for number, part in enumerate(parts):
            with m.Case(number):
                m.d.comb += chosen.eq(part)
    return chosen


class VectorMemory(wiring.Component):
    """Residual, gates and products: ``vector_depth`` elements (24 bits a slot), in rows of ``vector_width``.

    Element e is element ``e mod vector_width`` of row ``e // vector_width``; a block RAM for each e mod width.
    ``element_read`` and ``row_read`` share the read port (see the top of this file).
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        element, width = row_values(config), config.vector_width
        super().__init__(
            {
                "element_read": In(MemoryRead(config.vector_depth, element)),
                "row_read": In(MemoryRead(config.vector_depth // width, data.ArrayLayout(element, width))),
                "element_write": In(MemoryWrite(config.vector_depth, element)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        width = self._config.vector_width
        position_bits = exact_log2(width)
        row = self.element_read.address >> position_bits
        position = Signal(position_bits)
        with m.If(self.element_read.enable):
            m.d.sync += position.eq(self.element_read.address[:position_bits])

        columns = []
        for number in range(width):
            store = memory.Memory(shape=row_values(self._config), depth=self._config.vector_depth // width, init=[])
            m.submodules[f"column_{number}"] = store
            write, read = store.write_port(), store.read_port()
            m.d.comb += [
                read.en.eq(self.element_read.enable | self.row_read.enable),
                read.addr.eq(Mux(self.element_read.enable, row, self.row_read.address)),
                write.en.eq(self.element_write.enable & (self.element_write.address[:position_bits] == number)),
                write.addr.eq(self.element_write.address >> position_bits),
                write.data.eq(self.element_write.data),
                self.row_read.data[number].eq(read.data),
            ]
            columns.append(read.data.as_value())
        m.d.comb += self.element_read.data.eq(_select(m, columns, position))
        return m


class StateMemory(wiring.Component):
    """The recurrent state of all layers: ``state_depth`` elements (24 bits a slot)."""

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {
                "read": In(MemoryRead(config.state_depth, row_values(config))),
                "write": In(MemoryWrite(config.state_depth, row_values(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        m.submodules.store = store = memory.Memory(
            shape=row_values(self._config), depth=self._config.state_depth, init=[]
        )
        write, read = store.write_port(), store.read_port()
        m.d.comb += [
            read.en.eq(self.read.enable),
            read.addr.eq(self.read.address),
            self.read.data.eq(read.data),
            write.en.eq(self.write.enable),
            write.addr.eq(self.write.address),
            write.data.eq(self.write.data),
        ]
        return m


class ParameterMemory(wiring.Component):
    """Norm weights and lower bounds: ``param_depth`` elements of 16 bits, written a stream word at a time.

    A word holds ``params_per_word`` elements, little-endian, element 0 in bytes 0 and 1. ``word_write`` addresses
    words, ``row_read`` rows of ``vector_width`` elements, ``element_read`` elements. The read ports share the physical
    one (see the top of this file); signedness is the reader's.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        element, width = unsigned(numerics.PARAM_WIDTH), config.vector_width
        super().__init__(
            {
                "word_write": In(MemoryWrite(config.param_depth // config.params_per_word, word_shape(config))),
                "row_read": In(MemoryRead(config.param_depth // width, data.ArrayLayout(element, width))),
                "element_read": In(MemoryRead(config.param_depth, element)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        width, per_word = self._config.vector_width, self._config.params_per_word
        rows = per_word // width  # in a word
        position_bits, row_bits = exact_log2(width), exact_log2(rows)
        m.submodules.store = store = memory.Memory(
            shape=word_shape(self._config), depth=self._config.param_depth // per_word, init=[]
        )
        write, read = store.write_port(), store.read_port()

        element = self.element_read
        address = Signal.like(self.row_read.address)  # of a row
        row, position = Signal(row_bits), Signal(position_bits)
        m.d.comb += [
            address.eq(Mux(element.enable, element.address >> position_bits, self.row_read.address)),
            read.en.eq(element.enable | self.row_read.enable),
            read.addr.eq(address >> row_bits),
            write.en.eq(self.word_write.enable),
            write.addr.eq(self.word_write.address),
            write.data.eq(self.word_write.data),
        ]
        with m.If(read.en):
            m.d.sync += [row.eq(address[:row_bits]), position.eq(element.address[:position_bits])]

        word = read.data.as_value()
        row_width = width * numerics.PARAM_WIDTH
        chosen = _select(m, [word.word_select(number, row_width) for number in range(rows)], row)
        elements = [chosen.word_select(number, numerics.PARAM_WIDTH) for number in range(width)]
        m.d.comb += [self.row_read.data.eq(chosen), self.element_read.data.eq(_select(m, elements, position))]
        return m


class ActivationMemory(wiring.Component):
    """Quantised activations: ``activation_depth`` bytes, written ``vector_width`` at a time, read ``word_bytes``.

    Write address w holds elements ``w * vector_width`` and up; read address r holds ``r * word_bytes`` and up.
    Read data are held while ``read.enable`` is low. With clusters, whole rows of ``word_bytes`` are written, and write
    addresses are those of reads.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        group = data.ArrayLayout(unsigned(numerics.Q_WIDTH), config.vector_width * config.clusters)
        super().__init__(
            {
                "write": In(MemoryWrite(config.activation_depth // group.length, group)),
                "read": In(MemoryRead(config.activation_depth // config.word_bytes, word_shape(config))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        config = self._config
        bank_bytes = config.vector_width * config.clusters
        banks = config.word_bytes // bank_bytes
        bank_bits = exact_log2(banks)
        bank_width = bank_bytes * numerics.Q_WIDTH
        for number in range(banks):
            store = memory.Memory(shape=bank_width, depth=config.activation_depth // config.word_bytes, init=[])
            m.submodules[f"bank_{number}"] = store
            write, read = store.write_port(), store.read_port()
            m.d.comb += [
                write.en.eq(self.write.enable & (self.write.address[:bank_bits] == number)),
                write.addr.eq(self.write.address >> bank_bits),
                write.data.eq(self.write.data),
                read.en.eq(self.read.enable),
                read.addr.eq(self.read.address),
                self.read.data.as_value().word_select(number, bank_width).eq(read.data),
            ]
        return m
