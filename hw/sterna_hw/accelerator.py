"""The accelerator: embedding to sampled token id behind one memory port and one register port."""

from __future__ import annotations

from amaranth import Cat, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.spec.config import HardwareConfig
from sterna.spec.registers import REGISTER_SPACE_BITS, Control, ErrorCause, Status
from sterna_hw.axi import AXI4Lite, AXI4Read, AXI4Write
from sterna_hw.counters import TokenCounters
from sterna_hw.embedding_rows import EmbeddingRows
from sterna_hw.epilogue import Epilogue
from sterna_hw.generator import WeightGenerator
from sterna_hw.interfaces import row_values
from sterna_hw.lanes import TernaryLanes
from sterna_hw.logits_writer import LogitsWriter
from sterna_hw.memories import ActivationMemory, ParameterMemory, StateMemory, VectorMemory
from sterna_hw.registers import Registers
from sterna_hw.sampler import Sampler
from sterna_hw.sequencer import Sequencer
from sterna_hw.vector import VectorUnit
from sterna_hw.weight_stream import WeightStream


class Accelerator(wiring.Component):
    """Runs tokens of any model that fits its memories (docs/gateware.md).

    Attributes:
        m_axi: Out AXI4 manager: weights, program and embedding are read, logits written.
        s_axil: In AXI4-Lite subordinate: the register map.
        busy: Out STATUS.BUSY: a token runs, or is being abandoned.
        trace_valid, trace_values: Out Every row result as it is committed; for co-simulation, unconnected on boards.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        read = AXI4Read(config.address_width, config.beat_bytes)
        write = AXI4Write(config.address_width, config.beat_bytes)
        super().__init__(
            {
                "m_axi": Out(wiring.Signature({**dict(read.members), **dict(write.members)})),
                "s_axil": In(AXI4Lite(REGISTER_SPACE_BITS)),
                "busy": Out(1),
                "trace_valid": Out(1),
                "trace_values": Out(row_values(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        # The memory side is drained, not reset, when a token is abandoned.
        m.submodules.registers = registers = Registers(config=config)
        m.submodules.stream = stream = WeightStream(config=config)
        m.submodules.writer = writer = LogitsWriter(config=config)

        core_reset = Signal()
        core = {
            "sequencer": (sequencer := Sequencer(config=config)),
            "counters": (counters := TokenCounters()),
            "embedding": (embedding := EmbeddingRows(config=config)),
            "lanes": (lanes := TernaryLanes(config=config)),
            "epilogue": (epilogue := Epilogue(config=config)),
            "vector": (vector := VectorUnit(config=config)),
            "sampler": (sampler := Sampler(config=config)),
            "vector_memory": (vector_memory := VectorMemory(config=config)),
            "state_memory": (state_memory := StateMemory(config=config)),
            "parameter_memory": (parameter_memory := ParameterMemory(config=config)),
            "activation_memory": (activation_memory := ActivationMemory(config=config)),
        }
        for name, component in core.items():
            m.submodules[name] = ResetInserter(core_reset)(component)

        # Memory stream to its consumers.
        wiring.connect(m, stream.words, sequencer.words)
        wiring.connect(m, sequencer.segment, stream.segment)
        wiring.connect(m, sequencer.embed_words, embedding.words)
        wiring.connect(m, sequencer.embed_job, embedding.job)
        wiring.connect(m, sequencer.lanes_words, lanes.words)
        wiring.connect(m, sequencer.lanes_job, lanes.job)
        if config.generator:
            m.submodules.generator = generator = ResetInserter(core_reset)(WeightGenerator(config=config))
            wiring.connect(m, sequencer.generator_job, generator.job)
            wiring.connect(m, generator.words, sequencer.generated_words)
            m.d.comb += sequencer.generating.eq(generator.busy)
        wiring.connect(m, sequencer.rows_job, epilogue.job)
        wiring.connect(m, sequencer.vector_job, vector.job)
        wiring.connect(m, sequencer.load, parameter_memory.word_write)
        m.d.comb += [
            sequencer.rows_done.eq(epilogue.done),
            sequencer.vector_done.eq(vector.done),
            sequencer.stream_idle.eq(stream.idle),
            sequencer.stream_error.eq(stream.error),
            sequencer.writer_idle.eq(writer.idle),
            sequencer.writer_error.eq(writer.error),
            sequencer.bad_trit.eq(lanes.bad_trit),
            sequencer.vector_stall.eq(vector.stall),
            sequencer.lanes_stall.eq(lanes.stall),
            sequencer.lanes_full.eq(lanes.full),
            sequencer.writer_stall.eq(writer.values.valid & ~writer.values.ready),
        ]

        # Rows: from the embedding or the lanes, through the epilogue, to the memories.
        with m.If(sequencer.embedding):
            wiring.connect(m, embedding.rows, epilogue.rows)
        with m.Else():
            wiring.connect(m, lanes.rows, epilogue.rows)
        wiring.connect(m, lanes.activations, activation_memory.read)
        wiring.connect(m, epilogue.operand, vector_memory.element_read)
        wiring.connect(m, epilogue.result, vector_memory.element_write)
        wiring.connect(m, epilogue.bounds, parameter_memory.element_read)
        wiring.connect(m, epilogue.state, state_memory.read)
        wiring.connect(m, epilogue.state_write, state_memory.write)
        wiring.connect(m, vector.vector, vector_memory.row_read)
        wiring.connect(m, vector.params, parameter_memory.row_read)
        wiring.connect(m, vector.activations, activation_memory.write)
        m.d.comb += [epilogue.scale.eq(vector.scale), vector.s2.eq(epilogue.s2)]
        m.d.comb += [self.trace_valid.eq(epilogue.trace_valid), self.trace_values.eq(epilogue.trace_values)]

        # Logits: to the writer, watched by the sampler.
        wiring.connect(m, epilogue.logits, writer.values)
        m.d.comb += [
            sampler.start.eq(sequencer.scores_start),
            sampler.valid.eq(writer.values.valid & writer.values.ready),
            sampler.value.eq(writer.values.payload.values),
        ]

        self._connect_bus(m, stream, writer)
        wiring.connect(m, wiring.flipped(self.s_axil), registers.bus)
        self._connect_registers(m, registers, sequencer, counters, writer, stream, sampler, core_reset)
        m.d.comb += [
            counters.busy.eq(sequencer.busy),
            counters.beat.eq(stream.beat),
            counters.saturated.eq(epilogue.saturated),
            counters.starved.eq(stream.starved),
            counters.phase.eq(sequencer.stall),
            counters.finished.eq(sequencer.done),
        ]
        return m

    def _connect_bus(self, m: Module, stream: WeightStream, writer: LogitsWriter) -> None:
        """Read channels belong to the stream, write channels to the logits writer."""
        for bus in (stream.bus, writer.bus):
            for name, member in bus.signature.members.items():
                inner, outer = getattr(bus, name), getattr(self.m_axi, name)
                m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)

    def _connect_registers(
        self,
        m: Module,
        registers: Registers,
        sequencer: Sequencer,
        counters: TokenCounters,
        writer: LogitsWriter,
        stream: WeightStream,
        sampler: Sampler,
        core_reset: Signal,
    ) -> None:
        """Commands in, reports out; RESET drains both memory ports, then resets the core."""
        control = registers.control
        start = Signal()
        draining = Signal()
        done = Signal()
        m.d.comb += start.eq((control & Control.START).any() & sequencer.request.ready & ~draining)
        m.d.comb += [
            sequencer.request.valid.eq(start),
            sequencer.request.payload.fresh.eq((control & Control.FRESH).any()),
            counters.start.eq(start),
            writer.start.eq(start),
            writer.enable.eq((control & Control.LOGITS).any()),
            writer.address.eq(Cat(registers.logits_address, registers.logits_address_high)),
        ]
        for name in ("token", "vocabulary", "program_beats", "embed_beats"):
            m.d.comb += sequencer.request.payload[name].eq(getattr(registers, name))
        for name in ("program_address", "embed_address"):
            address = Cat(getattr(registers, name), getattr(registers, f"{name}_high"))
            m.d.comb += sequencer.request.payload[name].eq(address)

        with m.If(start | draining):
            m.d.sync += done.eq(0)
        with m.Elif(sequencer.done):
            m.d.sync += done.eq(1)
        with m.If((control & Control.RESET).any()):
            m.d.sync += draining.eq(1)
        m.d.comb += [stream.flush.eq(draining), writer.flush.eq(draining)]
        with m.If(draining & stream.idle & writer.idle):
            m.d.comb += core_reset.eq(1)
            m.d.sync += draining.eq(0)

        m.d.comb += self.busy.eq(sequencer.busy | draining)
        status = {
            Status.BUSY: self.busy,
            Status.DONE: done,
            Status.ERROR: sequencer.error != ErrorCause.NONE,
        }
        m.d.comb += [
            *(registers.status[flag.bit_length() - 1].eq(bit) for flag, bit in status.items()),
            registers.error_cause.eq(sequencer.error),
            registers.sampled.eq(sampler.best[0]),
            Cat(registers.cycles, registers.cycles_high).eq(counters.cycles),
            registers.read_beats.eq(counters.read_beats),
            registers.saturations.eq(counters.saturations),
            registers.tokens.eq(counters.tokens),
            counters.stall.eq(registers.stall),
            registers.stall_cycles.eq(counters.stall_cycles),
        ]
