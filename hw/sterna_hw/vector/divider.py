"""Bit-serial division and square root: one result bit a cycle, one subtraction wide."""

from __future__ import annotations

from amaranth import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


class SerialDivider(wiring.Component):
    """``quotient = floor((remainder * 2**steps + low) / divisor)``, restoring, most significant bit first.

    The quotient must fit ``steps`` bits, that is ``remainder < divisor``; otherwise it is meaningless (so it is for
    ``divisor`` 0), but the time is the same. ``low`` shifts out of the register that the quotient shifts into.

    Latency: ``done`` is high for one cycle, ``steps + 1`` cycles after ``start``; from then on ``quotient`` holds.

    Attributes:
        start: In One cycle; samples the operands. Ignored while a division runs.
        operands: In ``remainder`` and ``divisor``, ``width`` bits; ``low``, ``steps`` bits.
        done, quotient: Out The result, ``steps`` bits.
    """

    def __init__(self, *, width: int, steps: int) -> None:
        self._width, self._steps = width, steps
        operands = data.StructLayout({"remainder": width, "low": steps, "divisor": width})
        super().__init__({"start": In(1), "operands": In(operands), "done": Out(1), "quotient": Out(steps)})

    def elaborate(self, platform: object) -> Module:
        """One subtraction of ``width + 1`` bits a cycle."""
        m = Module()
        remainder = Signal(self._width)
        divisor = Signal(self._width)
        left = Signal(range(self._steps + 1))  # steps still to do

        shifted = Signal(self._width + 1)
        difference = Signal(self._width + 2)  # its top bit is the borrow
        fits = ~difference[-1]
        m.d.comb += [
            shifted.eq(Cat(self.quotient[-1], remainder)),
            difference.eq(shifted - divisor),
        ]
        m.d.sync += self.done.eq(left == 1)
        with m.If(left != 0):
            m.d.sync += [
                left.eq(left - 1),
                remainder.eq(shifted),
                self.quotient.eq(Cat(fits, self.quotient)),
            ]
            with m.If(fits):
                m.d.sync += remainder.eq(difference)
        with m.Elif(self.start):
            m.d.sync += [
                left.eq(self._steps),
                remainder.eq(self.operands.remainder),
                self.quotient.eq(self.operands.low),
                divisor.eq(self.operands.divisor),
            ]
        return m


class SerialRoot(wiring.Component):
    """``root = floor(sqrt(radicand))``, digit by digit: ``bits`` bits from ``2 * bits``.

    Latency: ``done`` is high for one cycle, ``bits + 1`` cycles after ``start``; from then on ``root`` holds.

    Attributes:
        start: In One cycle; samples ``radicand`` (``2 * bits`` bits). Ignored while a root is taken.
        done, root: Out The result, ``bits`` bits.
    """

    def __init__(self, *, bits: int) -> None:
        self._bits = bits
        super().__init__({"start": In(1), "radicand": In(2 * bits), "done": Out(1), "root": Out(bits)})

    def elaborate(self, platform: object) -> Module:
        """Keeps ``remainder = taken radicand bits - root**2``, at most ``2 * root``.

        Before the last step the root has ``bits - 1`` bits and the remainder ``bits``; the last remainder is not used.
        """
        m = Module()
        remainder = Signal(self._bits)
        rest = Signal(2 * self._bits)
        left = Signal(range(self._bits + 1))

        width = self._bits + 2  # the remainder with two more bits of the radicand
        difference = Signal(width + 1)
        shifted = Signal(width)
        fits = ~difference[-1]
        m.d.comb += [
            shifted.eq(Cat(rest[-2:], remainder)),
            difference.eq(shifted - Cat(1, 0, self.root)),
        ]
        m.d.sync += self.done.eq(left == 1)
        with m.If(left != 0):
            m.d.sync += [
                left.eq(left - 1),
                rest.eq(rest << 2),
                remainder.eq(shifted),
                self.root.eq(Cat(fits, self.root)),
            ]
            with m.If(fits):
                m.d.sync += remainder.eq(difference)
        with m.Elif(self.start):
            m.d.sync += [left.eq(self._bits), remainder.eq(0), rest.eq(self.radicand), self.root.eq(0)]
        return m
