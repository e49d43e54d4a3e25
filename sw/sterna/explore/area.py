"""What of a build follows from its configuration alone: bits of memory and multipliers. LUTs need a synthesis."""

from __future__ import annotations

from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.packing import CODES
from sterna.spec.registers import STALL_BITS

# Numbers of the gateware that no parameter changes; tests/sim/test_explore.py counts them in the netlist.
TABLE_BITS = 512 * 12  # a byte of a word: two halves of 243 sums, and marks for bytes that are no code
WALK_BITS = (CODES - 1 + 5) * 13  # the order in which tables are filled
SIGMA_BITS = numerics.SIGMA_SEGMENTS * (numerics.SIGMA_BASE_WIDTH + numerics.SIGMA_SLOPE_WIDTH)
COUNTER_BITS = 32 << STALL_BITS
CHAIN_CYCLES = 7  # by which a slot of a chain is behind the one before it
WRITER_BEATS = 31  # with their strobes, on the way to memory
VECTOR_MULTIPLIERS = 6  # an element: two of the product, three of its square, one of the activation
ROW_MULTIPLIERS = 17  # limbs of the products of a row
ADDRESS_MULTIPLIERS = 1  # of the embedding row, one for all slots


def ram_bits(config: HardwareConfig) -> int:
    """Bits of all memories of a build with bursts of 16 beats and more."""
    banks = config.max_rows_per_word
    shared = (
        8 * config.word_bytes * config.prefetch_words
        + numerics.PARAM_WIDTH * config.param_depth
        + (8 * config.beat_bytes + config.beat_bytes // numerics.LOGIT_BYTES + 1) * WRITER_BEATS
        + WALK_BITS
        + COUNTER_BITS
    )
    a_slot = (
        numerics.VALUE_WIDTH * (config.vector_depth + config.state_depth)
        + numerics.ACC_WIDTH * -(-config.tile_rows // banks) * banks
        + numerics.Q_WIDTH * config.activation_depth
        + TABLE_BITS * config.word_bytes
        + SIGMA_BITS
    )
    # Rows of a chain wait in two rings, each with a register behind it.
    chains = sum(2 * numerics.VALUE_WIDTH * (CHAIN_CYCLES * slot - 1) for slot in range(1, config.slots))
    return int(shared + config.slots * a_slot + chains)


def multipliers(config: HardwareConfig) -> int:
    """Multiplications in the netlist: one of 24 by 16 bits, which addresses a row, all others of 18 by 18 at most."""
    a_slot = VECTOR_MULTIPLIERS * config.vector_width + ROW_MULTIPLIERS
    return config.slots * a_slot + ADDRESS_MULTIPLIERS
