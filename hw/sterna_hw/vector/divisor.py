"""The divisor of a vector's scale, M = S1 + S2*eps + const, and its square root."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import isa, numerics
from sterna_hw.vector.divider import SerialRoot

EPS_SHIFT_BITS = isa.FIELDS_BY_NAME["eps_shift"].width
COARSE = 8  # shifts go by 8 first, then by 1 (right) or 2 (left)
_RIGHT_COARSE, _RIGHT_FINE = (1 << EPS_SHIFT_BITS) // COARSE - 1, COARSE - 1  # most steps that a right shift takes
_LEFT_COARSE, _LEFT_FINE = numerics.SQUARES_WIDTH // COARSE - 1, COARSE // 2 - 1
HALF_SHIFT_BITS = (numerics.SQUARES_WIDTH // 2 - 1).bit_length()

DIVISOR_CYCLES = (
    numerics.EPS_BITS + _RIGHT_COARSE + _RIGHT_FINE + 2 + _LEFT_COARSE + _LEFT_FINE + 1 + (numerics.ROOT_BITS + 1) + 1
)


class DivisorRoot(wiring.Component):
    """The root of the divisor: 24 bits, with the shift that gave it 24 bits. ::

        M    = S1 + ((S2 * eps_mantissa) >> eps_shift) + eps_const, at least 1, at most 2**64 - 1
        root = floor(sqrt(M')), M' = the top 48 of 64 bits of M << (2 * half_shift), whose top two bits are not 00

    So ``up`` of docs/numerics.md is ``2 * half_shift - 16``. The product has 80 bits (shift and add, one bit of
    ``eps_mantissa`` a cycle); bits of it beyond 64 and carries only say that M saturates.

    Latency: ``ready`` falls after ``start`` and is high from ``DIVISOR_CYCLES`` after it, whatever the operands.

    Attributes:
        start: In One cycle. Ignored while a root is computed.
        s1, s2, eps_mantissa, eps_shift, eps_const: In Must stay from ``start`` until ``ready``.
        ready: Out High while ``root`` and ``half_shift`` belong to the last ``start``.
        root: Out 24 bits, at least 2**23.
        half_shift: Out 0..31.
    """

    start: In(1)
    s1: In(numerics.SQUARES_WIDTH)
    s2: In(numerics.SQUARES_WIDTH)
    eps_mantissa: In(numerics.EPS_BITS)
    eps_shift: In(EPS_SHIFT_BITS)
    eps_const: In(numerics.EPS_CONST_BITS)
    ready: Out(1)
    root: Out(numerics.ROOT_BITS)
    half_shift: Out(HALF_SHIFT_BITS)

    def elaborate(self, platform: object) -> Module:
        """Two registers, ``product`` and ``total``, each with one adder; steps are counted in ``step``."""
        m = Module()
        m.submodules.square_root = square_root = SerialRoot(bits=numerics.ROOT_BITS)
        m.d.comb += self.root.eq(square_root.root)

        bits = numerics.SQUARES_WIDTH
        step = Signal(range(max(numerics.EPS_BITS, _RIGHT_COARSE, _RIGHT_FINE, _LEFT_COARSE, _LEFT_FINE)))
        # S2 * eps_mantissa: the multiplier shifts out at the bottom as the product shifts in. A step that adds nothing
        # is a right shift by one.
        product = Signal(bits + numerics.EPS_BITS)
        addend = Signal(bits)
        multiplied = Cat(product[1 : numerics.EPS_BITS], product[numerics.EPS_BITS :] + addend)
        total = Signal(bits)
        term = Signal(bits)
        added = Signal(bits + 1)
        over = Signal()  # M is 2**64 or more
        m.d.comb += added.eq(total + term)

        def steps(count: int, following: str) -> None:
            """Go to ``following`` after ``count`` cycles in this state."""
            m.d.sync += step.eq(step + 1)
            with m.If(step == count - 1):
                m.d.sync += step.eq(0)
                m.next = following

        def add() -> None:
            m.d.sync += [total.eq(added), over.eq(over | added[-1])]

        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [
                    product.eq(self.eps_mantissa),
                    total.eq(self.eps_const),
                    over.eq(0),
                    self.half_shift.eq(0),
                    self.ready.eq(0),
                ]
                m.next = "MULTIPLY"
            with m.State("MULTIPLY"):
                m.d.comb += [addend.eq(Mux(product[0], self.s2, 0)), term.eq(self.s1)]
                m.d.sync += product.eq(multiplied)
                with m.If(step == 0):
                    add()
                steps(numerics.EPS_BITS, "RIGHT_COARSE")
            with m.State("RIGHT_COARSE"):
                with m.If(step < self.eps_shift[COARSE.bit_length() - 1 :]):
                    m.d.sync += product.eq(product >> COARSE)
                steps(_RIGHT_COARSE, "RIGHT_FINE")
            with m.State("RIGHT_FINE"):
                with m.If(step < self.eps_shift[: COARSE.bit_length() - 1]):
                    m.d.sync += product.eq(multiplied)
                steps(_RIGHT_FINE, "ADD")
            with m.State("ADD"):
                m.d.comb += term.eq(product)
                add()
                with m.If(product[bits:].any()):
                    m.d.sync += over.eq(1)
                m.next = "CLAMP"
            with m.State("CLAMP"):
                with m.If(over):
                    m.d.sync += total.eq((1 << bits) - 1)
                with m.Elif(~total.any()):
                    m.d.sync += total.eq(1)
                m.next = "LEFT_COARSE"
            with m.State("LEFT_COARSE"):
                with m.If(~total[-COARSE:].any()):
                    m.d.sync += [total.eq(total << COARSE), self.half_shift.eq(self.half_shift + COARSE // 2)]
                steps(_LEFT_COARSE, "LEFT_FINE")
            with m.State("LEFT_FINE"):
                with m.If(~total[-2:].any()):
                    m.d.sync += [total.eq(total << 2), self.half_shift.eq(self.half_shift + 1)]
                steps(_LEFT_FINE, "START")
            with m.State("START"):
                m.d.comb += [square_root.start.eq(1), square_root.radicand.eq(total[-2 * numerics.ROOT_BITS :])]
                m.next = "ROOT"
            with m.State("ROOT"), m.If(square_root.done):
                m.d.sync += self.ready.eq(1)
                m.next = "IDLE"
        return m
