"""Greedy sampling: the index of the largest logit."""

from __future__ import annotations

from amaranth import Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import row_values

INDEX_WIDTH = 32


class Sampler(wiring.Component):
    """Watches the logits go by and keeps the index of the largest a slot; the lowest index wins ties.

    Attributes:
        start: In Forget everything; the next value has index 0. A value in the same cycle is not counted.
        valid: In A logit passes in this cycle.
        value: In The logit, 24 bits signed a slot.
        best: Out Index of the largest since ``start``, two cycles after the value; 0 before the first.
        largest: Out In a cluster: that largest logit, anything before the first.
        counted: Out In a cluster: how many values there were since ``start``, a cycle after the value.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._slots, self._is_cluster = config.slots, config.clusters > 1
        score = {"largest": Out(signed(numerics.VALUE_WIDTH)), "counted": Out(INDEX_WIDTH)}
        super().__init__(
            {
                "start": In(1),
                "valid": In(1),
                "value": In(row_values(config)),
                "best": Out(data.ArrayLayout(INDEX_WIDTH, config.slots)),
                **(score if self._is_cluster else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        count, index = Signal(INDEX_WIDTH), Signal(INDEX_WIDTH)
        pending, seen = Signal(), Signal()
        m.d.sync += [pending.eq(self.valid), index.eq(count)]
        with m.If(self.valid):
            m.d.sync += count.eq(count + 1)
        with m.If(pending):
            m.d.sync += seen.eq(1)
        for slot in range(self._slots):
            value = Signal(signed(numerics.VALUE_WIDTH), name=f"value_{slot}")
            largest = Signal(signed(numerics.VALUE_WIDTH), name=f"largest_{slot}")
            m.d.sync += value.eq(self.value[slot])
            with m.If(pending & (~seen | (value > largest))):
                m.d.sync += [largest.eq(value), self.best[slot].eq(index)]
            if self._is_cluster:
                m.d.comb += [self.largest.eq(largest), self.counted.eq(count)]
        with m.If(self.start):
            m.d.sync += [count.eq(0), pending.eq(0), seen.eq(0), self.best.eq(0)]
        return m
