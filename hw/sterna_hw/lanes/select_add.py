"""Sums of five without tables: the trits of a byte select from five activations in registers, and those are added."""

from __future__ import annotations

from itertools import pairwise

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring

from sterna.spec import numerics, packing
from sterna.spec.config import HardwareConfig
from sterna_hw.lanes.blocks import CODE_BITS
from sterna_hw.lanes.operand import Operand
from sterna_hw.lanes.tables import sums_of_five

PLACES = packing.TRITS_PER_BYTE


class SelectAdd(wiring.Component):
    """As :class:`~sterna_hw.lanes.tables.SumTables`, with five activations a byte in registers in place of a table.

    Sum: ``entries[g]`` is, two cycles with ``enable`` after ``word`` and ``half``, the sum of the five activations of
    byte g, each times its trit (a cycle to decode the byte, a cycle to select and add); ``valid`` belongs to the same
    word and is low if one of its bytes is no code. Everything is held while ``enable`` is low.

    Build: in a cycle with ``step.valid``, ``activations`` holds the row of a place, the lowest first. Two cycles later
    the operand (:class:`Operand`) is there and shifted in behind the places before it. Five of them are one build. It
    is in use from the cycle in which ``half`` differs from that of the last cycle with ``enable``, beginning with the
    word of that cycle: all five have to be stored by then, and the next build's first not before the cycle after.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(sums_of_five(config))

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        m.submodules.operand = operand = Operand(config=self._config)
        m.d.comb += [operand.step.eq(self.step), operand.activations.eq(self.activations)]
        stages = [Signal(name=f"write_{stage}") for stage in ("gather", "store")]
        m.d.sync += [stage.eq(previous) for previous, stage in pairwise([self.step.write, *stages])]

        # One memory with a port a byte, so that a simulator keeps one table; an FPGA has a handful of LUTs for each.
        m.submodules.codes = codes = memory.Memory(
            shape=_SELECTION, depth=1 << CODE_BITS, init=_selections(), attrs={"rom_style": "logic"}
        )
        half = Signal()
        valids = Signal(self._config.word_bytes, reset_less=True)
        m.d.comb += self.valid.eq(valids.all())
        with m.If(self.enable):
            m.d.sync += half.eq(self.half)
        places = data.ArrayLayout(signed(numerics.Q_WIDTH), PLACES)
        for group in range(self._config.word_bytes):
            built = Signal(places, name=f"built_{group}", reset_less=True)
            used = Signal(places, name=f"used_{group}", reset_less=True)
            with m.If(stages[-1]):
                shifted = [*(built[place] for place in range(1, PLACES)), operand.terms[group]]
                m.d.sync += [built[place].eq(value) for place, value in enumerate(shifted)]
            with m.If(self.enable & (self.half != half)):
                m.d.sync += used.eq(built)

            code = codes.read_port(domain="comb")
            chosen = Signal(_SELECTION, name=f"chosen_{group}", reset_less=True)
            entry = Signal.like(self.entries[group], name=f"entry_{group}", reset_less=True)
            m.d.comb += [code.addr.eq(self.word[group]), self.entries[group].eq(entry)]
            with m.If(self.enable):
                total = _signed_sum([used[place] for place in range(PLACES)], chosen)
                m.d.sync += [chosen.eq(code.data), entry.eq(total), valids[group].eq(chosen.valid)]
        return m


_SELECTION = data.StructLayout({"nonzero": PLACES, "negative": PLACES, "valid": 1})  # a bit a place


def _selections() -> list[dict[str, int]]:
    """What each code selects. Bytes that are no code select nothing and are not valid."""
    return [
        {
            "nonzero": sum((trit != 0) << place for place, trit in enumerate(trits)),
            "negative": sum((trit < 0) << place for place, trit in enumerate(trits)),
            "valid": 1,
        }
        for trits in packing.code_table().tolist()
    ]


def _signed_sum(activations: list[Value], chosen: data.View[data.StructLayout]) -> Value:
    """The activations times their trits. To subtract is to add what is inverted and one: the carry in of an adder."""
    negative = chosen.negative
    first, second, third, fourth, fifth = (
        Mux(chosen.nonzero[place], Mux(negative[place], ~activation, activation), 0)
        for place, activation in enumerate(activations)
    )
    low = _add(first, second, negative[0])
    high = _add(third, fourth, negative[1])
    rest = _add(fifth, Const(0, signed(1)), negative[2])
    return _add(_add(low, high, negative[3]), rest, negative[4])


def _add(left: Value, right: Value, carry: Value) -> Value:
    """Signed sum with a carry, which two further lowest bits bring in: one carry chain, where three terms make more."""
    return (Cat(carry, left).as_signed() + Cat(carry, right).as_signed())[1:].as_signed()
