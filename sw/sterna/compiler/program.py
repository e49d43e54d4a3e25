"""The descriptors of a token, in order, with their payloads (docs/program.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sterna.compiler.layout import ColumnBlocks, generated_order, tile_words
from sterna.errors import SternaError
from sterna.model.geometry import Geometry
from sterna.model.integer import IntegerGLU, IntegerLayer, IntegerModel, IntegerProjection, NormVector
from sterna.spec.config import HardwareConfig
from sterna.spec.isa import Opcode, RowOp, encode
from sterna.spec.numerics import MAX_SHIFT, IntArray
from sterna.spec.packing import unpack

T = TypeVar("T", bound=np.generic)
Parts = Iterator[tuple[str, Iterable[bytes]]]  # the tensor that a part of the program is for, and its bytes in pieces
GENERATED_KINDS = ("f", "i", "g", "gate")  # what reads the residual; fixed trits of the others are stored


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class Placement:
    """Element addresses in vector and parameter memory; everything starts on a word of parameters."""

    residual: int
    work: int  # forget gate, then the output-gate product, then the gated product
    norm: int
    weight_norm: int
    lower_bound: int
    vector_depth: int
    param_depth: int

    @classmethod
    def of(cls, geometry: Geometry, config: HardwareConfig) -> Placement:
        """Place the vectors of a model.

        Raises:
            SternaError: one of the build's memories is too small; the sentence names it.
        """
        align = config.params_per_word
        hidden, inner = _round_up(geometry.hidden, align), _round_up(geometry.inner, align)
        placement = cls(0, hidden, 0, hidden, 2 * hidden, hidden + max(hidden, inner), max(3 * hidden, hidden + inner))
        widest = max(ColumnBlocks.of(n, config).columns(config) for n in (geometry.hidden, geometry.inner))
        needs = {
            "vector_depth": placement.vector_depth,
            "param_depth": placement.param_depth,
            "state_depth": geometry.layers * geometry.hidden,
            "activation_depth": widest,
        }
        for name, need in needs.items():
            if need > getattr(config, name):
                raise SternaError(
                    f"the model needs {name} {need}, configuration {config.name} has {getattr(config, name)}: "
                    "choose a larger configuration"
                )
        return placement


def generated_blocks(geometry: Geometry, config: HardwareConfig) -> int:
    """Full column blocks that the build generates of each fixed projection whose input is the residual."""
    fixed = (geometry.stream(kind, layer) for kind in GENERATED_KINDS for layer in range(geometry.layers))
    return geometry.hidden // config.lanes if config.generator and any(s is not None for s in fixed) else 0


class ProgramWriter:
    """Turns an :class:`IntegerModel` into the bytes of the program, descriptor by descriptor.

    Where the build generates trits, the elements of the residual stand in ``order`` in all memories: columns of what
    reads it and rows of what adds to it follow, so that no sum and no largest element changes.
    """

    def __init__(self, model: IntegerModel, config: HardwareConfig) -> None:
        self.model, self.config = model, config
        self.place = Placement.of(model.geometry, config)
        blocks, hidden = generated_blocks(model.geometry, config), model.geometry.hidden
        self.generated_blocks = blocks
        self.order: IntArray | None = generated_order(hidden, config) if blocks else None

    @property
    def generated_bytes(self) -> int:
        """Bytes of trits that the program leaves to the generator."""
        layers, stream = enumerate(self.model.layers), self.model.geometry.stream
        fixed = (layer.projections[k] for n, layer in layers for k in GENERATED_KINDS if stream(k, n) is not None)
        return sum(projection.rows for projection in fixed) * self.generated_blocks * self.config.word_bytes

    def embedding_row(self, token: int) -> bytes:
        """Descriptor and elements of one row of the embedding table, filled to whole words."""
        descriptor = self._descriptor(
            opcode=Opcode.EMBED,
            row_op=RowOp.EMBED,
            first=1,
            count=self.model.geometry.hidden,
            target=self.place.residual,
            shift=self.model.embed_shift,
        )
        elements = self.model.embedding.integers(np.array([token]))[0]
        return descriptor + self._fill(self._ordered(elements).astype("<i2").tobytes())

    def chunks(self) -> Iterator[bytes]:
        """The program in pieces, in order; together they are whole words."""
        for _, part in chain(self.body(), self.head()):
            yield from part

    def body(self) -> Parts:
        """The beginning of the program, which is all of a token but its logits: what a prompt needs before its end."""
        for index, layer in enumerate(self.model.layers):
            mlp = self._mlp(index, layer.glu) if layer.glu is not None else ()
            for name, part in chain(self._attention(index, layer), mlp):
                yield f"layers.{index}.{name}", part

    def head(self) -> Parts:
        """The rest of the program: logits, and END."""
        place, model, geometry = self.place, self.model, self.model.geometry
        yield "norm", self._sumsq(place.residual, geometry.hidden, model.norm)
        yield "head", self._quant(place.residual, model.head)
        yield "head", self._matmul(model.head, RowOp.LOGIT)
        yield "head", [self._descriptor(opcode=Opcode.END)]

    def _attention(self, index: int, layer: IntegerLayer) -> Parts:
        place, hidden = self.place, self.model.geometry.hidden
        state = index * hidden
        f, i, g = (self.model.geometry.stream(kind, index) for kind in ("f", "i", "g"))
        yield "attn_norm", self._sumsq(place.residual, hidden, layer.attn_norm)
        yield "lower_bound", [self._load(place.lower_bound, layer.lower_bound)]
        yield "f", self._quant(place.residual, layer.f)
        yield "f", self._matmul(layer.f, RowOp.FORGET, stream=f, target=place.work, param=place.lower_bound)
        yield "i", self._quant(place.residual, layer.i)
        yield "i", self._matmul(layer.i, RowOp.RECUR, stream=i, source=place.work, state=state)
        yield "g", self._quant(place.residual, layer.g)
        shift = layer.product_shift
        yield "g", self._matmul(layer.g, RowOp.OUTGATE, stream=g, target=place.work, state=state, shift=shift)
        yield "g_norm", self._sumsq(place.work, hidden, layer.g_norm)
        yield "o", self._quant(place.work, layer.o)
        yield "o", self._matmul(layer.o, RowOp.RESIDUAL, source=place.residual, target=place.residual)

    def _mlp(self, index: int, glu: IntegerGLU) -> Parts:
        place, geometry = self.place, self.model.geometry
        inner, stream = geometry.inner, geometry.stream("gate", index)
        gate, up = range(inner), range(inner, 2 * inner)
        work = {"source": place.work, "target": place.work}
        yield "mlp_norm", self._sumsq(place.residual, geometry.hidden, glu.mlp_norm)
        yield "gate", self._quant(place.residual, glu.gate)
        yield "gate", self._matmul(glu.gate, RowOp.SILU, rows=gate, stream=stream, target=place.work)
        yield "gate", self._matmul(glu.gate, RowOp.MUL, rows=up, stream=stream, shift=glu.glu_shift, **work)
        yield "down", self._sumsq(place.work, inner, None)
        yield "down", self._quant(place.work, glu.down)
        yield "down", self._matmul(glu.down, RowOp.RESIDUAL, source=place.residual, target=place.residual)

    def _sumsq(self, source: int, count: int, norm: NormVector | None) -> Iterator[bytes]:
        if norm is not None:
            mantissa = self._ordered(norm.mantissa) if source == self.place.residual else norm.mantissa
            yield self._load(self.place.norm, mantissa)
        yield self._descriptor(
            opcode=Opcode.SUMSQ, source=source, count=count, param=self.place.norm, ones=int(norm is None)
        )

    def _quant(self, source: int, projection: IntegerProjection) -> Iterator[bytes]:
        constants = projection.constants
        weights = projection.weight_norm
        yield self._load(self.place.weight_norm, self._ordered(weights) if source == self.place.residual else weights)
        yield self._descriptor(
            opcode=Opcode.QUANT,
            source=source,
            count=projection.columns,
            param=self.place.weight_norm,
            eps_mantissa=constants.eps_mantissa,
            eps_shift=constants.eps_shift,
            eps_const=constants.eps_const,
            scale_mantissa=constants.mantissa,
            scale_exponent=constants.exponent,
        )

    def _matmul(
        self,
        projection: IntegerProjection,
        row_op: RowOp,
        *,
        stream: int | None = None,
        rows: range | None = None,
        shift: int = 0,
        **addresses: int,
    ) -> Iterator[bytes]:
        """A descriptor and its words for each tile; ``addresses`` (source, target, …) belong to the first row.

        ``stream`` is that of the generator for fixed trits that it may make.
        """
        rows = rows or range(projection.rows)
        cut = ColumnBlocks.of(projection.columns, self.config)
        reservoir = self.model.geometry.reservoir
        generated = self.generated_blocks if stream is not None else 0
        seed = reservoir.seed if reservoir else 0
        for start in range(0, len(rows), self.config.tile_rows):
            tile = rows[start : start + self.config.tile_rows]
            made: dict[str, int] = {}
            if stream is not None and generated:
                made = {"generated": generated, "eps_mantissa": stream, "eps_const": seed, "scale_mantissa": tile.start}
            yield self._descriptor(
                opcode=Opcode.MATMUL,
                row_op=row_op,
                first=int(start == 0),
                count=len(tile),
                blocks=cut.blocks,
                tails=cut.tails,
                shift=shift,
                **made,
                **{name: first + start for name, first in addresses.items()},
            )
            yield tile_words(self._trits(projection, row_op, tile), self.config, generated=generated).tobytes()

    def _trits(self, projection: IntegerProjection, row_op: RowOp, tile: range) -> npt.NDArray[np.int8]:
        """Trits of a tile, int8 [rows, columns], where rows or columns are the residual's, in its order."""
        if row_op is RowOp.RESIDUAL and self.order is not None:
            return unpack(np.asarray(projection.packed[self.order[tile.start : tile.stop]]), projection.columns)
        trits = unpack(np.asarray(projection.packed[tile.start : tile.stop]), projection.columns)
        return trits if row_op is RowOp.RESIDUAL else self._ordered(trits)

    def _ordered(self, values: npt.NDArray[T]) -> npt.NDArray[T]:
        """Elements or columns [..., hidden] of the residual in its order."""
        return values if self.order is None else values[..., self.order]

    def _load(self, target: int, values: IntArray) -> bytes:
        payload = self._fill((values & 0xFFFF).astype("<u2").tobytes())
        words = len(payload) // self.config.word_bytes
        return self._descriptor(opcode=Opcode.LOAD, count=words, target=target) + payload

    def _descriptor(self, **fields: int) -> bytes:
        shift = fields.get("shift", 0)
        if not 0 <= shift <= MAX_SHIFT:
            raise SternaError(
                f"the model asks for a right shift of {shift} bits, 0..{MAX_SHIFT} are specified: "
                "its binary points are too far apart, import the checkpoint again"
            )
        return self._fill(encode(**fields))

    def _fill(self, data: bytes) -> bytes:
        return data + bytes(-len(data) % self.config.word_bytes)
