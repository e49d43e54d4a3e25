"""The builds worth having for a model, a memory and what a board has room for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from sterna.compiler.layout import ColumnBlocks
from sterna.compiler.program import Placement
from sterna.errors import SternaError
from sterna.explore.area import multipliers, ram_bits
from sterna.explore.cycles import MemoryRate, token_cycles
from sterna.model.geometry import Geometry
from sterna.spec.config import HardwareConfig
from sterna.spec.packing import TRITS_PER_BYTE

WORDS_A_BEAT = (1, 2, 4)  # beats that make a word: how much faster than memory the lanes are
PREFETCH_BYTES = (4096, 8192, 16384, 32768, 65536)
ROWS_PER_WORD = (2, 4, 8, 16)
TILE_ROWS = (1024, 2048, 4096)
WIDEST_VECTOR = 16
ALIKE = 1.001  # rates within a thousandth count as one


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a board has; None for as much as you like."""

    lanes: int | None = None
    ram_kbit: float | None = None
    multipliers: int | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A build and what it would do."""

    config: HardwareConfig
    cycles: int
    tokens_per_second: float
    efficiency: float  # of the memory roofline
    lanes: int
    ram_kbit: float
    multipliers: int

    @property
    def costs(self) -> tuple[float, ...]:
        """What should be small: time, in steps of :data:`ALIKE`, and area."""
        return round(math.log(self.cycles, ALIKE)), self.lanes, self.ram_kbit, self.multipliers


def candidates(geometry: Geometry, *, beat_bytes: int) -> Iterator[HardwareConfig]:
    """Builds with memories just large enough for the model, from small to large."""
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
        ram, products = ram_bits(config) / 1024, multipliers(config)
        used = ((config.lanes, limits.lanes), (ram, limits.ram_kbit), (products, limits.multipliers))
        if any(limit is not None and need > limit for need, limit in used):
            yield None
            continue
        cycles = token_cycles(geometry, config, memory)
        yield Candidate(
            config=config,
            cycles=cycles,
            tokens_per_second=clock_mhz * 1e6 / cycles,
            efficiency=weight_bytes / (cycles * memory.bytes_per_cycle),
            lanes=config.lanes,
            ram_kbit=ram,
            multipliers=products,
        )


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
        **parameters,
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
