"""The vector unit: SUMSQ and QUANT, ``vector_width`` elements a cycle."""

from __future__ import annotations

from typing import NamedTuple

from amaranth import Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from sterna.spec import isa, numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.registers import Stall
from sterna_hw.exchange import GATHER_LATENCY, agreement_latency
from sterna_hw.interfaces import MemoryRead, MemoryWrite, exchange_signature, row_scale, row_values, vector_job
from sterna_hw.pipeline import delayed
from sterna_hw.vector.agreement import Agreement
from sterna_hw.vector.divisor import DIVISOR_CYCLES
from sterna_hw.vector.passes import (
    ACTIVATIONS_LATENCY,
    PRODUCTS_LATENCY,
    Activations,
    Largest,
    Products,
    SumOfSquares,
    largest_latency,
    squares_latency,
)
from sterna_hw.vector.scalar import RECIPROCAL_CYCLES, SCALE_CYCLES, ScalarUnit

_READ = 1  # cycles from address to data
_END = 1  # cycles from the last result of a unit to `done`


def _rows(config: HardwareConfig, count: int) -> int:
    return max(-(-count // config.vector_width), 1)


def _agreement(config: HardwareConfig) -> int:
    """Cycles from the end of a pass to what all clusters agreed on, if none is late."""
    return 1 + agreement_latency(config.clusters) if config.clusters > 1 else 0


def sumsq_cycles(config: HardwareConfig, count: int) -> int:
    """Cycles of a SUMSQ of ``count`` elements: from the transfer of the job to ``done``, one of the two counted.

    With clusters, ``count`` is that of one, and it waits for no other.
    """
    read = _READ + PRODUCTS_LATENCY
    return _rows(config, count) + read + squares_latency(config.vector_width) + _agreement(config) + _END


def quant_cycles(config: HardwareConfig, count: int) -> int:
    """Cycles of a QUANT of ``count`` elements, counted likewise.

    The divisor's root runs beside the first pass, the scale's quotient beside the second.
    """
    rows, read = _rows(config, count), _READ + PRODUCTS_LATENCY
    convert = rows + read + largest_latency(config.vector_width) + _agreement(config)
    converted = convert + RECIPROCAL_CYCLES
    written = converted + rows + read + ACTIVATIONS_LATENCY + (GATHER_LATENCY if config.clusters > 1 else 0)
    scaled = max(1 + DIVISOR_CYCLES, converted) + SCALE_CYCLES
    return max(written, scaled) + _END


class _Results(NamedTuple):
    """What the passes of this unit found, or all clusters together, and where the second one writes."""

    s1: Value
    s2: Value
    summed: Value  # one cycle, at the end of a SUMSQ
    top: Value
    found: Value  # one cycle, when ``top`` is known
    activations: wiring.PureInterface
    offering: Value | None = None  # with clusters: an offer waits for the others


class VectorUnit(wiring.Component):
    """Sums of squares and quantised vectors (docs/numerics.md, "Projection inputs: QUANT").

    SUMSQ reads the vector and its norm weights once and leaves S1 inside, for every QUANT until the next SUMSQ.
    QUANT reads both twice: for the largest product, then to write the activations; ``ScalarUnit`` works between and
    beside the passes. Cycles: :func:`sumsq_cycles`, :func:`quant_cycles`. ``count`` 0 counts as one element of zero.

    Element addresses of a job are multiples of ``vector_width``; activations go to address 0 and up, the elements that
    fill the last row are zero. Elements read beyond ``count`` in the last row do not matter.

    In a cluster the vector is a part of a longer one. SUMSQ ends with the sums of all parts, S2 among them: that of a
    QUANT is then the one of the last SUMSQ. A QUANT goes by the largest of all parts, writes its elements to the
    exchange, and ends when the whole last row has come from there to activation memory.

    Attributes:
        job: In(stream) Ready while idle.
        done: Out One cycle, at the end of a job; everything is written by then.
        vector, params: Out Read ports of vector and parameter memory; ``params`` is not read with ``ones`` (SUMSQ).
        activations: Out Write port of activation memory, without clusters.
        exchange: Out With clusters: the exchange, see :func:`exchange_signature`.
        s2: In Sum of squares of the row operations, 64 bits a slot; constant during a QUANT.
        scale: Out The scale of the last QUANT; changes with ``done``.
        stall: Out What the unit is doing: SUMSQ, QUANT, or SCALAR where a QUANT has nothing in its passes and waits
            for the scalar unit. While idle, what the offered job will do. To wait for other clusters is SUMSQ in a
            SUMSQ, and SCALAR in a QUANT, whose reciprocal needs the largest of all.
        s1: The sum of the last SUMSQ (with clusters, of all parts), 64 bits: not a port, for observation.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        width = config.vector_width
        self._config = config
        self.s1 = Signal(numerics.SQUARES_WIDTH)
        params = data.ArrayLayout(unsigned(numerics.PARAM_WIDTH), width)
        activations = data.ArrayLayout(unsigned(numerics.Q_WIDTH), width)
        outlet = (
            {"exchange": Out(exchange_signature(config))}
            if config.clusters > 1
            else {"activations": Out(MemoryWrite(config.activation_depth // width, activations))}
        )
        super().__init__(
            {
                "job": In(stream.Signature(vector_job())),
                "done": Out(1),
                "vector": Out(MemoryRead(config.vector_depth // width, data.ArrayLayout(row_values(config), width))),
                "params": Out(MemoryRead(config.param_depth // width, params)),
                **outlet,
                "s2": In(data.ArrayLayout(unsigned(numerics.SQUARES_WIDTH), config.slots)),
                "scale": Out(row_scale(config)),
                "stall": Out(Stall),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The control; configurations have one slot."""
        m = Module()
        width = self._config.vector_width
        m.submodules.products = products = Products(width=width)
        m.submodules.squares = squares = SumOfSquares(width=width)
        m.submodules.largest = largest = Largest(width=width)
        m.submodules.scalar = scalar = ScalarUnit()
        m.submodules.quantiser = quantiser = Activations(width=width)

        index_bits = ceil_log2(width)
        job = Signal(vector_job())
        row = Signal(isa.FIELDS_BY_NAME["count"].width - index_bits)
        last_row = Signal.like(row)
        tail = Signal(width)  # the elements of the last row that count
        reading = Signal()
        writing = Signal()  # second pass of a QUANT
        written, scaled = Signal(), Signal()  # what a QUANT waits for at its end

        # Memory to products.
        m.d.comb += [
            self.vector.address.eq((job.source >> index_bits) + row),
            self.vector.enable.eq(reading),
            self.params.address.eq((job.param >> index_bits) + row),
            self.params.enable.eq(reading & ~products.ones),
            products.ones.eq(job.ones & ~job.quantise),
            products.i.valid.eq(delayed(m, reading, _READ)),
            products.i.p.last.eq(delayed(m, row == last_row, _READ)),
            products.i.p.keep.eq(Mux(products.i.p.last, tail, ~0)),
        ]
        for element in range(width):
            m.d.comb += [
                products.i.p.values[element].eq(self.vector.data[element][0]),
                products.i.p.params[element].eq(self.params.data[element].as_signed()),
            ]

        # Products to the pass that wants them.
        for unit, wanted in (
            (squares, ~job.quantise),
            (largest, job.quantise & ~writing),
            (quantiser, job.quantise & writing),
        ):
            m.d.comb += [unit.i.p.eq(products.o.p), unit.i.valid.eq(products.o.valid & wanted)]

        results = self._results(m, squares, largest)
        m.d.comb += [
            self.s1.eq(results.s1),
            scalar.s1.eq(results.s1),
            scalar.s2.eq(results.s2),
            scalar.constants.eps_mantissa.eq(job.eps_mantissa),
            scalar.constants.eps_shift.eq(job.eps_shift),
            scalar.constants.eps_const.eq(job.eps_const),
            scalar.constants.mantissa.eq(job.scale_mantissa),
            scalar.constants.exponent.eq(job.scale_exponent),
            scalar.largest.eq(results.top),
            scalar.convert.eq(results.found),
            quantiser.align.eq(scalar.align),
            quantiser.reciprocal.eq(scalar.reciprocal),
        ]

        # Activations to memory.
        activations = results.activations
        m.d.comb += [activations.enable.eq(quantiser.o.valid), activations.data.eq(quantiser.o.p.row)]
        with m.If(quantiser.o.valid):
            m.d.sync += activations.address.eq(activations.address + 1)
            with m.If(quantiser.o.p.last):
                m.d.sync += written.eq(1)
        with m.If(scalar.done):
            m.d.sync += scaled.eq(1)
        waiting = Signal()  # for the reciprocal, which the second pass needs
        with m.If(scalar.converted):
            m.d.sync += waiting.eq(0)
        with m.Elif(scalar.convert):
            m.d.sync += waiting.eq(1)
        idle = waiting if results.offering is None else waiting | results.offering
        running = Mux(self.job.ready, self.job.p.quantise, job.quantise)
        m.d.comb += self.stall.eq(Mux(running, Mux(idle | (written & ~scaled), Stall.SCALAR, Stall.QUANT), Stall.SUMSQ))

        gathered = self._gathered(m, last_row) if self._config.clusters > 1 else None
        before = Signal.like(self.job.p.count)  # the last element
        m.d.comb += before.eq(self.job.p.count - 1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.job.ready.eq(1)
                m.d.sync += [job.eq(self.job.p), last_row.eq(before >> index_bits), row.eq(0)]
                m.d.sync += [tail[element].eq(before[:index_bits] >= element) for element in range(width)]
                with m.If(self.job.p.count == 0):
                    m.d.sync += [last_row.eq(0), tail.eq(0)]
                m.d.sync += [writing.eq(0), written.eq(0), scaled.eq(0), activations.address.eq(0)]
                with m.If(self.job.valid):
                    m.d.comb += [squares.clear.eq(~self.job.p.quantise), largest.clear.eq(1)]
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += [reading.eq(1), scalar.prepare.eq(job.quantise & ~writing & (row == 0))]
                m.d.sync += row.eq(row + 1)
                with m.If(row == last_row):
                    m.d.sync += row.eq(0)
                    m.next = "WAIT"
            with m.State("WAIT"):
                with m.If(scalar.converted):
                    m.d.sync += writing.eq(1)
                    m.next = "READ"
                if gathered is None:
                    gathered = written | (quantiser.o.valid & quantiser.o.p.last)
                quantised = gathered & (scaled | scalar.done)
                with m.If(quantised):
                    m.d.sync += [self.scale[0].mantissa.eq(scalar.mantissa), self.scale[0].shift.eq(scalar.shift)]
                with m.If(quantised | results.summed):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"
        return m

    def _gathered(self, m: Module, last_row: Signal) -> Value:
        """In this cycle or before it, the last whole row of the job is written."""
        gathered, before = self.exchange.gathered, Signal()
        last = gathered.enable & (gathered.address == last_row)
        with m.If(self.job.ready):
            m.d.sync += before.eq(0)
        with m.Elif(last):
            m.d.sync += before.eq(1)
        return before | last

    def _results(self, m: Module, squares: SumOfSquares, largest: Largest) -> _Results:
        if self._config.clusters == 1:
            return _Results(
                s1=squares.total,
                s2=self.s2[0],
                summed=squares.done,
                top=largest.top,
                found=largest.done,
                activations=self.activations,
            )
        exchange = self.exchange
        m.submodules.agreement = agreement = Agreement()
        m.d.comb += [
            agreement.summed.eq(squares.done),
            agreement.found.eq(largest.done),
            agreement.agreed.eq(exchange.agreed_valid),
            agreement.agreed_sums.eq(exchange.agreed_sums),
            exchange.offer_valid.eq(agreement.offering),
            exchange.offer_sums[0].eq(squares.total),
            exchange.offer_sums[1].eq(self.s2[0]),
            exchange.offer_top.eq(largest.top),
        ]
        return _Results(
            s1=agreement.sums[0],
            s2=agreement.sums[1],
            summed=agreement.sums_agreed,
            top=exchange.agreed_top,
            found=agreement.top_agreed,
            activations=exchange.share,
            offering=agreement.offering,
        )
