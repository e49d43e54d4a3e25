"""The descriptors of a token, in order, with their payloads (docs/program.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from sterna.compiler.arrangement import Arrangement, check_shares, part
from sterna.compiler.layout import ColumnBlocks, generated_order, tile_words
from sterna.errors import SternaError
from sterna.model.geometry import Geometry
from sterna.model.integer import IntegerGLU, IntegerLayer, IntegerModel, IntegerProjection, NormVector
from sterna.spec.config import HardwareConfig
from sterna.spec.isa import Opcode, RowOp, encode
from sterna.spec.numerics import MAX_SHIFT, IntArray
from sterna.spec.packing import unpack

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
        """Place the vectors of a model, in a cluster its part of each.

        Raises:
            SternaError: one of the build's memories is too small, or its clusters cannot share the model; the sentence
                names the memory or the size.
        """
        check_shares(geometry, config)
        align, clusters = config.params_per_word, config.clusters
        hidden, inner = (_round_up(size // clusters, align) for size in (geometry.hidden, geometry.inner))
        placement = cls(0, hidden, 0, hidden, 2 * hidden, hidden + max(hidden, inner), max(3 * hidden, hidden + inner))
        widest = max(ColumnBlocks.of(n, config).columns(config) for n in (geometry.hidden, geometry.inner))
        needs = {
            "vector_depth": placement.vector_depth,
            "param_depth": placement.param_depth,
            "state_depth": geometry.layers * geometry.hidden // clusters,
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
    """Turns an :class:`IntegerModel` into the bytes of the program of one cluster, descriptor by descriptor.

    Where the build generates trits, the elements of the residual stand in ``order`` in all memories: columns of what
    reads it and rows of what adds to it follow, so that no sum and no largest element changes.
    """

    def __init__(self, model: IntegerModel, config: HardwareConfig, *, cluster: int = 0) -> None:
        self.model, self.config = model, config
        self.place = Placement.of(model.geometry, config)
        sizes = model.geometry
        self.generated_blocks = generated_blocks(sizes, config)
        self.order: IntArray | None = generated_order(sizes.hidden, config) if self.generated_blocks else None
        self.hidden, self.inner = (Arrangement.share(n, config, cluster) for n in (sizes.hidden, sizes.inner))
        self.vocabulary = part(sizes.vocab, config, cluster)
        self.residual = self.hidden if self.order is None else Arrangement(self.order, self.order)

    @property
    def generated_bytes(self) -> int:
        """Bytes of trits that the program leaves to the generator."""
        layers, stream = enumerate(self.model.layers), self.model.geometry.stream
        fixed = (layer.projections[k] for n, layer in layers for k in GENERATED_KINDS if stream(k, n) is not None)
        return sum(projection.rows for projection in fixed) * self.generated_blocks * self.config.word_bytes

    def embedding_rows(self, elements: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
        """Rows of the embedding table, each a descriptor and its elements, filled to whole words.

        Args:
            elements: int16 [tokens, hidden], those of all clusters.

        Returns:
            uint8 [tokens, bytes].
        """
        descriptor = self._descriptor(
            opcode=Opcode.EMBED,
            row_op=RowOp.EMBED,
            first=1,
            count=self.residual.count,
            target=self.place.residual,
            shift=self.model.embed_shift,
        )
        held = np.ascontiguousarray(elements[:, self.residual.held], "<i2").view(np.uint8)
        start, end = len(descriptor), len(descriptor) + held.shape[1]
        rows = np.zeros((len(held), _round_up(end, self.config.word_bytes)), np.uint8)
        rows[:, :start] = np.frombuffer(descriptor, np.uint8)
        rows[:, start:end] = held
        return rows

    @property
    def parts(self) -> int:
        """Parts of the program; none is made for it."""
        return sum(1 for _ in chain(self.body(), self.head()))

    def chunks(self) -> Iterator[bytes]:
        """The program in pieces, in order; together they are whole words."""
        for _, pieces in chain(self.body(), self.head()):
            yield from pieces

    def body(self) -> Parts:
        """The beginning of the program, which is all of a token but its logits: what a prompt needs before its end."""
        for index, layer in enumerate(self.model.layers):
            mlp = self._mlp(index, layer.glu) if layer.glu is not None else ()
            for name, pieces in chain(self._attention(index, layer), mlp):
                yield f"layers.{index}.{name}", pieces

    def head(self) -> Parts:
        """The rest of the program: logits, and END."""
        place, model, residual = self.place, self.model, self.residual
        yield "norm", self._sumsq(place.residual, residual, model.norm)
        yield "head", self._quant(place.residual, residual, model.head)
        yield "head", self._matmul(model.head, RowOp.LOGIT, residual, self.vocabulary)
        yield "head", [self._descriptor(opcode=Opcode.END)]

    def _attention(self, index: int, layer: IntegerLayer) -> Parts:
        place, residual, hidden = self.place, self.residual, self.hidden
        rows, state = hidden.held, index * hidden.count
        f, i, g = (self.model.geometry.stream(kind, index) for kind in ("f", "i", "g"))
        made = {"target": place.work, "state": state, "shift": layer.product_shift}
        yield "attn_norm", self._sumsq(place.residual, residual, layer.attn_norm)
        yield "lower_bound", [self._load(place.lower_bound, layer.lower_bound[rows])]
        yield "f", self._quant(place.residual, residual, layer.f)
        bound = place.lower_bound
        yield "f", self._matmul(layer.f, RowOp.FORGET, residual, rows, stream=f, target=place.work, param=bound)
        yield "i", self._quant(place.residual, residual, layer.i)
        yield "i", self._matmul(layer.i, RowOp.RECUR, residual, rows, stream=i, source=place.work, state=state)
        yield "g", self._quant(place.residual, residual, layer.g)
        yield "g", self._matmul(layer.g, RowOp.OUTGATE, residual, rows, stream=g, **made)
        yield "g_norm", self._sumsq(place.work, hidden, layer.g_norm)
        yield "o", self._quant(place.work, hidden, layer.o)
        yield "o", self._add(layer.o, hidden)

    def _mlp(self, index: int, glu: IntegerGLU) -> Parts:
        place, residual, inner = self.place, self.residual, self.inner
        stream = self.model.geometry.stream("gate", index)
        gate, up = inner.held, self.model.geometry.inner + inner.held
        work = {"source": place.work, "target": place.work}
        yield "mlp_norm", self._sumsq(place.residual, residual, glu.mlp_norm)
        yield "gate", self._quant(place.residual, residual, glu.gate)
        yield "gate", self._matmul(glu.gate, RowOp.SILU, residual, gate, stream=stream, target=place.work)
        yield "gate", self._matmul(glu.gate, RowOp.MUL, residual, up, stream=stream, shift=glu.glu_shift, **work)
        yield "down", self._sumsq(place.work, inner, None)
        yield "down", self._quant(place.work, inner, glu.down)
        yield "down", self._add(glu.down, inner)

    def _sumsq(self, source: int, vector: Arrangement, norm: NormVector | None) -> Iterator[bytes]:
        if norm is not None:
            yield self._load(self.place.norm, norm.mantissa[vector.held])
        yield self._descriptor(
            opcode=Opcode.SUMSQ, source=source, count=vector.count, param=self.place.norm, ones=int(norm is None)
        )

    def _quant(self, source: int, vector: Arrangement, projection: IntegerProjection) -> Iterator[bytes]:
        constants = projection.constants
        yield self._load(self.place.weight_norm, projection.weight_norm[vector.held])
        yield self._descriptor(
            opcode=Opcode.QUANT,
            source=source,
            count=vector.count,
            param=self.place.weight_norm,
            eps_mantissa=constants.eps_mantissa,
            eps_shift=constants.eps_shift,
            eps_const=constants.eps_const,
            scale_mantissa=constants.mantissa,
            scale_exponent=constants.exponent,
        )

    def _add(self, projection: IntegerProjection, vector: Arrangement) -> Iterator[bytes]:
        """The projection of a vector whose rows are added to the residual."""
        place = self.place.residual
        return self._matmul(projection, RowOp.RESIDUAL, vector, self.residual.held, source=place, target=place)

    def _matmul(
        self,
        projection: IntegerProjection,
        row_op: RowOp,
        vector: Arrangement,
        rows: IntArray,
        *,
        stream: int | None = None,
        shift: int = 0,
        **addresses: int,
    ) -> Iterator[bytes]:
        """A descriptor and its words for each tile; ``addresses`` (source, target, …) belong to the first row.

        ``vector`` is what it multiplies; ``rows`` are those of this cluster, int64, in the order of their results;
        ``stream`` is that of the generator for fixed trits that it may make, whose rows are in a row.
        """
        cut = ColumnBlocks.of(projection.columns, self.config)
        reservoir = self.model.geometry.reservoir
        generated = self.generated_blocks if stream is not None else 0
        seed = reservoir.seed if reservoir else 0
        for start in range(0, len(rows), self.config.tile_rows):
            tile = rows[start : start + self.config.tile_rows]
            made: dict[str, int] = {}
            if stream is not None and generated:
                first = int(tile[0])
                made = {"generated": generated, "eps_mantissa": stream, "eps_const": seed, "scale_mantissa": first}
            yield self._descriptor(
                opcode=Opcode.MATMUL,
                row_op=row_op,
                first=int(start == 0),
                count=len(tile),
                blocks=cut.blocks,
                tails=cut.tails,
                shift=shift,
                **made,
                **{name: address + start for name, address in addresses.items()},
            )
            trits = vector.in_columns(unpack(np.asarray(projection.packed[tile]), projection.columns))
            yield tile_words(trits, self.config, generated=generated).tobytes()

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
