"""A cluster's side of the exchange: offers what a pass found, and waits for what all clusters found."""

from amaranth import Module, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics

_SUMS = data.ArrayLayout(unsigned(numerics.SQUARES_WIDTH), 2)


class Agreement(wiring.Component):
    """Holds an offer from the cycle after a pass until the agreement, which comes in the same cycle to all clusters.

    Attributes:
        summed: In One cycle, when the sums of a SUMSQ are known; never together with ``found``.
        found: In One cycle, when the largest product of a QUANT is known.
        offering: Out An offer waits.
        agreed: In One cycle: what all clusters have is there. Without an offer it is another reset's rest, and ignored.
        agreed_sums: In S1 and S2 of all clusters, with ``agreed``.
        sums: Out Those of the last SUMSQ.
        sums_agreed: Out One cycle, ``sums`` change with it.
        top_agreed: Out One cycle, with ``agreed``.
    """

    summed: In(1)
    found: In(1)
    offering: Out(1)
    agreed: In(1)
    agreed_sums: In(_SUMS)
    sums: Out(_SUMS)
    sums_agreed: Out(1)
    top_agreed: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        of_sums = Signal()
        with m.If(self.summed | self.found):
            m.d.sync += [self.offering.eq(1), of_sums.eq(self.summed)]
        with m.Elif(self.agreed):
            m.d.sync += self.offering.eq(0)
        agreed = self.offering & self.agreed
        m.d.comb += [self.sums_agreed.eq(agreed & of_sums), self.top_agreed.eq(agreed & ~of_sums)]
        with m.If(self.sums_agreed):
            m.d.sync += self.sums.eq(self.agreed_sums)
        return m
