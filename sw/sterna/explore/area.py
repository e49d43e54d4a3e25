"""What a build takes of a device: memories and multipliers exactly, LUTs by weights fitted to synthesis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from sterna.errors import SternaError
from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.packing import CODES
from sterna.spec.registers import STALL_BITS

# Numbers of the gateware that no parameter changes; tests/sim/test_explore.py counts them in the netlist.
TABLE_DEPTH, TABLE_WIDTH = 512, 12  # a byte of a word: two halves of 243 sums, and marks for bytes that are no code
WALK_DEPTH, WALK_WIDTH = CODES - 1 + 5, 13  # the order in which tables are filled
CHAIN_CYCLES = 7  # by which a slot of a chain is behind the one before it
WRITER_BEATS = 31  # with their strobes, on the way to memory
VECTOR_MULTIPLIERS = 6  # an element: two of the product, three of its square, one of the activation
ROW_MULTIPLIERS = 17  # limbs of the products of a row
ADDRESS_MULTIPLIERS = 1  # of the embedding row, one for all slots

# Shapes of a block RAM of 18 kbit, width and depth; memories of so few words that LUTs hold them; an ultra RAM.
BLOCK_SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
LUT_DEPTH = 48
ULTRA_SHAPE = (72, 4096)

# Weights by ``python -m sterna_boards.area --fit``: LUT sites of ECP5 as Yosys maps the whole accelerator. Placing adds
# to them (the three boards' bitstreams: 8.0 to 8.4 %).
LUT_TERMS = {
    "base": 1620,
    "byte of a word": 62,
    "byte of a beat": 39,
    "slot": 4158,
    "slot and byte of a word": 38,
    "slot and element of the vector": 655,
    "slot and row of a word": 78,
}
PLACING = 1.085


@dataclass(frozen=True)
class Memory:
    """``count`` memories of ``depth`` words of ``width`` bits."""

    width: int
    depth: int
    count: int = 1

    @property
    def bits(self) -> int:
        """Of all."""
        return self.width * self.depth * self.count

    @property
    def block_rams(self) -> int:
        """Block RAMs of 18 kbit; none where LUTs hold it."""
        return 0 if self.depth <= LUT_DEPTH else self.count * _blocks(self.width, self.depth)

    @property
    def ultra_rams(self) -> int:
        """Ultra RAMs instead, with as many words side by side as they have room for."""
        width, depth = ULTRA_SHAPE
        beside = max(width // self.width, 1)
        return self.count * -(-self.width // width) * -(-self.depth // (depth * beside))


@cache
def _blocks(width: int, depth: int) -> int:
    """Fewest block RAMs; words that are left over when the depth of one shape is used up go into another."""
    if depth <= 0:
        return 0
    found = []
    for wide, deep in BLOCK_SHAPES:
        columns = -(-width // wide)
        found.append(columns * -(-depth // deep))
        if depth > deep:
            found.append(columns * (depth // deep) + _blocks(width, depth % deep))
    return min(found)


def state_memory(config: HardwareConfig) -> Memory:
    """The recurrent state, a memory a slot."""
    return Memory(numerics.VALUE_WIDTH, config.state_depth, config.slots)


def memories(config: HardwareConfig) -> Iterator[Memory]:
    """All memories of a build with bursts of 16 beats and more.

    Raises:
        SternaError: the build has clusters or lanes that select and add, of which there is no model.
    """
    if config.clusters != 1 or not config.sum_tables:
        raise SternaError(f"configuration {config.name}: area is known of builds with tables of sums, without clusters")
    slots, value, word, width = config.slots, numerics.VALUE_WIDTH, config.word_bytes, config.vector_width
    banks = config.max_rows_per_word
    yield Memory(8 * word, config.prefetch_words)
    yield Memory(8 * word, config.param_depth // config.params_per_word)
    yield Memory(8 * config.beat_bytes + config.beat_bytes // numerics.LOGIT_BYTES + 1, WRITER_BEATS)
    yield Memory(WALK_WIDTH, WALK_DEPTH)
    yield Memory(32, 1 << STALL_BITS)
    yield state_memory(config)
    yield Memory(value, config.vector_depth // width, slots * width)
    yield Memory(numerics.ACC_WIDTH, -(-config.tile_rows // banks), slots * banks)
    yield Memory(numerics.Q_WIDTH * width, config.activation_depth // word, slots * word // width)
    yield Memory(TABLE_WIDTH, TABLE_DEPTH, slots * word)
    yield Memory(numerics.SIGMA_BASE_WIDTH + numerics.SIGMA_SLOPE_WIDTH, numerics.SIGMA_SEGMENTS, slots)
    for slot in range(1, slots):  # rows of a chain wait in two rings, each with a register behind it
        yield Memory(value, CHAIN_CYCLES * slot - 1, 2)


def block_rams(config: HardwareConfig, *, state_in_ultra_rams: bool = False) -> int:
    """Block RAMs of 18 kbit, of ECP5 or UltraScale+."""
    state = state_memory(config)
    return sum(m.block_rams for m in memories(config)) - (state.block_rams if state_in_ultra_rams else 0)


def multipliers(config: HardwareConfig) -> int:
    """Multiplications in the netlist: one of 24 by 16 bits, which addresses a row, all others of 18 by 18 at most.

    With slots, synthesis merges one of each: it takes the same numbers in all.
    """
    a_slot = VECTOR_MULTIPLIERS * config.vector_width + ROW_MULTIPLIERS
    return config.slots * a_slot + ADDRESS_MULTIPLIERS


def lut_terms(config: HardwareConfig) -> dict[str, int]:
    """What LUTs grow with, in the order of :data:`LUT_TERMS`."""
    slots, word = config.slots, config.word_bytes
    numbers = (1, word, config.beat_bytes, slots, slots * word, slots * config.vector_width)
    return dict(zip(LUT_TERMS, (*numbers, slots * config.max_rows_per_word), strict=True))


def lut_sites(config: HardwareConfig) -> int:
    """LUT sites of the netlist for ECP5, estimated; docs/performance.md says how well."""
    terms = lut_terms(config)
    return round(sum(weight * terms[name] for name, weight in LUT_TERMS.items()))
