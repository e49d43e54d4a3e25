"""Tables of sums: the byte of five trits is the address of its sum over five activations."""

from __future__ import annotations

from itertools import pairwise

from amaranth import Cat, Const, Module, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import word_shape
from sterna_hw.lanes.blocks import TABLE_ADDRESS_BITS, build_step
from sterna_hw.lanes.operand import Operand

TABLE_WIDTH = 11  # |sum of five activations| <= 5 * 128 = 640 < 2**10


def entries_shape(config: HardwareConfig) -> data.ArrayLayout:
    """One table entry a byte of a word."""
    return data.ArrayLayout(signed(TABLE_WIDTH), config.word_bytes)


def sums_of_five(config: HardwareConfig) -> wiring.Signature:
    """The ports of what turns the bytes of a word into sums of five activations each, for one slot."""
    return wiring.Signature(
        {
            "step": In(build_step(config)),
            "activations": In(word_shape(config)),
            "enable": In(1),
            "half": In(1),
            "word": In(word_shape(config)),
            "entries": Out(entries_shape(config)),
            "valid": Out(1),
        }
    )


class SumTables(wiring.Component):
    """One table a byte of the word, for one slot: 512 entries of 11 bits and a mark, two halves of 243 used.

    Lookup: ``entries[g]`` is, two cycles with ``enable`` after ``word`` and ``half``, the entry ``word[g]`` of table
    g (a cycle of block RAM, a cycle of output register); ``valid`` belongs to the same word and is low if one of its
    bytes is no code. Everything is held while ``enable`` is low. The mark is a bit that the build sets in every entry
    it writes: those of the invalid codes (243 and above) are never written, so they stay as configuration left them,
    all zero.

    Build: in a cycle with ``step.valid``, ``activations`` holds the row for the step. Two cycles later the operand
    (:class:`Operand`) is there, one more and the running sums are, and in that cycle they are written if the step says
    so. Reading one half while the other is written is the intended use; a lookup sees what was written in earlier
    cycles.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(sums_of_five(config))

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        m.submodules.operand = operand = Operand(config=self._config)
        m.d.comb += [operand.step.eq(self.step), operand.activations.eq(self.activations)]

        # The step beside the activations on their way to the running sums.
        stages = [Signal(build_step(self._config), name=f"step_{stage}") for stage in ("gather", "add", "write")]
        m.d.sync += [stage.eq(previous) for previous, stage in pairwise([self.step, *stages])]
        _, adding, writing = stages

        marks = Signal(self._config.word_bytes, reset_less=True)
        m.d.comb += self.valid.eq(marks.all())
        for group in range(self._config.word_bytes):
            table = memory.Memory(shape=1 + TABLE_WIDTH, depth=1 << TABLE_ADDRESS_BITS, init=[])
            m.submodules[f"table_{group}"] = table
            write, read = table.write_port(), table.read_port()
            total = Signal(signed(TABLE_WIDTH), name=f"total_{group}", reset_less=True)
            entry = Signal(signed(TABLE_WIDTH), name=f"entry_{group}", reset_less=True)

            # To subtract is to add the inverted operand and one: the lowest bits of both sides carry the one in.
            term = operand.terms[group]
            m.d.sync += total.eq(0)
            with m.If(adding.valid):
                both = Cat(adding.subtract, total).as_signed() + Cat(adding.subtract, term).as_signed()
                m.d.sync += total.eq(both >> 1)
            m.d.comb += [
                write.en.eq(writing.write),
                write.addr.eq(writing.address),
                write.data.eq(Cat(Const(1, 1), total)),
                read.en.eq(self.enable),
                read.addr.eq(Cat(self.word[group], self.half)),
                self.entries[group].eq(entry),
            ]
            with m.If(self.enable):
                m.d.sync += Cat(marks[group], entry).eq(read.data)
        return m
