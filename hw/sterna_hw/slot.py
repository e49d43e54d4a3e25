"""What one sequence needs of its own: epilogue, vector unit, and vector, state and activation memory."""

from __future__ import annotations

from dataclasses import replace

from amaranth import Module, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.registers import Stall
from sterna_hw.epilogue import Epilogue
from sterna_hw.interfaces import (
    MemoryRead,
    exchange_signature,
    logit,
    row_job,
    row_sum,
    row_values,
    vector_job,
    word_shape,
)
from sterna_hw.memories import ActivationMemory, StateMemory, VectorMemory
from sterna_hw.vector import VectorUnit


class SlotCore(wiring.Component):
    """One slot. Latencies and contracts are those of :class:`Epilogue` and :class:`VectorUnit`.

    Parameters come from outside, as they are the same for all slots; so does the state that the slot goes on from, as
    it may be another slot's. The new one always goes to the slot's own memory.

    Args:
        config: The build; its number of slots does not matter here.

    Attributes:
        active: In The slot takes part in the token: its state is written and its results are reported.
        rows_job, rows, rows_done: Of the epilogue.
        vector_job, vector_done, vector_stall: Of the vector unit.
        bounds, params: Out Reads of parameter memory.
        state: Out Reads of the state to go on from.
        bank: In Reads of the slot's own state.
        activations: In Reads of the slot's activations.
        chained, carry: In See :class:`Epilogue`.
        logits: Out(stream) Of the epilogue.
        exchange: Out Of the vector unit, in a build with clusters.
        result: Out The row result of this cycle, ``RESULT_AGE`` cycles after its row.
        committed: Out ``result`` is one.
        saturated: Out It, or its row before the operation, was clamped.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = one = replace(config, slots=1)
        width, values = one.vector_width, row_values(one)
        params = data.ArrayLayout(unsigned(numerics.PARAM_WIDTH), width)
        super().__init__(
            {
                "active": In(1),
                "rows_job": In(stream.Signature(row_job())),
                "rows": In(stream.Signature(row_sum(one))),
                "rows_done": Out(1),
                "vector_job": In(stream.Signature(vector_job())),
                "vector_done": Out(1),
                "vector_stall": Out(Stall),
                "bounds": Out(MemoryRead(one.param_depth, numerics.PARAM_WIDTH)),
                "params": Out(MemoryRead(one.param_depth // width, params)),
                "state": Out(MemoryRead(one.state_depth, values)),
                "bank": In(MemoryRead(one.state_depth, values)),
                "activations": In(MemoryRead(one.activation_depth // one.word_bytes, word_shape(one))),
                "chained": In(1),
                "carry": In(values),
                "logits": Out(stream.Signature(logit(one))),
                "result": Out(values),
                "committed": Out(1),
                "saturated": Out(1),
                **({"exchange": Out(exchange_signature(one))} if one.clusters > 1 else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.epilogue = epilogue = Epilogue(config=config)
        m.submodules.vector = vector = VectorUnit(config=config)
        m.submodules.vector_memory = vector_memory = VectorMemory(config=config)
        m.submodules.state_memory = state_memory = StateMemory(config=config)
        m.submodules.activation_memory = activation_memory = ActivationMemory(config=config)

        wiring.connect(m, wiring.flipped(self.rows_job), epilogue.job)
        wiring.connect(m, wiring.flipped(self.rows), epilogue.rows)
        wiring.connect(m, epilogue.bounds, wiring.flipped(self.bounds))
        wiring.connect(m, epilogue.state, wiring.flipped(self.state))
        wiring.connect(m, epilogue.logits, wiring.flipped(self.logits))
        wiring.connect(m, epilogue.operand, vector_memory.element_read)
        wiring.connect(m, epilogue.result, vector_memory.element_write)
        wiring.connect(m, wiring.flipped(self.bank), state_memory.read)
        wiring.connect(m, wiring.flipped(self.vector_job), vector.job)
        wiring.connect(m, vector.vector, vector_memory.row_read)
        wiring.connect(m, vector.params, wiring.flipped(self.params))
        if config.clusters > 1:
            gathered, write = self.exchange.gathered, activation_memory.write
            wiring.connect(m, vector.exchange, wiring.flipped(self.exchange))
            m.d.comb += [getattr(write, name).eq(getattr(gathered, name)) for name in gathered.signature.members]
        else:
            wiring.connect(m, vector.activations, activation_memory.write)
        wiring.connect(m, wiring.flipped(self.activations), activation_memory.read)
        m.d.comb += [
            epilogue.scale.eq(vector.scale),
            vector.s2.eq(epilogue.s2),
            epilogue.chained.eq(self.chained),
            epilogue.carry.eq(self.carry),
            state_memory.write.address.eq(epilogue.state_write.address),
            state_memory.write.data.eq(epilogue.state_write.data),
            state_memory.write.enable.eq(epilogue.state_write.enable & self.active),
            self.rows_done.eq(epilogue.done),
            self.vector_done.eq(vector.done),
            self.vector_stall.eq(vector.stall),
            self.result.eq(epilogue.trace_values),
            self.committed.eq(epilogue.trace_valid & self.active),
            self.saturated.eq(epilogue.saturated & self.active),
        ]
        return m
