"""The descriptors of a token from the sizes of a model alone; the compiler makes the same ones from a model.

With clusters they are those of one of them, which all have alike, for its share of rows and elements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sterna.compiler.layout import ColumnBlocks
from sterna.compiler.program import generated_blocks
from sterna.model.geometry import Geometry
from sterna.spec.config import HardwareConfig
from sterna.spec.isa import Opcode, RowOp


@dataclass(frozen=True)
class Step:
    """A descriptor as far as it takes time: ``count`` in the unit of its opcode, the rest of a MATMUL."""

    opcode: Opcode
    count: int = 1
    cut: ColumnBlocks | None = None
    row_op: RowOp | None = None
    generated: int = 0  # full blocks whose words do not come from memory


def token(geometry: Geometry, config: HardwareConfig) -> Iterator[Step]:
    """The steps of a pass with a sequence in each slot, in order; those of the embedding rows come first."""
    for part in parts(geometry, config):
        yield from part


def parts(geometry: Geometry, config: HardwareConfig) -> Iterator[tuple[Step, ...]]:
    """The same in pieces: the embedding rows, each layer, what follows the layers. Many layers are equal."""
    yield (Step(Opcode.EMBED, geometry.hidden // config.clusters),) * config.slots
    for layer in range(geometry.layers):
        yield tuple(_layer(geometry, config, layer))
    head = (*_sumsq(geometry.hidden, config), *_project(geometry.hidden, [(geometry.vocab, RowOp.LOGIT)], config))
    yield (*head, Step(Opcode.END))


def _layer(geometry: Geometry, config: HardwareConfig, layer: int) -> Iterator[Step]:
    hidden, inner = geometry.hidden, geometry.inner
    blocks = generated_blocks(geometry, config)

    def generated(kind: str) -> int:
        return 0 if geometry.stream(kind, layer) is None else blocks

    yield from _sumsq(hidden, config)
    yield _load(hidden, config)  # lower bounds
    for kind, row_op in (("f", RowOp.FORGET), ("i", RowOp.RECUR), ("g", RowOp.OUTGATE)):
        yield from _project(hidden, [(hidden, row_op)], config, generated=generated(kind))
    yield from _sumsq(hidden, config)
    yield from _project(hidden, [(hidden, RowOp.RESIDUAL)], config)
    if layer in geometry.glu_layers:
        yield from _sumsq(hidden, config)
        gate = [(inner, RowOp.SILU), (inner, RowOp.MUL)]
        yield from _project(hidden, gate, config, generated=generated("gate"))
        yield Step(Opcode.SUMSQ, inner // config.clusters)
        yield from _project(inner, [(hidden, RowOp.RESIDUAL)], config)


def _load(elements: int, config: HardwareConfig) -> Step:
    return Step(Opcode.LOAD, -(-(elements // config.clusters) // config.params_per_word))


def _sumsq(elements: int, config: HardwareConfig) -> Iterator[Step]:
    yield _load(elements, config)
    yield Step(Opcode.SUMSQ, elements // config.clusters)


def _project(
    columns: int, matrices: list[tuple[int, RowOp]], config: HardwareConfig, *, generated: int = 0
) -> Iterator[Step]:
    yield _load(columns, config)
    yield Step(Opcode.QUANT, columns // config.clusters)
    cut = ColumnBlocks.of(columns, config)
    for all_rows, row_op in matrices:
        rows = all_rows // config.clusters
        for start in range(0, rows, config.tile_rows):
            yield Step(Opcode.MATMUL, min(config.tile_rows, rows - start), cut, row_op, generated)


def image_bytes(geometry: Geometry, config: HardwareConfig) -> int:
    """Bytes that are loaded into memory: program and embedding table, without the gap between them."""
    steps = list(token(geometry, config))
    row = _words(steps[0], config)
    program = sum(_words(step, config) for step in steps if step.opcode is not Opcode.EMBED)
    return config.clusters * (program + geometry.vocab * row) * config.word_bytes


def _words(step: Step, config: HardwareConfig) -> int:
    """Words of a descriptor and of what follows it in the stream."""
    payload = 0
    if step.opcode is Opcode.EMBED:
        payload = -(-step.count // config.params_per_word)
    elif step.opcode is Opcode.LOAD:
        payload = step.count
    elif step.cut is not None:
        payload = ColumnBlocks(step.cut.blocks - step.generated, step.cut.tails).words(step.count)
    return config.descriptor_words + payload
