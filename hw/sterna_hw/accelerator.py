"""The accelerator: embedding to sampled token id behind one memory port and one register port."""

from __future__ import annotations

from dataclasses import replace

from amaranth import Cat, Module, ResetInserter, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.registers import (
    REGISTER_SPACE_BITS,
    SOURCE_BITS,
    SOURCE_OFFSET,
    Control,
    ErrorCause,
    SlotMode,
    Stall,
    Status,
    sampled_register,
    slot_register,
    token_register,
)
from sterna_hw.axi import AXI4Lite, AXI4Read, AXI4Write
from sterna_hw.counters import TokenCounters
from sterna_hw.embedding_rows import EmbeddingRows
from sterna_hw.generator import WeightGenerator
from sterna_hw.interfaces import exchange_signature, row_values
from sterna_hw.lanes import TernaryLanes
from sterna_hw.logits_serialiser import LogitsSerialiser
from sterna_hw.logits_writer import LogitsWriter
from sterna_hw.memories import ParameterMemory
from sterna_hw.registers import Registers
from sterna_hw.sampler import INDEX_WIDTH, Sampler
from sterna_hw.sequencer import Sequencer
from sterna_hw.slots import Slots
from sterna_hw.weight_stream import WeightStream


def accelerator_signature(config: HardwareConfig) -> wiring.Signature:
    """The ports of :class:`Accelerator`."""
    read = AXI4Read(config.address_width, config.beat_bytes)
    write = AXI4Write(config.address_width, config.beat_bytes)
    of_cluster = {
        "exchange": Out(exchange_signature(config)),
        "largest": Out(signed(numerics.VALUE_WIDTH)),
        "counted": Out(INDEX_WIDTH),
        "any_busy": In(1),
    }
    return wiring.Signature(
        {
            "m_axi": Out(wiring.Signature({**dict(read.members), **dict(write.members)})),
            "s_axil": In(AXI4Lite(REGISTER_SPACE_BITS)),
            "busy": Out(1),
            "trace_valid": Out(config.slots),
            "trace_values": Out(row_values(config)),
            **(of_cluster if config.clusters > 1 else {}),
        }
    )


