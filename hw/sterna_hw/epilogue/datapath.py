"""The arithmetic of one slot's rows, from row sum to result."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics
from sterna.spec.isa import RowOp
from sterna_hw.epilogue.arithmetic import Multiplier, RoundShift
from sterna_hw.sigma import SIGMA_LATENCY, Sigma

# Ages: cycles since the row was accepted. Something of age n is in its register n cycles after that.
Y_AGE = Multiplier.LATENCY + RoundShift.LATENCY  # y, clamped
SIGMA_AGE = Y_AGE + SIGMA_LATENCY
GATED_AGE = SIGMA_AGE + Multiplier.LATENCY + 1  # silu or the gate's share, rounded
SUM_AGE = GATED_AGE + Multiplier.LATENCY + 1  # a * b + c * d
RESULT_AGE = SUM_AGE + RoundShift.LATENCY
EARLY_AGE = Y_AGE - 1  # lower bound or state: one cycle before y, for its rounding
EARLY_READ_AGE = EARLY_AGE - 2  # its address; then the memory's register, then ours
OPERAND_READ_AGE = GATED_AGE - 2  # address of the operand
SQUARES_LAG = Multiplier.LATENCY + 1  # from z to S2

PRODUCT_SHIFT_WIDTH = 6
ACCUMULATOR_WIDTH = 48  # |y * silu(h)| <= 2^46; |f * h| + |silu * (65536 - f) * 4| <= 2^39 + 2^41


class SlotDatapath(wiring.Component):
    """``y = clamp(round_shift(sum * mantissa, sum_shift))``, then ``result = clamp(round_shift(a * b + c * d, s))``.

    ``gated = round_shift(v * sigma(u), 16)`` feeds the operations that have a gate (docs/numerics.md):

    ========  =====  ==========  =====  =========  ===  =====  =======
    row op    u      v           a      b          c    d      s
    ========  =====  ==========  =====  =========  ===  =====  =======
    EMBED                        1      y          0           0
    FORGET    y      65536 - lb  gated  1          1    lb     0
    RECUR     y      y           gated  (1-f)<<2   f    h      16
    OUTGATE   h>>2   h           gated  y          0           shift
    SILU      y      y           gated  1          0           0
    MUL                          a      y          0           shift
    RESIDUAL                     1      y          1    x      0
    LOGIT                        1      y          0           0
    ========  =====  ==========  =====  =========  ===  =====  =======

    (h>>2 rounds; 1 - f is 65536 - f; with ``fresh`` RECUR's c is 0, with ``chained`` its h is ``carry``.) One row a
    cycle, :data:`RESULT_AGE` cycles.
    Everything but the values of the row itself is constant while rows of a job are in flight.

    Attributes:
        enable: In While low everything holds.
        row_op, fresh: In Of the job.
        product_shift: In ``shift`` of OUTGATE and MUL.
        mantissa, sum_shift: In Scale of the row sums.
        sum: In The row sum, age 0.
        bound, state: In Lower bound (unsigned) and h, at age ``EARLY_READ_AGE + 1``.
        operand: In f (17 bits of it, unsigned), a or x, at age ``OPERAND_READ_AGE + 1``.
        chained: In Of the job.
        carry: In h at age ``GATED_AGE``, for RECUR.
        result: Out At age ``RESULT_AGE``.
        saturated: Out With ``result``: it or y was clamped.
        square: In Add the square of z to S2: y at ``GATED_AGE`` for OUTGATE, else ``result``.
        clear: In Clear S2.
        squares: Out S2, ``SQUARES_LAG`` cycles after ``square``.
    """

    def __init__(self) -> None:
        value = signed(numerics.VALUE_WIDTH)
        super().__init__(
            {
                "enable": In(1),
                "row_op": In(RowOp),
                "fresh": In(1),
                "product_shift": In(PRODUCT_SHIFT_WIDTH),
                "mantissa": In(numerics.SCALE_MANTISSA_BITS),
                "sum_shift": In(PRODUCT_SHIFT_WIDTH),
                "sum": In(signed(numerics.ACC_WIDTH)),
                "bound": In(numerics.PARAM_WIDTH),
                "state": In(value),
                "operand": In(value),
                "chained": In(1),
                "carry": In(value),
                "result": Out(value),
                "saturated": Out(1),
                "square": In(1),
                "clear": In(1),
                "squares": Out(numerics.SQUARES_WIDTH),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, gate = signed(numerics.VALUE_WIDTH), unsigned(numerics.GATE_FRAC + 1)
        m.submodules.scale_multiplier = scale = Multiplier(
            a=signed(numerics.ACC_WIDTH), b=unsigned(numerics.SCALE_MANTISSA_BITS)
        )
        m.submodules.scale_round = y_round = RoundShift(width=numerics.ACC_WIDTH + numerics.SCALE_MANTISSA_BITS)
        m.submodules.sigma = sigma = Sigma()
        m.submodules.gate_multiplier = gate_multiplier = Multiplier(a=value, b=gate)
        m.submodules.result_round = result_round = RoundShift(width=ACCUMULATOR_WIDTH)
        for part in (scale, y_round, sigma, gate_multiplier, result_round):
            m.d.comb += part.enable.eq(self.enable)

        m.d.comb += [
            scale.a.eq(self.sum),
            scale.b.eq(self.mantissa),
            y_round.value.eq(scale.product),
            y_round.shift.eq(self.sum_shift),
        ]
        y = self._delayed(m, "y", Y_AGE, y_round.result, GATED_AGE)
        y_saturated = self._delayed(m, "y_saturated", Y_AGE, y_round.saturated, RESULT_AGE)
        read = Signal(value, reset_less=True)  # age EARLY_AGE
        with m.If(self.enable):
            m.d.sync += read.eq(Mux(self.row_op == RowOp.FORGET, self.bound, self.state))
        early = self._delayed(m, "early", EARLY_AGE, read, GATED_AGE)
        self._gate(m, sigma, gate_multiplier, y, early)
        gated = Signal(value, reset_less=True)  # age GATED_AGE
        with m.If(self.enable):
            half = 1 << (numerics.GATE_FRAC - 1)
            m.d.sync += gated.eq((gate_multiplier.product + half) >> numerics.GATE_FRAC)
        m.d.comb += result_round.value.eq(self._accumulate(m, y[GATED_AGE], early[GATED_AGE], gated))

        shift = Signal(PRODUCT_SHIFT_WIDTH)
        with m.Switch(self.row_op):
            with m.Case(RowOp.OUTGATE, RowOp.MUL):
                m.d.sync += shift.eq(self.product_shift)
            with m.Case(RowOp.RECUR):
                m.d.sync += shift.eq(numerics.GATE_FRAC)
            with m.Default():
                m.d.sync += shift.eq(0)
        m.d.comb += [
            result_round.shift.eq(shift),
            self.result.eq(result_round.result),
            self.saturated.eq(result_round.saturated | y_saturated[RESULT_AGE]),
        ]
        self._sum_squares(m, y[GATED_AGE])
        return m

    def _delayed(self, m: Module, name: str, age: int, value: Value, until: int) -> dict[int, Value]:
        """The value at each age from ``age`` to ``until``."""
        ages = {age: value}
        for later in range(age + 1, until + 1):
            ages[later] = Signal.like(value, name=f"{name}_{later}", reset_less=True)
            with m.If(self.enable):
                m.d.sync += ages[later].eq(ages[later - 1])
        return ages

    def _gate(
        self, m: Module, sigma: Sigma, multiplier: Multiplier, y: dict[int, Value], early: dict[int, Value]
    ) -> None:
        """u, v and the product v * sigma(u)."""
        state_in = Signal(signed(numerics.VALUE_WIDTH), reset_less=True)  # h as a gate input, age Y_AGE
        cut = numerics.STATE_FRAC - numerics.GATE_IN_FRAC
        with m.If(self.enable):
            m.d.sync += state_in.eq((early[EARLY_AGE] + (1 << (cut - 1))) >> cut)
        m.d.comb += [
            sigma.value.eq(Mux(self.row_op == RowOp.OUTGATE, state_in, y[Y_AGE])),
            multiplier.b.eq(sigma.sigma),
        ]
        with m.Switch(self.row_op):
            with m.Case(RowOp.FORGET):
                m.d.comb += multiplier.a.eq(numerics.GATE_ONE - early[SIGMA_AGE])
            with m.Case(RowOp.OUTGATE):
                m.d.comb += multiplier.a.eq(early[SIGMA_AGE])
            with m.Default():
                m.d.comb += multiplier.a.eq(y[SIGMA_AGE])

    def _accumulate(self, m: Module, y: Value, early: Value, gated: Value) -> Value:
        """a * b + c * d, from operands of age GATED_AGE to a register of age SUM_AGE."""
        value, gate = signed(numerics.VALUE_WIDTH), unsigned(numerics.GATE_FRAC + 1)
        m.submodules.product = product = Multiplier(a=value, b=value)
        m.submodules.carried = carried = Multiplier(a=value, b=gate)
        operand = Signal(value, reset_less=True)
        total = Signal(signed(ACCUMULATOR_WIDTH), reset_less=True)
        m.d.comb += [product.enable.eq(self.enable), carried.enable.eq(self.enable)]
        with m.If(self.enable):
            m.d.sync += [operand.eq(self.operand), total.eq(product.product + carried.product)]

        forget = operand[: gate.width]
        align = numerics.GATE_FRAC + numerics.STATE_FRAC - (numerics.GATE_IN_FRAC + numerics.GATE_FRAC)
        a, b, c, d = product.a, product.b, carried.b, carried.a
        m.d.comb += [a.eq(gated), b.eq(y), d.eq(early)]
        with m.Switch(self.row_op):
            with m.Case(RowOp.EMBED, RowOp.LOGIT):
                m.d.comb += a.eq(1)
            with m.Case(RowOp.FORGET):
                m.d.comb += [b.eq(1), c.eq(1)]
            with m.Case(RowOp.RECUR):
                m.d.comb += [
                    b.eq((numerics.GATE_ONE - forget)[: gate.width] << align),
                    c.eq(Mux(self.fresh, 0, forget)),
                    d.eq(Mux(self.chained, self.carry, early)),
                ]
            with m.Case(RowOp.SILU):
                m.d.comb += b.eq(1)
            with m.Case(RowOp.MUL):
                m.d.comb += a.eq(operand)
            with m.Case(RowOp.RESIDUAL):
                m.d.comb += [a.eq(1), c.eq(1), d.eq(operand)]
        return total

    def _sum_squares(self, m: Module, y: Value) -> None:
        """S2, the sum of z^2."""
        value = signed(numerics.VALUE_WIDTH)
        m.submodules.square_multiplier = multiplier = Multiplier(a=value, b=value)
        z = Mux(self.row_op == RowOp.OUTGATE, y, self.result)
        m.d.comb += [multiplier.enable.eq(self.enable), multiplier.a.eq(z), multiplier.b.eq(z)]
        waiting = Signal(Multiplier.LATENCY)
        with m.If(self.enable):
            m.d.sync += waiting.eq(Cat(self.square, waiting))
            with m.If(waiting[-1]):
                m.d.sync += self.squares.eq(self.squares + multiplier.product.as_unsigned())
        with m.If(self.clear):
            m.d.sync += self.squares.eq(0)
