"""Tokens a second over all slots, computed from simulated cycles, beside what others report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sterna_boards.boards import BOARDS
from sterna_sim.banked import BankedModel
from sterna_sim.bench.cases import IDEAL, SlotsCase, TokenCase, board_of, configuration, memory_of
from sterna_sim.bench.slots import SlotMeasurement
from sterna_sim.bench.tokens import Measurement

PLACED, ASSUMED = "placed", "assumed"


@dataclass(frozen=True)
class Peer:
    """A figure that others report, by their text."""

    model: str
    system: str
    device: str
    sequences: int | None  # None where they do not say
    tokens_per_second: float
    source: str
    note: str = ""


# The same model class. arXiv numbers are where the figures stand; they are the authors', nothing was run here.
PEERS = (
    Peer("370m", "Ternip", "U250, 300 MHz", 48, 3712, "sifferman/ternip"),
    Peer("370m", "Ternip", "U250, 300 MHz", 1, 86, "sifferman/ternip"),
    Peer("370m", "matmulfree_KRIA", "KV260, 250 MHz", 1, 30.6, "aebarthyi/matmulfree_KRIA", "BitLinears only"),
    Peer("370m", "TerEffic", "several U280", None, 16300, "arXiv:2502.16473", "weights on chip"),
    Peer("1.3b", "MatMul-free LM", "Stratix 10", None, 23.8, "arXiv:2406.02528", "projected"),
    Peer("1.3b", "Ternip", "U250, 300 MHz", 41, 970, "sifferman/ternip"),
    Peer("2.7b", "Ternip", "U250, 300 MHz", 29, 411, "sifferman/ternip"),
    Peer("2.7b", "TerEffic", "U280", None, 727, "arXiv:2502.16473", "HBM"),
)


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Clock times slots by cycles; nothing of it was measured on hardware."""

    model: str
    config: str
    memory: str
    clock: int  # hertz
    clock_is: str  # PLACED, of a bitstream that meets it, or ASSUMED, of the memory's port
    slots: int
    cycles: int  # of a pass, simulated
    gigabytes: float  # a second, of a long sequential read

    @property
    def tokens_per_second(self) -> float:
        """Over all slots."""
        return self.clock * self.slots / self.cycles


def throughputs(tokens: Sequence[Measurement], slots: Sequence[SlotMeasurement]) -> list[Throughput]:
    """Of all measurements on the memory of a board; on ideal ones there is no clock to compute with."""
    passes: list[tuple[TokenCase | SlotsCase, int, int]] = [(m.case, 1, m.cycles) for m in tokens]
    passes += [(m.case, m.slots, m.all) for m in slots]
    found = []
    for case, count, cycles in passes:
        clock, kind = _clock(case)
        if not clock:
            continue
        memory, config = memory_of(case), configuration(case.config)
        found.append(
            Throughput(
                model=case.model,
                config=case.config,
                memory=case.memory,
                clock=clock,
                clock_is=kind,
                slots=count,
                cycles=cycles,
                gigabytes=clock * memory.peak_bytes(config.beat_bytes, config.clusters) / 1e9,
            )
        )
    return found


def _clock(case: TokenCase | SlotsCase) -> tuple[int, str]:
    """Hertz, 0 where there is none, and what it is."""
    memory, board = memory_of(case), board_of(case)
    if case.memory == IDEAL:
        return 0, ASSUMED
    if isinstance(memory, BankedModel):
        return memory.clock, ASSUMED
    # A changed build has not been placed.
    return BOARDS[board].clock if board in BOARDS else 0, PLACED if case.config == board else ASSUMED
