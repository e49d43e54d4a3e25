"""The logits of several slots, one after the other, for one writer."""

from __future__ import annotations

from dataclasses import replace

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import logit


class LogitsSerialiser(wiring.Component):
    """Takes a row of all slots and gives the values of those that are ``wanted``, the lowest slot first.

    A row takes as many cycles as there are wanted slots, one where none is: its values are dropped. No latency.

    Attributes:
        wanted: In A bit for each slot; constant during a token.
        rows: In(stream) A logit a slot.
        values: Out(stream) One logit, ``last`` with the last of the last row.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        one = replace(config, slots=1)
        super().__init__(
            {
                "wanted": In(config.slots),
                "rows": In(stream.Signature(logit(config))),
                "values": Out(stream.Signature(logit(one))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slots = self._config.slots
        given = Signal(slots)  # slots of this row that are done
        left, rest = Signal(slots), Signal(slots)
        m.d.comb += [
            left.eq(self.wanted & ~given),
            rest.eq(left & (left - 1)),
            self.values.valid.eq(self.rows.valid & left.any()),
            self.values.payload.last.eq(self.rows.payload.last & ~rest.any()),
            self.rows.ready.eq(~left.any() | (self.values.ready & ~rest.any())),
        ]
        for slot in reversed(range(slots)):
            with m.If(left[slot]):
                m.d.comb += self.values.payload["values"][0].eq(self.rows.payload["values"][slot])
        with m.If(self.values.valid & self.values.ready):
            m.d.sync += given.eq(Mux(rest.any(), given | (left & ~rest), 0))
        return m
