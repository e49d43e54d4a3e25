"""Brings a model to the GPU: where everything lies in its memory, and the structures that tell the kernels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.engines.cuda.device import Address, Device
from sterna.engines.cuda.source import QUAD, SEGMENT, Shape, padded, segments
from sterna.engines.cuda.structures import CONTROL, LAYER, MODEL, RESULT
from sterna.errors import SternaError
from sterna.model.integer import IntegerLayer, IntegerModel, IntegerProjection
from sterna.spec.numerics import IntArray
from sterna.spec.packing import CODES

_ALIGNMENT = 256  # bytes; what a device allocates is aligned at least so
_BLOCK_BYTES = 1 << 20  # of stored trits that go through the staging memory at a time
_BLOCK_IDS = 1024  # embedding rows converted at a time


class _Arena:
    """Places arrays in one allocation: first all are placed, then the device gives the memory."""

    def __init__(self) -> None:
        self.size = 0

    def place(self, count: int, dtype: npt.DTypeLike) -> int:
        """Offset of an array of ``count`` elements."""
        offset = self.size
        size = count * np.dtype(dtype).itemsize
        self.size += -(-size // _ALIGNMENT) * _ALIGNMENT
        return offset


@dataclasses.dataclass(frozen=True)
class _Weights:
    """Quads of one matrix, or of several of the same shape in turn: ``rows`` says which rows make them."""

    offset: int
    projections: tuple[IntegerProjection, ...]
    rows: IntArray  # [quads * QUAD]; the last quad is filled up with any row, of which nothing is used


class DeviceModel:
    """A model in the memory of a device, with the working memory of the kernels.

    Args:
        device: Where to.
        model: Integer constants of a stored model.
        shape: What the kernels, which are compiled already, were compiled for.

    Raises:
        SternaError: a byte of the weights is no trit code, or the device has too little memory.

    Attributes:
        address: Of the structure ``Model``, the first argument of the kernels.
        fields: Its contents.
        layers: The structures ``Layer``.
        results: What a launch of ``decode`` leaves by the half it wrote: ``sampled`` and ``clamped``, valid once it is
            done.
        half: Of the two states the one that holds.
    """

    def __init__(self, device: Device, model: IntegerModel, shape: Shape) -> None:
        self._device, self._model, self._shape = device, model, shape
        sizes, arena = model.geometry, _Arena()
        self._vectors: list[tuple[int, IntArray, npt.DTypeLike]] = []  # offset, values, type on the device
        self._weights: list[_Weights] = []
        self.fields = np.zeros((), MODEL.dtype)
        self.layers = np.zeros(sizes.layers, LAYER.dtype)
        self.half = 0
        self._half_bytes = 4 * sizes.layers * padded(sizes.hidden)
        self._state = arena.place(self._half_bytes * 2, np.uint8)
        for index, layer in enumerate(model.layers):
            self._place_layer(arena, layer, self.layers[index])
            self.layers[index]["state"] = self._state + 4 * index * padded(sizes.hidden)
        fields = self.fields
        fields["norm"] = self._place_vector(arena, model.norm.mantissa)
        self._place_projection(arena, model.head, fields["head"])
        fields["head_weights"] = self._place_weights(arena, (model.head,), _quads(sizes.vocab))
        fields["embed_shift"] = model.embed_shift
        fields["embedding"] = arena.place(sizes.vocab * sizes.hidden, np.int16)
        fields["logits"] = arena.place(sizes.vocab, np.int32)
        fields["layers"] = arena.place(sizes.layers, LAYER.dtype)
        fields["measures"] = arena.place(2 * 5 * shape.blocks, np.uint64)
        fields["arrivals"] = arena.place(1, np.uint32)
        fields["control"] = arena.place(1, CONTROL.dtype)
        self._place_chunk(arena)
        base = device.allocate(arena.size + MODEL.dtype.itemsize)
        self.address = Address(base + arena.size)
        _relocate(self.layers, base)
        _relocate(fields, base)
        fields["results"], bytes_of_results = device.host_memory(2 * RESULT.dtype.itemsize)
        self.results = bytes_of_results.view(RESULT.dtype)
        self._state += base
        self._upload(base)

    @property
    def state(self) -> IntArray:
        """Recurrent state, int64 [layers, hidden], a copy."""
        sizes = self._model.geometry
        state = np.empty((sizes.layers, padded(sizes.hidden)), np.int32)
        self._device.read(self._state + self.half * self._half_bytes, state)
        return state[:, : sizes.hidden].astype(np.int64)

    @state.setter
    def state(self, state: IntArray) -> None:
        sizes = self._model.geometry
        values = np.zeros((sizes.layers, padded(sizes.hidden)), np.int32)
        values[:, : sizes.hidden] = state
        self._device.write(self._state + self.half * self._half_bytes, values)

    def read(self, field: str, *shape: int) -> npt.NDArray[np.int32]:
        """An array of int32 that a field of ``Model`` points to."""
        values = np.empty(shape, np.int32)
        self._device.read(int(self.fields[field]), values)
        return values

    def _place_layer(self, arena: _Arena, layer: IntegerLayer, fields: Any) -> None:
        sizes = self._model.geometry
        for name, projection in layer.projections.items():
            self._place_projection(arena, projection, fields[name])
        fields["attn_norm"] = self._place_vector(arena, layer.attn_norm.mantissa)
        fields["g_norm"] = self._place_vector(arena, layer.g_norm.mantissa)
        fields["lower_bound"] = self._place_vector(arena, layer.lower_bound, np.uint16)
        fields["product_shift"] = layer.product_shift
        hidden = _quads(sizes.hidden)
        fields["gate_weights"] = self._place_weights(arena, (layer.f, layer.i, layer.g), hidden)
        fields["out_weights"] = self._place_weights(arena, (layer.o,), hidden)
        if layer.glu is not None:
            fields["has_glu"] = 1
            fields["mlp_norm"] = self._place_vector(arena, layer.glu.mlp_norm.mantissa)
            fields["glu_shift"] = layer.glu.glu_shift
            fields["glu_weights"] = self._place_weights(arena, (layer.glu.gate,), _glu_quads(sizes.inner))
            fields["down_weights"] = self._place_weights(arena, (layer.glu.down,), hidden)

    def _place_projection(self, arena: _Arena, projection: IntegerProjection, fields: Any) -> None:
        fields["weight_norm"] = self._place_vector(arena, projection.weight_norm)
        for name, value in dataclasses.asdict(projection.constants).items():
            fields[name] = value

    def _place_vector(self, arena: _Arena, values: IntArray, dtype: npt.DTypeLike = np.int16) -> int:
        offset = arena.place(padded(len(values)), dtype)
        self._vectors.append((offset, values, dtype))
        return offset

    def _place_weights(self, arena: _Arena, projections: tuple[IntegerProjection, ...], rows: IntArray) -> int:
        count = len(projections) * len(rows) // QUAD * segments(projections[0].columns)
        offset = arena.place(count, np.dtype((np.void, SEGMENT)))
        self._weights.append(_Weights(offset, projections, rows))
        return offset

    def _place_chunk(self, arena: _Arena) -> None:
        """Working memory of as many tokens as are read at once; single tokens use its first rows."""
        sizes, chunk, fields = self._model.geometry, self._shape.chunk, self.fields
        hidden, inner = padded(sizes.hidden), padded(sizes.inner)
        fields["tokens"] = arena.place(chunk, np.int32)
        fields["x"] = arena.place(chunk * hidden, np.int32)
        gates = arena.place(max(chunk * max(3 * hidden, inner), _BLOCK_BYTES // 4), np.int32)
        fields["gates"] = fields["w"] = fields["a"] = gates
        fields["y"] = gates + 4 * hidden
        fields["q"] = arena.place(chunk * max(3 * hidden, inner), np.int8)
        fields["scales"] = arena.place(3 * chunk * 4, np.int32)

    def _upload(self, base: int) -> None:
        device, model = self._device, self._model
        for offset, values, dtype in self._vectors:
            device.write(base + offset, values.astype(dtype))
        for weights in self._weights:
            for index, projection in enumerate(weights.projections):
                self._upload_quads(base + weights.offset, weights, index, projection)
        row_bytes = 2 * model.geometry.hidden
        for start in range(0, model.geometry.vocab, _BLOCK_IDS):
            ids = np.arange(start, min(start + _BLOCK_IDS, model.geometry.vocab))
            device.write(int(self.fields["embedding"]) + start * row_bytes, model.embedding.integers(ids))
        device.write(int(self.fields["layers"]), self.layers)
        device.write(self.address, self.fields)
        self._vectors.clear()
        self._weights.clear()

    def _upload_quads(self, target: int, weights: _Weights, index: int, projection: IntegerProjection) -> None:
        """Stored trits go to the gates' memory in blocks, and a kernel brings them into quads."""
        packed = np.asarray(projection.packed)
        if packed.size and int(packed.max()) >= CODES:
            raise SternaError("the weights hold a byte that is no trit code: import the model again")
        staging = Address(self.fields["gates"])
        stride, row_segments = len(weights.projections), segments(projection.columns)
        block = max(_BLOCK_BYTES // (QUAD * packed.shape[1]), 1) * QUAD
        for start in range(0, len(weights.rows), block):
            rows = weights.rows[start : start + block]
            self._device.write(staging, packed[rows])
            quads = len(rows) // QUAD
            self._device.launch(
                "repack",
                (-(-quads * row_segments // self._shape.threads),),
                self._shape.threads,
                Address(target + ((start // QUAD * stride + index) * row_segments) * SEGMENT),
                staging,
                quads,
                stride,
                projection.columns,
                row_segments,
            )


def _quads(rows: int) -> IntArray:
    """Rows in order."""
    return np.minimum(np.arange(-(-rows // QUAD) * QUAD, dtype=np.int64), rows - 1)


def _glu_quads(inner: int) -> IntArray:
    """Two gate rows and the two up rows of the same channels to a quad."""
    channels = np.minimum(np.arange(-(-inner // 2) * 2, dtype=np.int64), inner - 1).reshape(-1, 1, 2)
    return np.concatenate([channels, channels + inner], axis=1).reshape(-1)


def _relocate(structure: Any, base: int) -> None:
    """Make the offsets in pointers, which are the fields of unsigned 64 bits, addresses."""
    for name in structure.dtype.names:
        kind = structure.dtype[name]
        if kind.names is not None:
            _relocate(structure[name], base)
        elif kind == np.uint64:
            structure[name] += np.uint64(base)
