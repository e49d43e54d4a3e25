"""From the largest |w*c| and the sums of squares of a vector to its reciprocal and scale, one bit a cycle."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import isa, numerics
from sterna_hw.vector.divider import SerialDivider
from sterna_hw.vector.divisor import DIVISOR_CYCLES, DivisorRoot

ALIGN_BITS = numerics.PRODUCT_BITS.bit_length()  # left shift of a product, 0..38
ALIGN_CUT = numerics.PRODUCT_BITS - numerics.NORMALISED_BITS  # bits that rounding removes from an aligned product
TOP_BITS = numerics.NORMALISED_BITS + 1  # t_top, up to 2**17 inclusive
DIVIDER_STEPS = numerics.SCALE_MANTISSA_BITS + numerics.QUOTIENT_EXTRA
SHIFT_BITS = numerics.MAX_SHIFT.bit_length()

RECIPROCAL_CYCLES = ALIGN_BITS + 2 + (DIVIDER_STEPS + 1) + 1  # from `convert` to `converted`
SCALE_CYCLES = (DIVIDER_STEPS + 1) + 2  # from the later of `converted` and the root to `done`

assert TOP_BITS <= DIVIDER_STEPS  # t_top * mantissa is complete before the reciprocal is
_DIVIDEND = numerics.Q_MAX << numerics.RECIPROCAL_FRAC
assert _DIVIDEND & ((1 << DIVIDER_STEPS) - 1) == 0 and _DIVIDEND >> DIVIDER_STEPS < 1 << (TOP_BITS - 2)


def scalar_cycles(convert: int) -> int:
    """Cycles from ``prepare`` to ``done`` when ``convert`` comes ``convert`` cycles after ``prepare``."""
    return max(DIVISOR_CYCLES, convert + RECIPROCAL_CYCLES) + SCALE_CYCLES


def scalar_constants() -> data.StructLayout:
    """Constants of a projection (``numerics.ScaleConstants``), with the widths that a descriptor has for them."""
    widths = {name: isa.FIELDS_BY_NAME[name].width for name in ("eps_mantissa", "eps_shift", "eps_const")}
    return data.StructLayout(
        {
            **widths,
            "mantissa": isa.FIELDS_BY_NAME["scale_mantissa"].width,
            "exponent": signed(isa.FIELDS_BY_NAME["scale_exponent"].width),
        }
    )


class ScalarUnit(wiring.Component):
    """``numerics.quantiser_scalars``, exactly, in two halves that overlap the passes over the vector.

    ``prepare`` starts the root of the divisor, which needs no product; ``convert`` starts what depends on the largest
    product. With L = ``align`` the left shift that brings ``largest`` to 39 bits (its bit length is e = 39 - L)::

        t_top      = ((largest << L) + 2**21) >> 22                         18 bits, up to 2**17
        reciprocal = floor(127 * 2**27 / t_top)                             18 bits
        quo        = floor(t_top * mantissa * 4 / root)                     20 bits; cut = its bits beyond 18
        mantissa   = quo >> cut
        shift      = L - exponent - 12 - half_shift - cut, clamped to 0..47

    One divider makes both quotients in turn; t_top * mantissa is shifted and added while it makes the first.
    ``largest`` 0 gives reciprocal, mantissa and shift 0. Every job takes the same time (:func:`scalar_cycles`).

    Attributes:
        prepare: In One cycle, starts a job; s1, s2 and constants must stay until ``done``.
        convert: In One cycle, once a job, with ``prepare`` or later; samples ``largest``.
        s1, s2: In Sums of squares, 64 bits unsigned.
        constants: In See :func:`scalar_constants`.
        largest: In Largest |w*c|, 39 bits unsigned.
        converted: Out One cycle, ``RECIPROCAL_CYCLES`` after ``convert``: from here on ``align`` and ``reciprocal``
            are valid, until the next ``convert``.
        align: Out Left shift of the products, 6 bits.
        reciprocal: Out 18 bits.
        done: Out One cycle, ``SCALE_CYCLES`` after the later of ``converted`` and ``DIVISOR_CYCLES`` after
            ``prepare``: from here on ``mantissa`` and ``shift`` are valid, until a later job is about to end.
        mantissa, shift: Out The scale of the row sums, 18 and 6 bits.
    """

    prepare: In(1)
    convert: In(1)
    s1: In(numerics.SQUARES_WIDTH)
    s2: In(numerics.SQUARES_WIDTH)
    constants: In(scalar_constants())
    largest: In(numerics.PRODUCT_BITS)
    converted: Out(1)
    align: Out(ALIGN_BITS)
    reciprocal: Out(numerics.RECIPROCAL_WIDTH)
    done: Out(1)
    mantissa: Out(numerics.SCALE_MANTISSA_BITS)
    shift: Out(SHIFT_BITS)

    def elaborate(self, platform: object) -> Module:
        """One state machine around the divider; the divisor has its own."""
        m = Module()
        m.submodules.divisor = divisor = DivisorRoot()
        m.submodules.divider = divider = SerialDivider(width=numerics.CONSTANT_BITS, steps=DIVIDER_STEPS)
        m.d.comb += [
            divisor.start.eq(self.prepare),
            divisor.s1.eq(self.s1),
            divisor.s2.eq(self.s2),
            divisor.eps_mantissa.eq(self.constants.eps_mantissa),
            divisor.eps_shift.eq(self.constants.eps_shift),
            divisor.eps_const.eq(self.constants.eps_const),
        ]

        aligned = Signal(numerics.PRODUCT_BITS)
        nonzero = aligned[-1]  # once aligned
        top = Signal(TOP_BITS)
        # product = t_top * mantissa: the multiplier shifts out at the bottom as the product shifts in.
        product = Signal(TOP_BITS + numerics.CONSTANT_BITS)
        multiplying = Signal(range(TOP_BITS + 1))  # steps still to do; fewer than the divider's
        with m.If(multiplying != 0):
            addend = Mux(product[0], self.constants.mantissa, 0)
            m.d.sync += [
                product.eq(Cat(product[1:TOP_BITS], product[TOP_BITS:] + addend)),
                multiplying.eq(multiplying - 1),
            ]
        scaled = Cat(Const(0, numerics.QUOTIENT_EXTRA), product)  # product * 4

        # The shift of the scale, summed up a term a cycle. Its terms stay within +-2**12.
        offset = Signal(signed(isa.FIELDS_BY_NAME["scale_exponent"].width + 2))
        # up = 2*half_shift - 16, e = numerics.PRODUCT_BITS - align
        constant = numerics.QUOTIENT_EXTRA + numerics.NORMALISED_BITS - numerics.PRODUCT_BITS
        constant += (numerics.SQUARES_WIDTH - 2 * numerics.ROOT_BITS) // 2
        quotient = divider.quotient
        beyond = quotient[numerics.SCALE_MANTISSA_BITS :]

        m.d.sync += [self.converted.eq(0), self.done.eq(0)]
        step = Signal(range(ALIGN_BITS))
        with m.FSM():
            with m.State("IDLE"), m.If(self.convert):
                m.d.sync += [aligned.eq(self.largest), self.align.eq(0), step.eq(0)]
                m.next = "ALIGN"
            with m.State("ALIGN"):
                with m.Switch(step):
                    for index in range(ALIGN_BITS):
                        bit = ALIGN_BITS - 1 - index
                        with m.Case(index), m.If(~aligned[-(1 << bit) :].any()):
                            m.d.sync += [aligned.eq(aligned << (1 << bit)), self.align[bit].eq(1)]
                m.d.sync += step.eq(step + 1)
                with m.If(step == ALIGN_BITS - 1):
                    m.next = "ROUND"
            with m.State("ROUND"):
                m.d.sync += [
                    top.eq((aligned[ALIGN_CUT - 1 :] + 1) >> 1),
                    offset.eq(self.align - self.constants.exponent),
                ]
                m.next = "INVERT"
            with m.State("INVERT"):
                m.d.comb += [
                    divider.start.eq(1),
                    divider.operands.remainder.eq(_DIVIDEND >> DIVIDER_STEPS),
                    divider.operands.divisor.eq(top),
                ]
                m.d.sync += [product.eq(top), multiplying.eq(TOP_BITS), offset.eq(offset + constant)]
                m.next = "INVERTING"
            with m.State("INVERTING"), m.If(divider.done):
                m.d.sync += [self.reciprocal.eq(Mux(nonzero, quotient, 0)), self.converted.eq(1)]
                m.next = "DIVIDE"
            with m.State("DIVIDE"):
                m.d.comb += [
                    divider.operands.remainder.eq(scaled[DIVIDER_STEPS:]),
                    divider.operands.low.eq(scaled[:DIVIDER_STEPS]),
                    divider.operands.divisor.eq(divisor.root),
                ]
                with m.If(divisor.ready):
                    m.d.comb += divider.start.eq(1)
                    m.d.sync += offset.eq(offset - divisor.half_shift)
                    m.next = "DIVIDING"
            with m.State("DIVIDING"), m.If(divider.done):
                m.d.sync += self.mantissa.eq(quotient)
                for cut in range(1, numerics.QUOTIENT_EXTRA + 1):
                    with m.If(beyond[cut - 1]):
                        m.d.sync += [self.mantissa.eq(quotient >> cut), offset.eq(offset - cut)]
                m.next = "CLAMP"
            with m.State("CLAMP"):
                m.d.sync += [self.shift.eq(offset), self.done.eq(1)]  # the mantissa of t_top = 0 is 0
                with m.If(offset > numerics.MAX_SHIFT):
                    m.d.sync += self.shift.eq(numerics.MAX_SHIFT)
                with m.If((offset < 0) | ~nonzero):
                    m.d.sync += self.shift.eq(0)
                m.next = "IDLE"
        return m
