"""Memories of which no read matters that meets a write of the same word in the same cycle.

Amaranth's memories give the old word then, block RAMs of ECP5 anything. Yosys makes up for it with a register for each
bit and a comparator for each port, unless it is told that nothing depends on it. Here it is told so, memory by memory,
with the reason; ``tests/sim/test_collisions.py`` runs whole tokens and the host link on RTL in which such a read gives
wrong bits. Memories of less than a block RAM are read without a clock, and are not concerned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

# Modules below the one that they are part of, to why nothing reads there what is being written. No job of the
# accelerator starts before the one before it has written its last word.
LANES: Mapping[str, str] = {
    "tables_*": "one half of a table is read while the other is built",
    "partial_sums_*": "a row is written three cycles after it was read, and comes again a cycle later at the earliest",
}
SLOT: Mapping[str, str] = {
    "vector_memory": "an operation reads an element before it writes it; others of its row are not looked at",
    "state_memory": "so it does with the state, and no job reads what it has written",
    "activation_memory": "QUANT writes what only the lanes read, in another job",
}
ACCELERATOR: Mapping[str, str] = {
    "stream.fifo": "an empty queue is not read and a full one not written: the same place is neither",
    "writer.fifo": "as in the other queue",
    "parameter_memory": "LOAD writes what only other jobs read",
    **{f"lanes.{name}": why for name, why in LANES.items()},
    **{f"slots.slot_*.{name}": why for name, why in SLOT.items()},
}
SYSTEM: Mapping[str, str] = {
    "endpoint": "a frame is received whole before it is read, and a byte of the answer written when it has been taken",
    **{f"accelerator.{name}": why for name, why in ACCELERATOR.items()},
}
UART: Mapping[str, str] = {"buffer": "as in the queues of the accelerator"}

# Clocked read ports that Yosys is to keep the old word for.
_KEEPING = "t:$memrd_v2 %i r:COLLISION_X_MASK=1'0 %i r:TRANSPARENCY_MASK=1'0 %i r:CLK_ENABLE=1 %i"


def board_memories(top: str, links: Iterable[str]) -> Mapping[str, Mapping[str, str]]:
    """The blocks of a board's top level with these links."""
    uart = any(link.startswith("uart:") for link in links)
    return {f"{top}.system": SYSTEM, **({f"{top}.uart": UART} if uart else {})}


def script(blocks: Mapping[str, Mapping[str, str]]) -> str:
    """Lines for Yosys after ``read_rtlil``.

    They end with an error where a named memory is missing, and where a block has a memory that is not named.

    Args:
        blocks: Modules, by their path in RTLIL, each with a table from above.
    """
    return "\n".join(_lines(blocks.items()))


def _lines(blocks: Iterable[tuple[str, Mapping[str, str]]]) -> Iterator[str]:
    for block, memories in blocks:
        for name in memories:
            ports = f"{block}.{name} {_KEEPING}"
            yield f"select -assert-any {ports}"
            yield f"setparam -set COLLISION_X_MASK 1'1 {ports}"
        yield f"select -assert-none {block} {block}.* %u {_KEEPING}"
