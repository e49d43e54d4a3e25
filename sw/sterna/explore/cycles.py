"""The cycles of a pass without simulating it: the steps of its program against a buffer that the memory fills.

A step either takes words, at most at its pace, or lets time pass in which it takes none; how long it does so is what
the components of the gateware promise. The buffer is a fluid: memory fills it at its rate, less than that when the
bursts in flight do not cover the latency, and pauses for a round trip after it was full.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from sterna.errors import SternaError
from sterna.explore.program import Step, parts
from sterna.model.geometry import Geometry
from sterna.spec.config import HardwareConfig
from sterna.spec.isa import Opcode
from sterna_hw.epilogue import LAST_AGE, epilogue_cycles
from sterna_hw.lanes import build_cycles, first_word, pipeline_depth
from sterna_hw.vector import quant_cycles, sumsq_cycles

START_CYCLES = 5  # from START to the first address on the bus
REQUEST_CYCLES = 3  # from room in the buffer to the address on the bus
_build_cycles, _first_word = cache(build_cycles), cache(first_word)
_NOTHING = 1e-9  # beats; what is less is rounding of floats
_State = tuple[float, float, bool]


@dataclass(frozen=True, kw_only=True)
class MemoryRate:
    """What the cycle model knows of a memory: long sequential reads, and the time until the first beat of one.

    The rate is that of all channels of clusters together.

    Raises:
        SternaError: a value is out of range.
    """

    bytes_per_cycle: float
    latency: int = 24  # cycles from an address to its first beat

    def __post_init__(self) -> None:
        if not self.bytes_per_cycle > 0 or self.latency < 1:
            raise SternaError(f"a memory has a rate above 0 and a latency of 1 cycle or more, not {self}")


def token_cycles(geometry: Geometry, config: HardwareConfig, memory: MemoryRate) -> int:
    """Cycles of a pass with a sequence of its own in each slot, from START to DONE, without logits written.

    Clusters count as in step; where the channels of a memory pause in turn, they wait a little more for each other.
    """
    buffer = _Buffer(config, memory)
    clock = 0.0
    known: dict[tuple[tuple[Step, ...], _State], tuple[float, _State]] = {}
    for part in parts(geometry, config):  # from a state that was there before, an equal layer takes as long as it did
        before = part, buffer.state
        if before not in known:
            cycles = 0.0
            for step in part:
                cycles += buffer.take(config.descriptor_words) + buffer.wait(1)
                cycles += _run(step, config, buffer)
            known[before] = cycles, buffer.state
        cycles, buffer.state = known[before]
        clock += cycles
    return round(clock)


def _run(step: Step, config: HardwareConfig, buffer: _Buffer) -> float:
    """Cycles of a step after its descriptor was decoded."""
    match step.opcode:
        case Opcode.LOAD:
            return buffer.take(step.count)
        case Opcode.EMBED:
            words = -(-step.count // config.params_per_word)
            return buffer.wait(1) + buffer.take(words, pace=step.count / words) + buffer.wait(1 + LAST_AGE)
        case Opcode.SUMSQ:
            return buffer.wait(sumsq_cycles(config, step.count) + 1)
        case Opcode.QUANT:
            return buffer.wait(quant_cycles(config, step.count) + 1)
        case Opcode.MATMUL:
            return _matmul(step, config, buffer)
    return buffer.wait(1)  # END


def _matmul(step: Step, config: HardwareConfig, buffer: _Buffer) -> float:
    assert step.cut is not None and step.row_op is not None
    # Words of each block, and whether the generator makes them.
    tails = [(-(-step.count // shared), False) for shared in step.cut.rows_per_word()]
    blocks = tails + [(step.count, block < step.generated) for block in range(step.cut.blocks)]
    cycles = buffer.wait(_first_word(config))
    for words, made in blocks[:-1]:
        streamed = buffer.wait(words) if made else buffer.take(words)
        cycles += streamed + buffer.wait(max(_build_cycles(config) - streamed, 0))  # the next block's build
    words, made = blocks[-1]
    cycles += buffer.wait(words) if made else buffer.take(words)
    return cycles + buffer.wait(pipeline_depth(config) + epilogue_cycles(0, step.row_op))


class _Buffer:
    """The prefetch buffer in beats, between the memory and the core."""

    def __init__(self, config: HardwareConfig, memory: MemoryRate) -> None:
        self._per_word = config.beats_per_word
        rate = memory.bytes_per_cycle / (config.beat_bytes * config.clusters)
        burst = config.burst_beats
        in_flight = config.outstanding * burst / (memory.latency + burst / rate + 1)
        round_trip = REQUEST_CYCLES + memory.latency
        self._rate = min(rate, in_flight)
        # On average half a burst more would fit, and half of one has to leave before the next is asked for.
        self._capacity = config.prefetch_words * config.beats_per_word - burst / 2
        self._restart = round_trip + burst / 2 / config.beats_per_word
        self._level = 0.0
        self._pause = START_CYCLES + memory.latency + (2.0 if config.beats_per_word == 1 else 3.0)
        self._full = False

    @property
    def state(self) -> _State:
        """All that changes."""
        return self._level, self._pause, self._full

    @state.setter
    def state(self, state: _State) -> None:
        self._level, self._pause, self._full = state

    def wait(self, cycles: float) -> float:
        """Let time pass in which the core takes nothing; gives ``cycles``."""
        filling = max(cycles - self._pause, 0)
        self._pause = max(self._pause - cycles, 0)
        self._level = min(self._level + filling * self._rate, self._capacity)
        self._full = self._full or self._level == self._capacity
        return cycles

    def take(self, words: int, *, pace: float = 1.0) -> float:
        """Take words, each at least ``pace`` cycles after the one before; gives the cycles that this took."""
        beats, wanted, cycles = float(words * self._per_word), self._per_word / pace, 0.0
        if self._full:
            self._pause, self._full = self._restart, False
        while beats > _NOTHING:
            inflow = 0.0 if self._pause > 0 else self._rate
            outflow = wanted if self._level > _NOTHING else min(wanted, inflow)
            if self._level >= self._capacity:
                inflow = min(inflow, outflow)
            ends = [beats / outflow] if outflow else []
            if self._pause > 0:
                ends.append(self._pause)
            if outflow > inflow:
                ends.append(self._level / (outflow - inflow))
            elif inflow > outflow:
                ends.append((self._capacity - self._level) / (inflow - outflow))
            passed = min(ends)
            self._pause = max(self._pause - passed, 0.0)
            self._level = min(max(self._level + (inflow - outflow) * passed, 0.0), self._capacity)
            beats -= outflow * passed
            cycles += passed
        return cycles
