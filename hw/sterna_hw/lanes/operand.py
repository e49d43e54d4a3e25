"""The operand of a step of the table build: a row of activations, or a piece of one repeated over the word."""

from __future__ import annotations

from functools import reduce
from operator import or_

from amaranth import Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import word_shape
from sterna_hw.lanes.blocks import build_step, ranks


class Operand(wiring.Component):
    """Term g is what table g adds: its activation, inverted when the step subtracts (docs/gateware.md).

    A row is cut into U = ``max_rows_per_word`` units. A full block takes all of them, each for its own tables; a tail
    block of rank r takes ``U / 2**r`` neighbours and repeats them over the word. ``terms`` come two cycles after
    ``step`` and ``activations``.

    Multiplexers would be the largest part of the lanes, so there are none. The first register keeps the units that
    the step takes and zeroes the others (a reset costs no LUT), twice: in place and half a row away, which is all that
    rank 1 needs. What lies a quarter of a row apart is or-ed together, gathering rank 2; the ranks above exchange the
    halves of the quarter, the quarters of it, and so on. One or-gate with an inverter then makes a term: a LUT of four
    inputs a bit, and half a LUT for what is gathered.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        terms = data.ArrayLayout(signed(numerics.Q_WIDTH), config.word_bytes)
        super().__init__(
            {"step": In(build_step(config)), "activations": In(word_shape(config)), "terms": Out(terms)},
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        units = 1 << (ranks(self._config) - 1)
        row = self.activations.as_value()
        width = len(row) // units

        subtract = Signal()
        spread = Signal(self.step.spread.shape())
        m.d.sync += [subtract.eq(self.step.subtract), spread.eq(self.step.spread)]
        own = [Signal(width, name=f"own_{unit}", reset_less=True) for unit in range(units)]
        for unit, kept in enumerate(own):
            m.d.sync += kept.eq(Mux(self._taken(unit), row.word_select(unit, width), 0))

        pieces = [[kept] for kept in own]
        if units >= 2:
            for unit in range(units):
                far = unit ^ units // 2
                taken = self._taken(far) & _rank_is_at_least(1, self.step.spread)
                across = Signal(width, name=f"across_{unit}", reset_less=True)
                m.d.sync += across.eq(Mux(taken, row.word_select(far, width), 0))
                pieces[unit].append(across)
        if units >= 4:
            gathered = _gather(own, spread)
            for unit in range(units):
                pieces[unit].append(gathered[unit % len(gathered)])

        terms = Signal(len(row), reset_less=True)
        for unit in range(units):
            m.d.sync += terms.word_select(unit, width).eq(reduce(or_, pieces[unit]) ^ subtract.replicate(width))
        m.d.comb += self.terms.as_value().eq(terms)
        return m

    def _taken(self, unit: int) -> Value:
        """The step takes this unit of the row."""
        return (unit | self.step.spread) == (self.step.start | self.step.spread)


def _rank_is_at_least(rank: int, spread: Value) -> Value:
    """A block of rank r has the lowest ``top rank - r`` bits of ``spread`` set."""
    return ~spread[len(spread) - rank]


def _gather(own: list[Signal], spread: Value) -> list[Value]:
    """What a quarter of the row holds for blocks of rank 2 and more: zero for others."""
    quarter, width = len(own) // 4, len(own[0])
    gathered = [reduce(or_, own[unit::quarter]) for unit in range(quarter)]
    gate = _rank_is_at_least(2, spread).replicate(width)
    for rank in range(3, len(spread) + 1):
        hop = len(own) >> rank
        further = _rank_is_at_least(rank, spread).replicate(width)
        gathered = [(value & gate) | (gathered[unit ^ hop] & further) for unit, value in enumerate(gathered)]
        gate = Const(1).replicate(width)
    return [value & gate for value in gathered]