class Accelerator(wiring.Component):
    """Runs tokens of any model that fits its memories (docs/gateware.md).

    Attributes:
        m_axi: Out AXI4 manager: weights, program and embedding are read, logits written.
        s_axil: In AXI4-Lite subordinate: the register map.
        busy: Out STATUS.BUSY: a token runs, or is being abandoned.
        trace_valid, trace_values: Out Every row result as it is committed, a slot; for co-simulation, unconnected on
            boards.
        exchange: Out In a cluster: its part of the :class:`Exchange`.
        largest, counted: Out In a cluster: its best logit, and how many logits there were.
        any_busy: In In a cluster: one of the clusters was ``busy`` a cycle ago. While it is high, START is ignored, and
            the cycles of a token that has ended here go on counting (as END): CYCLES is the time of the whole token.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(accelerator_signature(config))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._config
        # The memory side is drained, not reset, when a token is abandoned.
        m.submodules.registers = registers = Registers(config=config)
        m.submodules.stream = stream = WeightStream(config=config)
        m.submodules.writer = writer = LogitsWriter(config=replace(config, slots=1))

        core_reset = Signal()
        core = {
            "sequencer": (sequencer := Sequencer(config=config)),
            "counters": (counters := TokenCounters()),
            "embedding": (embedding := EmbeddingRows(config=config)),
            "lanes": (lanes := TernaryLanes(config=config)),
            "slots": (slots := Slots(config=config)),
            "serialiser": (serialiser := LogitsSerialiser(config=config)),
            "sampler": (sampler := Sampler(config=config)),
            "parameter_memory": (parameter_memory := ParameterMemory(config=config)),
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
        wiring.connect(m, sequencer.rows_job, slots.rows_job)
        wiring.connect(m, sequencer.vector_job, slots.vector_job)
        wiring.connect(m, sequencer.load, parameter_memory.word_write)
        m.d.comb += [
            sequencer.rows_done.eq(slots.rows_done),
            sequencer.vector_done.eq(slots.vector_done),
            sequencer.stream_idle.eq(stream.idle),
            sequencer.stream_error.eq(stream.error),
            sequencer.writer_idle.eq(writer.idle),
            sequencer.writer_error.eq(writer.error),
            sequencer.bad_trit.eq(lanes.bad_trit),
            sequencer.vector_stall.eq(slots.vector_stall),
            sequencer.lanes_stall.eq(lanes.stall),
            sequencer.lanes_full.eq(lanes.full),
            sequencer.writer_stall.eq(slots.logits.valid & ~slots.logits.ready),
        ]

        # Rows: from the embedding or the lanes, to the slots.
        with m.If(sequencer.embedding):
            wiring.connect(m, embedding.rows, slots.rows)
        with m.Else():
            wiring.connect(m, lanes.rows, slots.rows)
        wiring.connect(m, lanes.activations, slots.activations)
        wiring.connect(m, slots.bounds, parameter_memory.element_read)
        wiring.connect(m, slots.params, parameter_memory.row_read)
        m.d.comb += [
            slots.modes.eq(sequencer.modes),
            slots.embedding.eq(sequencer.embedding),
            slots.embed_slots.eq(sequencer.embed_slots),
            self.trace_valid.eq(slots.trace_valid),
            self.trace_values.eq(slots.trace_values),
        ]

        # Logits: to the writer, watched by the sampler.
        wiring.connect(m, slots.logits, serialiser.rows)
        wiring.connect(m, serialiser.values, writer.values)
        m.d.comb += [
            serialiser.wanted.eq(Cat(mode.logits & ~mode.idle for mode in sequencer.modes)),
            sampler.start.eq(sequencer.scores_start),
            sampler.valid.eq(slots.logits.valid & slots.logits.ready),
            sampler.value.eq(slots.logits.payload.values),
        ]

        self._connect_bus(m, stream, writer)
        wiring.connect(m, wiring.flipped(self.s_axil), registers.bus)
        self._connect_registers(m, registers, sequencer, counters, writer, stream, sampler, core_reset)
        m.d.comb += [
            counters.busy.eq(sequencer.busy),
            counters.beat.eq(stream.beat),
            counters.saturated.eq(slots.saturated),
            counters.starved.eq(stream.starved),
            counters.phase.eq(sequencer.stall),
            counters.finished.eq(sequencer.done),
        ]
        if config.clusters > 1:
            wiring.connect(m, slots.exchange, wiring.flipped(self.exchange))
            m.d.comb += [self.largest.eq(sampler.largest), self.counted.eq(sampler.counted)]
            with m.If((registers.status & Status.DONE).any() & self.any_busy):
                m.d.comb += [counters.busy.eq(1), counters.phase.eq(Stall.END)]
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
        for slot in range(self._config.slots):
            self._connect_slot(m, slot, registers, sequencer, sampler)
        start = Signal()
        draining = Signal()
        done = Signal()
        m.d.comb += start.eq((control & Control.START).any() & sequencer.request.ready & ~draining)
        if self._config.clusters > 1:
            with m.If(self.any_busy):
                m.d.comb += start.eq(0)
        m.d.comb += [
            sequencer.request.valid.eq(start),
            sequencer.request.payload.prefix.eq((control & Control.PREFIX).any()),
            counters.start.eq(start),
            writer.start.eq(start),
            writer.enable.eq(Cat(mode.logits & ~mode.idle for mode in sequencer.request.payload.modes).any()),
            writer.address.eq(Cat(registers.logits_address, registers.logits_address_high)),
        ]
        for name in ("vocabulary", "program_beats", "embed_beats"):
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
        # A register: the reset goes to most of the chip.
        m.d.sync += core_reset.eq(draining & stream.idle & writer.idle & ~core_reset)
        m.d.comb += [stream.flush.eq(draining), writer.flush.eq(draining)]
        with m.If(core_reset):
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
            Cat(registers.cycles, registers.cycles_high).eq(counters.cycles),
            registers.read_beats.eq(counters.read_beats),
            registers.saturations.eq(counters.saturations),
            registers.tokens.eq(counters.tokens),
            counters.stall.eq(registers.stall),
            registers.stall_cycles.eq(counters.stall_cycles),
        ]

    def _connect_slot(self, m: Module, slot: int, registers: Registers, sequencer: Sequencer, sampler: Sampler) -> None:
        """The registers of a slot; CONTROL speaks for all slots."""
        mode = sequencer.request.payload.modes[slot]
        m.d.comb += [
            sequencer.request.payload.tokens[slot].eq(getattr(registers, token_register(slot).lower())),
            getattr(registers, sampled_register(slot).lower()).eq(sampler.best[slot]),
        ]
        if self._config.slots > 1:
            register = getattr(registers, slot_register(slot).lower())
            m.d.comb += [
                *(mode[bit.name.lower()].eq((register & bit).any()) for bit in SlotMode if bit.name),
                mode.source.eq(register[SOURCE_OFFSET : SOURCE_OFFSET + SOURCE_BITS]),
            ]
        for bit in (Control.FRESH, Control.LOGITS):
            with m.If((registers.control & bit).any()):
                m.d.comb += mode[str(bit.name).lower()].eq(1)
