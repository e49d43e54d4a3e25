"""Sums of five without tables: the trits of a byte select from five activations in registers, and those are added."""

from __future__ import annotations

from itertools import pairwise

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from sterna.spec import numerics, packing
from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import word_shape
from sterna_hw.lanes.blocks import CODE_BITS, build_step
from sterna_hw.lanes.operand import Operand
from sterna_hw.lanes.tables import entries_shape

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
        super().__init__(
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

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        m.submodules.operand = operand = Operand(config=self._config)
        m.d.comb += [operand.step.eq(self.step), operand.activations.eq(self.activations)]
        stages = [Signal(name=f"write_{stage}") for stage in ("gather", "store")]
        m.d.sync += [stage.eq(previous) for previous, stage in pairwise([self.step.write, *stages])]

        # One memory with a port a byte, so that a simulator keeps one table; in an FPGA each port is a handful of LUTs.
        m.submodules.codes = codes = memory.Memory(shape=_SELECTION, depth=1 << CODE_BITS, init=_selections())
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
                # To subtract is to add the inverted activation and one: the ones together are a number of the code.
                terms = [
                    Mux(chosen.nonzero[place], Mux(chosen.negative[place], ~used[place], used[place]), 0)
                    for place in range(PLACES)
                ]
                m.d.sync += [chosen.eq(code.data), entry.eq(sum(terms, chosen.ones)), valids[group].eq(chosen.valid)]
        return m


_SELECTION = data.StructLayout(
    {"nonzero": PLACES, "negative": PLACES, "ones": bits_for(PLACES), "valid": 1}  # a bit a trit; how many are negative
)


def _selections() -> list[dict[str, int]]:
    """What each code selects. Bytes that are no code select nothing and are not valid."""
    return [
        {
            "nonzero": sum((trit != 0) << place for place, trit in enumerate(trits)),
            "negative": sum((trit < 0) << place for place, trit in enumerate(trits)),
            "ones": sum(trit < 0 for trit in trits),
            "valid": 1,
        }
        for trits in packing.code_table().tolist()
    ]
