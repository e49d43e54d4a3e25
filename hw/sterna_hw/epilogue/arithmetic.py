"""Pipelined arithmetic of the row operations: a multiplier, and the shift that rounds and clamps."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.spec.numerics import VALUE_WIDTH

LIMB_BITS = 17  # an unsigned limb fits the signed 18-bit input of a DSP block


def _limbs(value: Value) -> list[Value]:
    """``value`` itself where one DSP input takes it, else its low 17 bits (unsigned) and the rest (with its sign)."""
    is_signed = value.shape().signed
    if len(value) <= LIMB_BITS + is_signed:
        return [value]
    high = value[LIMB_BITS:]
    return [value[:LIMB_BITS], high.as_signed() if is_signed else high]


class Multiplier(wiring.Component):
    """``product = a * b``, exact, one a cycle, :attr:`LATENCY` cycles later.

    Operands are registered, then multiplied in limbs that one DSP block takes each, then the limb products are added.

    Attributes:
        enable: In While low the pipeline holds.
        a, b: In Operands of the shapes given, at most 34 bits each.
        product: Out ``len(a) + len(b)`` bits, signed.
    """

    LATENCY = 3  # operands, limb products, sum

    def __init__(self, *, a: Shape, b: Shape) -> None:
        super().__init__(
            {"enable": In(1), "a": In(a), "b": In(b), "product": Out(signed(a.width + b.width))},
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a, b = Signal.like(self.a, reset_less=True), Signal.like(self.b, reset_less=True)
        terms = []
        with m.If(self.enable):
            m.d.sync += [a.eq(self.a), b.eq(self.b)]
            for i, x in enumerate(_limbs(a)):
                for j, y in enumerate(_limbs(b)):
                    term = Signal((x * y).shape(), name=f"term_{i}{j}", reset_less=True)
                    m.d.sync += term.eq(x * y)
                    terms.append(term << LIMB_BITS * (i + j))
            m.d.sync += self.product.eq(sum(terms[1:], terms[0]))
        return m


class RoundShift(wiring.Component):
    """``result = saturate24(round_shift(value, shift))``, one a cycle, :attr:`LATENCY` cycles later.

    The value is shifted with one bit more than the result needs, in a stage of its own; that bit rounds:
    ``(v + 2^(s-1)) >> s == ((2v >> s) + 1) >> 1`` for every s from 0.

    Attributes:
        enable: In While low the pipeline holds.
        value: In ``width`` bits, signed.
        shift: In 0..63, used one cycle with the value.
        result: Out 24 bits, signed.
        saturated: Out High when ``result`` was clamped.
    """

    LATENCY = 3  # shift, round, clamp

    def __init__(self, *, width: int) -> None:
        self._width = width
        super().__init__(
            {
                "enable": In(1),
                "value": In(signed(width)),
                "shift": In(6),
                "result": Out(signed(VALUE_WIDTH)),
                "saturated": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        doubled = Cat(Const(0, 1), self.value).as_signed()
        shifted = Signal(signed(self._width + 1), reset_less=True)
        rounded = Signal(signed(self._width), reset_less=True)
        sign, magnitude_bits = rounded[-1], VALUE_WIDTH - 1
        outside = Signal()
        m.d.comb += outside.eq(rounded[magnitude_bits:-1] != sign.replicate(self._width - VALUE_WIDTH))
        with m.If(self.enable):
            m.d.sync += [
                shifted.eq(doubled >> self.shift),
                rounded.eq((shifted + 1) >> 1),
                self.saturated.eq(outside),
                self.result.eq(Cat(Mux(outside, (~sign).replicate(magnitude_bits), rounded[:magnitude_bits]), sign)),
            ]
        return m
