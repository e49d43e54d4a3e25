"""The sigma unit: the logistic function of a gate input, by linear interpolation in a table."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics

SIGMA_LATENCY = 6  # magnitude, table, table output, slope * offset, sum, sign

_FINE_FRAC = numerics.SIGMA_TABLE_FRAC + numerics.SIGMA_SEGMENT_BITS  # fractional bits before the rounding
_CUT = _FINE_FRAC - numerics.GATE_FRAC  # bits that the rounding takes off
_ROUNDING = 1 << (_CUT - 1 - numerics.SIGMA_SEGMENT_BITS)  # half of the last place, in units of the table
_ENTRY = data.StructLayout({"base": numerics.SIGMA_BASE_WIDTH, "slope": numerics.SIGMA_SLOPE_WIDTH})


class Sigma(wiring.Component):
    """``sigma = round(2^16 / (1 + exp(-value / 2^14)))`` within one unit, :data:`SIGMA_LATENCY` cycles later.

    With a = abs(value), segment a >> 8 and offset a & 255 (docs/numerics.md):
    ``upper = 32768 + round_shift(base * 256 + slope * offset, 10)``, 65536 from a = 262144 on; a negative value gives
    ``65536 - upper``. One value a cycle. The table is 1024 x (18 + 11) bits; its bases carry the rounding constant.

    Attributes:
        enable: In While low the pipeline holds.
        value: In 24 bits signed, 14 fractional.
        sigma: Out 17 bits unsigned, 16 fractional, 0..65536.
    """

    def __init__(self) -> None:
        super().__init__(
            {"enable": In(1), "value": In(signed(numerics.VALUE_WIDTH)), "sigma": Out(numerics.GATE_FRAC + 1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bases, slopes = numerics.sigma_tables()
        entries = [{"base": int(b) + _ROUNDING, "slope": int(s)} for b, s in zip(bases, slopes, strict=True)]
        m.submodules.table = table = Memory(shape=_ENTRY, depth=numerics.SIGMA_SEGMENTS, init=entries)
        port = table.read_port()

        segment_bits = numerics.SIGMA_SEGMENT_BITS
        reach = segment_bits + (numerics.SIGMA_SEGMENTS - 1).bit_length()  # bits of a magnitude that the table covers
        magnitude = Signal(unsigned(numerics.VALUE_WIDTH), reset_less=True)
        negative = [Signal(name=f"negative_{i}", reset_less=True) for i in range(1, SIGMA_LATENCY)]
        beyond = [Signal(name=f"beyond_{i}", reset_less=True) for i in range(2, SIGMA_LATENCY)]
        offset = [Signal(segment_bits, name=f"offset_{i}", reset_less=True) for i in (2, 3)]
        entry = Signal(_ENTRY, reset_less=True)
        base = Signal(numerics.SIGMA_BASE_WIDTH, reset_less=True)
        rise = Signal(numerics.SIGMA_SLOPE_WIDTH + segment_bits, reset_less=True)
        upper = Signal(numerics.GATE_FRAC + 1, reset_less=True)
        fine = (base << segment_bits) + rise

        m.d.comb += [port.addr.eq(magnitude[segment_bits:reach]), port.en.eq(self.enable)]
        with m.If(self.enable):
            m.d.sync += [
                magnitude.eq(Mux(self.value < 0, -self.value, self.value)),
                Cat(negative).eq(Cat(self.value < 0, *negative[:-1])),
                Cat(beyond).eq(Cat(magnitude[reach:].any(), *beyond[:-1])),
                Cat(offset).eq(Cat(magnitude[:segment_bits], offset[0])),
                entry.eq(port.data),
                rise.eq(entry.slope * offset[1]),
                base.eq(entry.base),
                upper.eq((fine >> _CUT) + numerics.GATE_ONE // 2),
            ]
            with m.If(beyond[-1]):
                m.d.sync += self.sigma.eq(Mux(negative[-1], 0, numerics.GATE_ONE))
            with m.Else():
                m.d.sync += self.sigma.eq(Mux(negative[-1], numerics.GATE_ONE - upper, upper))
        return m
