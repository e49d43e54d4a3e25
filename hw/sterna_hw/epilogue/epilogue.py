"""The epilogue: scales the rows that leave the lanes and applies the row operation, one row a cycle."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.isa import RowOp
from sterna_hw.epilogue.datapath import (
    EARLY_READ_AGE,
    GATED_AGE,
    OPERAND_READ_AGE,
    RESULT_AGE,
    SQUARES_LAG,
    SlotDatapath,
)
from sterna_hw.interfaces import MemoryRead, MemoryWrite, logit, row_job, row_scale, row_sum, row_values

CARRY_LATENCY = RESULT_AGE - GATED_AGE  # from the old state of RECUR to the new one
LAST_AGE = RESULT_AGE + SQUARES_LAG  # the result is stored and S2 is complete


def epilogue_cycles(rows: int, row_op: RowOp) -> int:
    """Cycles from the transfer of a job of ``rows`` rows to its ``done`` (first cycle 0), when nothing stalls."""
    return rows + (RESULT_AGE + 2 if row_op == RowOp.LOGIT else LAST_AGE)


class Epilogue(wiring.Component):
    """Row sums in, results of the row operation out (docs/numerics.md, "Rows: MATMUL").

    A row's result is written ``RESULT_AGE`` cycles after the row was accepted; row j of a job uses the addresses
    source + j, target + j, param + j and state + j. The result of RECUR goes to state memory, that of LOGIT to
    ``logits``, every other to vector memory. While a logit that was not taken blocks another the whole pipeline holds.
    ``scale`` must be stable from the transfer of the job to ``done``. Results may replace what their own row read.

    Attributes:
        job: In(stream) A MATMUL's or EMBED's row operation, of at least one row; ready while idle.
        done: Out One cycle at the end of a job: its results are stored (LOGIT: taken) and S2 is final.
        scale: In Scale of the row sums, a slot; EMBED takes its own (mantissa 2^17 and the job's shift).
        rows: In(stream) The job's rows; ``last`` ends the job. Ready only in a job.
        operand, bounds, state: Out Element reads of vector, parameter and state memory.
        result, state_write: Out Element writes of vector and state memory.
        logits: Out(stream) Results of LOGIT.
        chained: In RECUR goes on from ``carry`` instead of ``state``.
        carry: In The state, ``CARRY_LATENCY`` cycles before the row's result: what another epilogue, ahead by as much,
            shows as ``trace_values``.
        s2: Out Sum of squares that EMBED, OUTGATE and RESIDUAL feed, a slot; cleared when such a job is ``first``.
        saturated: Out One cycle for each row in which y or the result was clamped (in any slot).
        trace_valid, trace_values: Out Every row's result, in the cycle it is committed.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        values = row_values(config)
        super().__init__(
            {
                "job": In(stream.Signature(row_job())),
                "done": Out(1),
                "scale": In(row_scale(config)),
                "rows": In(stream.Signature(row_sum(config))),
                "operand": Out(MemoryRead(config.vector_depth, values)),
                "bounds": Out(MemoryRead(config.param_depth, numerics.PARAM_WIDTH)),
                "state": Out(MemoryRead(config.state_depth, values)),
                "result": Out(MemoryWrite(config.vector_depth, values)),
                "state_write": Out(MemoryWrite(config.state_depth, values)),
                "logits": Out(stream.Signature(logit(config))),
                "chained": In(1),
                "carry": In(values),
                "s2": Out(data.ArrayLayout(numerics.SQUARES_WIDTH, config.slots)),
                "saturated": Out(1),
                "trace_valid": Out(1),
                "trace_values": Out(values),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        job = Signal(row_job())
        enable = Signal()  # low: the whole pipeline holds
        accept = Signal()
        valid = Signal(RESULT_AGE)  # bit n: the row of age n + 1
        last = Signal(LAST_AGE - 1)
        with m.If(enable):
            m.d.sync += [valid.eq(Cat(accept, valid)), last.eq(Cat(accept & self.rows.payload.last, last))]
        commit = Signal()
        m.d.comb += commit.eq(valid[RESULT_AGE - 1] & enable)

        start = self.job.valid & self.job.ready
        ended = Signal()
        with m.If(job.row_op == RowOp.LOGIT):
            m.d.comb += ended.eq(self.logits.valid & self.logits.ready & self.logits.payload.last)
        with m.Else():
            m.d.comb += ended.eq(last[-1])
        m.d.sync += self.done.eq(ended)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.job.ready.eq(1)
                with m.If(self.job.valid):
                    m.d.sync += job.eq(self.job.payload)
                    m.next = "ROWS"
            with m.State("ROWS"):
                m.d.comb += [self.rows.ready.eq(enable), accept.eq(self.rows.valid & self.rows.ready)]
                with m.If(accept & self.rows.payload.last):
                    m.next = "DRAIN"
            with m.State("DRAIN"), m.If(ended):
                m.next = "IDLE"

        results, saturated = self._slots(m, job, enable, valid, start)
        m.d.comb += [
            self.saturated.eq(commit & saturated),
            self.trace_valid.eq(commit),
            self.trace_values.eq(results),
        ]
        self._memories(m, job, enable, valid, commit, start, results)
        held = self._logits(m, commit & (job.row_op == RowOp.LOGIT), results, last[RESULT_AGE - 1])
        m.d.comb += enable.eq(~held)
        return m

    def _slots(
        self, m: Module, job: data.View, enable: Signal, valid: Signal, start: Signal
    ) -> tuple[data.View, Signal]:
        """A datapath a slot: the results (age ``RESULT_AGE``) and whether any slot clamped."""
        results = Signal(row_values(self._config))
        clamped = Signal(self._config.slots)
        embed = job.row_op == RowOp.EMBED
        square = Signal()
        with m.Switch(job.row_op):
            with m.Case(RowOp.OUTGATE):
                m.d.comb += square.eq(valid[GATED_AGE - 1])
            with m.Case(RowOp.EMBED, RowOp.RESIDUAL):
                m.d.comb += square.eq(valid[RESULT_AGE - 1])
        new_op = self.job.payload.row_op
        feeds = (new_op == RowOp.EMBED) | (new_op == RowOp.OUTGATE) | (new_op == RowOp.RESIDUAL)
        for slot in range(self._config.slots):
            path = SlotDatapath()
            m.submodules[f"slot_{slot}"] = path
            m.d.sync += path.sum_shift.eq(Mux(embed, job.shift, self.scale[slot].shift))
            m.d.comb += [
                path.enable.eq(enable),
                path.row_op.eq(job.row_op),
                path.fresh.eq(job.fresh),
                path.product_shift.eq(job.shift),
                path.mantissa.eq(Mux(embed, 1 << numerics.EMBED_MANTISSA_BITS, self.scale[slot].mantissa)),
                path.sum.eq(self.rows.payload.sums[slot]),
                path.bound.eq(self.bounds.data),
                path.state.eq(self.state.data[slot]),
                path.operand.eq(self.operand.data[slot]),
                path.chained.eq(self.chained),
                path.carry.eq(self.carry[slot]),
                path.square.eq(square),
                path.clear.eq(start & self.job.payload.first & feeds),
                results[slot].eq(path.result),
                clamped[slot].eq(path.saturated),
                self.s2[slot].eq(path.squares),
            ]
        return results, clamped.any()

    def _memories(
        self,
        m: Module,
        job: data.View,
        enable: Signal,
        valid: Signal,
        commit: Signal,
        start: Signal,
        results: data.View,
    ) -> None:
        """Addresses count up as rows pass the age at which they read or write."""

        def counted(name: str, depth: int, passes: Signal) -> Signal:
            address = Signal(ceil_log2(depth), name=f"{name}_address")
            with m.If(start):
                m.d.sync += address.eq(self.job.payload[name.split("_")[0]])
            with m.Elif(passes):
                m.d.sync += address.eq(address + 1)
            return address

        early, late = enable & valid[EARLY_READ_AGE - 1], enable & valid[OPERAND_READ_AGE - 1]
        config, op = self._config, job.row_op
        recur, forget, outgate, scores = (op == o for o in (RowOp.RECUR, RowOp.FORGET, RowOp.OUTGATE, RowOp.LOGIT))
        m.d.comb += [
            self.state.address.eq(counted("state_read", config.state_depth, early)),
            self.state.enable.eq(early & (recur | outgate)),
            self.bounds.address.eq(counted("param", config.param_depth, early)),
            self.bounds.enable.eq(early & forget),
            self.operand.address.eq(counted("source", config.vector_depth, late)),
            self.operand.enable.eq(late & (recur | (op == RowOp.MUL) | (op == RowOp.RESIDUAL))),
            self.state_write.address.eq(counted("state_write", config.state_depth, commit)),
            self.state_write.enable.eq(commit & recur),
            self.state_write.data.eq(results),
            self.result.address.eq(counted("target", config.vector_depth, commit)),
            self.result.enable.eq(commit & ~recur & ~scores),
            self.result.data.eq(results),
        ]

    def _logits(self, m: Module, push: Signal, results: data.View, last: Signal) -> Signal:
        """Output register and a spare one, so that ``enable`` is a register's; returns whether the spare is full."""
        row = Signal(logit(self._config))
        spare = Signal(logit(self._config))
        held = Signal()
        m.d.comb += [row["values"].eq(results), row.last.eq(last)]
        with m.If(self.logits.ready | ~self.logits.valid):
            m.d.sync += [
                self.logits.valid.eq(held | push),
                self.logits.payload.eq(Mux(held, spare, row)),
                held.eq(0),
            ]
        with m.Elif(push):
            m.d.sync += [spare.eq(row), held.eq(1)]
        return held
