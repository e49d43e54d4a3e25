"""The pipelines of the vector passes: products of elements and norm weights, their squares, largest, activations.

Magnitude and sign travel apart from the product on, so that every multiplier is unsigned. Rounding halves upwards then
reads, for a value ``-m``: ``round_shift(-m, s) = -((m + 2**(s-1) - 1) >> s)``.
Nothing stalls: ``ready`` of every stream here is constant.
"""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics
from sterna_hw.pipeline import delayed, registered, tree
from sterna_hw.vector.scalar import ALIGN_BITS, ALIGN_CUT

HALF_VALUE = numerics.VALUE_WIDTH // 2
SQUARE_BITS = 2 * (numerics.VALUE_WIDTH - 1) + 1  # (2**23)**2 inclusive
SCALED_BITS = numerics.Q_MAX.bit_length() + numerics.RECIPROCAL_FRAC  # t*r is at most 127 * 2**27

PRODUCTS_LATENCY = 4
ACTIVATIONS_LATENCY = 6


def squares_latency(width: int) -> int:
    """Cycles from products to the sum that contains their squares."""
    return 4 + (width - 1).bit_length()


def largest_latency(width: int) -> int:
    """Cycles from products to the largest of all so far."""
    return 1 + (width - 1).bit_length()


def elements(width: int) -> stream.Signature:
    """One row of vector memory and of parameter memory, as read; ``keep`` has a bit for each element that counts."""
    layout = {
        "values": data.ArrayLayout(signed(numerics.VALUE_WIDTH), width),
        "params": data.ArrayLayout(signed(numerics.PARAM_WIDTH), width),
        "keep": width,
        "last": 1,
    }
    return stream.Signature(data.StructLayout(layout), always_ready=True)


def products(width: int) -> stream.Signature:
    """Magnitudes (39 bits) and signs of one row of products; ``last`` marks the last row of a pass."""
    layout = {"magnitudes": data.ArrayLayout(unsigned(numerics.PRODUCT_BITS), width), "negative": width, "last": 1}
    return stream.Signature(data.StructLayout(layout), always_ready=True)


def activations(width: int) -> stream.Signature:
    """One row of quantised activations."""
    layout = {"row": data.ArrayLayout(signed(numerics.Q_WIDTH), width), "last": 1}
    return stream.Signature(data.StructLayout(layout), always_ready=True)


def magnitude(value: Value) -> Value:
    """Absolute value of a signed value, unsigned, in as many bits."""
    negative = value[-1]
    return (value.as_unsigned() ^ negative.replicate(len(value))) + negative


def rounded(value: Value, negative: Value, shift: int) -> Value:
    """Magnitude of ``round_shift`` of the number with this magnitude and sign."""
    return (value + Cat(negative.replicate(shift - 1), ~negative)) >> shift


class Products(wiring.Component):
    """|w*c| and its sign, 24 by 16 bits, two 12-by-16 multiplications an element.

    Latency ``PRODUCTS_LATENCY`` = 4: operands, magnitudes, partial products, sum.

    Attributes:
        ones: In Take 2**15 (one) for every parameter. The sign is then the opposite.
        i: In Rows as read from memory; what is not kept counts as zero.
        o: Out Products.
    """

    def __init__(self, *, width: int) -> None:
        self._width = width
        super().__init__({"ones": In(1), "i": In(elements(width)), "o": Out(products(width))})

    def elaborate(self, platform: object) -> Module:
        """Four registered stages."""
        m = Module()
        for signal, source in ((self.o.valid, self.i.valid), (self.o.p.last, self.i.p.last)):
            m.d.comb += signal.eq(delayed(m, source, PRODUCTS_LATENCY))
        one = -(1 << (numerics.PARAM_WIDTH - 1))  # its magnitude is 2**15
        for index in range(self._width):
            value = Signal(signed(numerics.VALUE_WIDTH), reset_less=True)
            param = Signal(signed(numerics.PARAM_WIDTH), reset_less=True)
            m.d.sync += [
                value.eq(Mux(self.i.p.keep[index], self.i.p.values[index], 0)),
                param.eq(Mux(self.ones, one, self.i.p.params[index])),
            ]
            size = registered(m, magnitude(value), numerics.VALUE_WIDTH)
            factor = registered(m, magnitude(param), numerics.PARAM_WIDTH)
            negative = delayed(m, value[-1] ^ param[-1], 3)
            low = registered(m, size[:HALF_VALUE] * factor, HALF_VALUE + numerics.PARAM_WIDTH)
            high = registered(m, size[HALF_VALUE:] * factor, HALF_VALUE + numerics.PARAM_WIDTH)
            product = registered(m, (high << HALF_VALUE) + low, numerics.PRODUCT_BITS)
            m.d.comb += [self.o.p.magnitudes[index].eq(product), self.o.p.negative[index].eq(negative)]
        return m


