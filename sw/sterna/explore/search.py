"""The builds worth having for a model, a memory and what a board has room for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sterna.compiler.layout import ColumnBlocks
from sterna.compiler.program import Placement
from sterna.errors import SternaError
from sterna.explore.area import PLACING, block_rams, lut_sites, multipliers, state_memory
from sterna.explore.cycles import MemoryRate, token_cycles
from sterna.model.geometry import Geometry
from sterna.spec.config import HardwareConfig
from sterna.spec.packing import TRITS_PER_BYTE

WORDS_A_BEAT = (1, 2, 4)  # beats that make a word: how much faster than memory the lanes are
PREFETCH_BYTES = (4096, 8192, 16384, 32768, 65536)
ROWS_PER_WORD = (2, 4, 8, 16)
TILE_ROWS = (1024, 2048, 4096)
WIDEST_VECTOR = 16
SLOTS = (1, 2, 3, 4, 6, 8, 12, 16)
ALIKE = 1.001  # rates within a thousandth count as one


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a board has for the accelerator; None for as much as you like."""

    lanes: int | None = None
    slots: int | None = None
    luts: int | None = None
    block_rams: int | None = None  # of 18 kbit
    ultra_rams: int | None = None  # where there are some, they hold the recurrent state
    multipliers: int | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A build and what it would do; its area without that of memory controller and links."""

    config: HardwareConfig
    cycles: int  # of a pass with a sequence in each slot
    tokens_per_second: float  # of all slots
    efficiency: float  # of the memory roofline: the weights of a pass
    lanes: int
    slots: int
    luts: int  # sites of ECP5, placed: an estimate
    block_rams: int
    ultra_rams: int
    multipliers: int

    @property
    def costs(self) -> tuple[float, ...]:
        """What should be small: time of a token, in steps of :data:`ALIKE`, and area."""
        time = round(math.log(self.cycles / self.slots, ALIKE))
        return time, self.luts, self.block_rams, self.ultra_rams, self.multipliers


def candidates(geometry: Geometry, *, beat_bytes: int, most_slots: int = SLOTS[-1]) -> Iterator[HardwareConfig]:
    """Builds with memories just large enough for the model, from small to large."""
    for config in _single(geometry, beat_bytes):
        for slots in SLOTS:
            if slots <= most_slots:
                yield replace(config, slots=slots)


def _single(geometry: Geometry, beat_bytes: int) -> Iterator[HardwareConfig]:
    """Those with one slot."""
    for word_bytes in sorted({max(beats * beat_bytes, 8) for beats in WORDS_A_BEAT}):
        for width in (1 << bits for bits in range(min(WIDEST_VECTOR, word_bytes // 2).bit_length())):
            for shared in (rows for rows in ROWS_PER_WORD if rows <= word_bytes):
                for tile_rows in TILE_ROWS:
                    for size in PREFETCH_BYTES:
                        yield _build(
                            geometry,
                            beat_bytes=beat_bytes,
                            word_bytes=word_bytes,
                            vector_width=width,
                            max_rows_per_word=shared,
                            tile_rows=tile_rows,
                            prefetch_words=size // word_bytes,
                        )


def evaluate(
    configs: Iterable[HardwareConfig], geometry: Geometry, memory: MemoryRate, *, clock_mhz: float, limits: Limits
) -> Iterator[Candidate | None]:
    """Each build that the limits allow with its speed, None for each that they do not."""
    weight_bytes = math.ceil(geometry.ternary_weights / TRITS_PER_BYTE)
    for config in configs:
        area = _area(config, limits)
        limit = {"lanes": limits.lanes, "slots": limits.slots} | {name: getattr(limits, name) for name in area}
        used = {"lanes": config.lanes, "slots": config.slots} | area
        if any(most is not None and used[name] > most for name, most in limit.items()):
            yield None
            continue
        cycles = token_cycles(geometry, config, memory)
        yield Candidate(
            config=config,
            cycles=cycles,
            tokens_per_second=config.slots * clock_mhz * 1e6 / cycles,
            efficiency=weight_bytes / (cycles * memory.bytes_per_cycle),
            lanes=config.lanes,
            slots=config.slots,
            **area,
        )


def _area(config: HardwareConfig, limits: Limits) -> dict[str, int]:
    """Fields of a candidate."""
    ultra = bool(limits.ultra_rams)
    return {
        "luts": round(PLACING * lut_sites(config)),
        "block_rams": block_rams(config, state_in_ultra_rams=ultra),
        "ultra_rams": state_memory(config).ultra_rams if ultra else 0,
        "multipliers": multipliers(config),
    }


def pareto(found: Iterable[Candidate]) -> list[Candidate]:
    """Those that none other equals or beats in everything, the fastest first.

    Raises:
        SternaError: there are none.
    """
    best: list[Candidate] = []
    for candidate in sorted(found, key=lambda c: c.costs):
        # A build that beats this one in everything comes before it in this order.
        if not any(all(a <= b for a, b in zip(other.costs, candidate.costs, strict=True)) for other in best):
            best.append(candidate)
    if not best:
        raise SternaError(
            "no build fits these limits: the model's state and vectors alone may need more memory on chip"
        )
    return best


def _build(geometry: Geometry, **parameters: int) -> HardwareConfig:
    """The configuration with the depths that the model needs."""
    roomy = HardwareConfig(
        name="explored",
        generator=False,  # no figure here counts its logic
        activation_depth=1 << 17,
        vector_depth=1 << 16,
        param_depth=1 << 16,
        state_depth=1 << 24,
        burst_beats=min(64, PREFETCH_BYTES[0] // 2 // parameters["beat_bytes"]),
        **parameters,  # type: ignore[arg-type]  # the mapping is held against all fields, those of other types too
    )
    place, word = Placement.of(geometry, roomy), roomy.word_bytes
    columns = max(ColumnBlocks.of(n, roomy).columns(roomy) for n in (geometry.hidden, geometry.inner))
    return replace(
        roomy,
        activation_depth=-(-columns // word) * word,
        vector_depth=-(-place.vector_depth // roomy.vector_width) * roomy.vector_width,
        param_depth=-(-place.param_depth // roomy.params_per_word) * roomy.params_per_word,
        state_depth=geometry.layers * geometry.hidden,
    )