class SumOfSquares(wiring.Component):
    """``total`` = sum of p**2 with p = round_shift(product, 15), 24 bits of magnitude: 64 bits unsigned.

    2**46 times 65535 elements stay below 2**62. With p = a*2**12 + b the square is a**2*2**24 + b**2, whose bits do
    not overlap, and 2ab*2**12. Latency :func:`squares_latency`.

    Attributes:
        clear: In One cycle, before the first row: empties the sum.
        i: In Products.
        total: Out The sum so far.
        done: Out One cycle, when the row marked ``last`` is in the sum.
    """

    def __init__(self, *, width: int) -> None:
        self._width = width
        ports = {"clear": In(1), "i": In(products(width)), "total": Out(numerics.SQUARES_WIDTH), "done": Out(1)}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """Rounding, three multiplications, their sum, a tree over the row, the total."""
        m = Module()
        squares: list[Value] = []
        for index in range(self._width):
            exact = rounded(self.i.p.magnitudes[index], self.i.p.negative[index], numerics.PARAM_WIDTH - 1)
            p = registered(m, exact, numerics.VALUE_WIDTH)
            a, b = p[HALF_VALUE:], p[:HALF_VALUE]
            aa, ab, bb = (registered(m, x * y, 2 * HALF_VALUE) for x, y in ((a, a), (a, b), (b, b)))
            squares.append(registered(m, Cat(bb, aa) + (ab << (HALF_VALUE + 1)), SQUARE_BITS))
        row = tree(m, squares, lambda x, y: x + y, 1)
        valid = delayed(m, self.i.valid, squares_latency(self._width) - 1)
        last = delayed(m, self.i.valid & self.i.p.last, squares_latency(self._width))
        m.d.comb += self.done.eq(last)
        with m.If(valid):
            m.d.sync += self.total.eq(self.total + row)
        with m.Elif(self.clear):
            m.d.sync += self.total.eq(0)
        return m


class Largest(wiring.Component):
    """``top`` = largest magnitude of the products. Latency :func:`largest_latency`.

    Attributes:
        clear: In One cycle, before the first row.
        i: In Products.
        top: Out The largest so far, 39 bits.
        done: Out One cycle, when the row marked ``last`` is in it.
    """

    def __init__(self, *, width: int) -> None:
        self._width = width
        ports = {"clear": In(1), "i": In(products(width)), "top": Out(numerics.PRODUCT_BITS), "done": Out(1)}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """A tree over the row, then the largest of all."""
        m = Module()
        sizes: list[Value] = [self.i.p.magnitudes[index] for index in range(self._width)]
        row = tree(m, sizes, lambda x, y: Mux(x > y, x, y), 0)
        valid = delayed(m, self.i.valid, largest_latency(self._width) - 1)
        m.d.comb += self.done.eq(delayed(m, self.i.valid & self.i.p.last, largest_latency(self._width)))
        with m.If(self.clear):
            m.d.sync += self.top.eq(0)
        with m.Elif(valid & (row > self.top)):
            m.d.sync += self.top.eq(row)
        return m


class Activations(wiring.Component):
    """q = round_shift(t*r, 27) with t = round_shift(product*2**17, e), that is of product << (39 - e) by 22: 8 bits.

    Latency ``ACTIVATIONS_LATENCY`` = 6: alignment by multiples of 8, by the rest, rounding, multiplication (18 by 18
    bits), rounding, sign.

    Attributes:
        align: In 39 - e; no product may overflow 39 bits with it. Constant during the pass.
        reciprocal: In r, 18 bits. Constant during the pass.
        i: In Products.
        o: Out Rows of activations, -127..127.
    """

    def __init__(self, *, width: int) -> None:
        self._width = width
        super().__init__(
            {
                "align": In(ALIGN_BITS),
                "reciprocal": In(numerics.RECIPROCAL_WIDTH),
                "i": In(products(width)),
                "o": Out(activations(width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Six registered stages."""
        m = Module()
        for signal, source in ((self.o.valid, self.i.valid), (self.o.p.last, self.i.p.last)):
            m.d.comb += signal.eq(delayed(m, source, ACTIVATIONS_LATENCY))
        for index in range(self._width):
            signs = Signal(ACTIVATIONS_LATENCY - 1, reset_less=True)  # of the stage with this number, less one
            m.d.sync += signs.eq(Cat(self.i.p.negative[index], signs))
            value: Value = self.i.p.magnitudes[index]
            for bits in (range(3, ALIGN_BITS), range(3)):
                for bit in bits:
                    value = Mux(self.align[bit], value << (1 << bit), value)[: numerics.PRODUCT_BITS]
                value = registered(m, value, numerics.PRODUCT_BITS)
            t = registered(m, rounded(value, signs[1], ALIGN_CUT), numerics.NORMALISED_BITS + 1)
            scaled = registered(m, t * self.reciprocal, SCALED_BITS)
            size = registered(m, rounded(scaled, signs[3], numerics.RECIPROCAL_FRAC), numerics.Q_WIDTH - 1)
            q = registered(m, (size ^ signs[4].replicate(numerics.Q_WIDTH)) + signs[4], numerics.Q_WIDTH)
            m.d.comb += self.o.p.row[index].eq(q)
        return m
