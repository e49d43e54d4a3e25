"""The fast engine for the host's processor: the same integers as the golden model, from packed weights."""

from __future__ import annotations

import dataclasses
import os

import numpy as np

from sterna.engines.engine import Step
from sterna.engines.kernels import projection as matvec
from sterna.engines.kernels import token as tokens
from sterna.errors import SternaError
from sterna.model.geometry import Geometry
from sterna.model.integer import IntegerLayer, IntegerModel, IntegerProjection
from sterna.model.store import Model
from sterna.spec.numerics import IntArray
from sterna.spec.packing import CODES, TRITS_PER_BYTE


class CpuEngine:
    """Runs a model one token at a time; weights stay as stored, five trits a byte and memory-mapped.

    How the product is formed, and what else was measured, stands in :mod:`sterna.engines.kernels.projection`. The
    first engine ever made on a machine compiles the kernels, which takes some seconds.

    Args:
        model: A stored model, or its integer constants.
        threads: Threads that share the rows of large matrices; by default one per processor this process may use.
        parallel_bytes: Packed size from which a matrix is large.

    Raises:
        SternaError: a byte of the weights is no trit code, or ``threads`` is not positive.
    """

    def __init__(
        self, model: Model | IntegerModel, *, threads: int | None = None, parallel_bytes: int = matvec.PARALLEL_BYTES
    ) -> None:
        self._model = model if isinstance(model, IntegerModel) else IntegerModel.from_model(model)
        if threads is not None and threads < 1:
            raise SternaError(f"threads must be a positive integer, not {threads!r}")
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._split = (min(threads or available, matvec.MAX_THREADS), parallel_bytes)
        geometry = self._model.geometry
        self._layers = [_Layer(layer) for layer in self._model.layers]
        self._head = _packed(self._model.head, "head")
        self._head_constants = _constants([self._model.head])[0]
        longest = max(geometry.hidden, geometry.inner)
        groups = -(-longest // TRITS_PER_BYTE)
        self._coefficients = np.zeros((5, -(-groups // matvec.PADDING) * matvec.PADDING), np.int16)
        rows = max(2 * longest, longest + geometry.hidden)
        self._y = np.zeros(rows, np.int64)
        self._clamped = np.zeros(max(rows, geometry.vocab), np.bool_)
        self._x = np.zeros(geometry.hidden, np.int64)
        self._state = np.zeros((geometry.layers, geometry.hidden), np.int64)
        self.step(0)  # compiles what no earlier process has compiled, and reads the weights from disk
        self.reset()

    @property
    def geometry(self) -> Geometry:
        """Sizes of the model."""
        return self._model.geometry

    @property
    def state(self) -> IntArray:
        """Recurrent state, int64 [layers, hidden], 16 fractional bits; a copy."""
        return self._state.copy()

    @state.setter
    def state(self, state: IntArray) -> None:
        self._state[:] = state

    def reset(self) -> None:
        """Forget the sequence."""
        self._state[:] = 0

    def step(self, token: int, *, logits: bool = False) -> Step:
        """Run one token; see :class:`sterna.engines.engine.Engine`.

        Raises:
            SternaError: the token is outside the vocabulary.
        """
        model, x = self._model, self._x
        if not 0 <= token < model.geometry.vocab:
            raise SternaError(f"token id {token} is outside the vocabulary of {model.geometry.vocab}")
        elements = np.asarray(model.embedding.integers(np.array([token])), np.int16)[0]
        clamped = tokens.embed(np.ascontiguousarray(elements), model.embed_shift, x)
        scratch = (self._coefficients, self._y, self._clamped, self._split)
        for layer, h in zip(self._layers, self._state, strict=True):
            clamped += tokens.mixer(x, h, *layer.mixer, *scratch)
            if layer.glu:
                clamped += tokens.glu(x, *layer.glu, *scratch)
        values = np.empty(model.geometry.vocab, np.int64)
        clamped += tokens.head(
            x,
            model.norm.mantissa,
            model.head.weight_norm,
            self._head_constants,
            self._head,
            self._coefficients,
            values,
            self._clamped,
            self._split,
        )
        return Step(int(values.argmax()), values.astype(np.int32) if logits else None, {"saturations": int(clamped)})

    def close(self) -> None:
        """Nothing is held but memory."""


class _Layer:
    """The constants of one layer as the kernels ``mixer`` and ``glu`` take them."""

    def __init__(self, layer: IntegerLayer) -> None:
        vectors: IntArray = np.empty((7, layer.f.columns), np.int64)
        vectors[tokens.ATTN_NORM] = layer.attn_norm.mantissa
        vectors[tokens.F_NORM] = layer.f.weight_norm
        vectors[tokens.I_NORM] = layer.i.weight_norm
        vectors[tokens.G_NORM] = layer.g.weight_norm
        vectors[tokens.LOWER_BOUND] = layer.lower_bound
        vectors[tokens.OUT_NORM] = layer.g_norm.mantissa
        vectors[tokens.O_NORM] = layer.o.weight_norm
        weights = {name: _packed(projection, name) for name, projection in layer.projections.items()}
        self.mixer = (
            vectors,
            _constants([layer.f, layer.i, layer.g, layer.o]),
            layer.product_shift,
            tuple(weights[name] for name in ("f", "i", "g", "o")),
        )
        self.glu: tuple[IntArray, IntArray, IntArray, int, tuple[matvec.Bytes, ...]] | None = None
        if layer.glu is not None:
            gate, down = layer.glu.gate, layer.glu.down
            norms = np.empty((2, gate.columns), np.int64)
            norms[tokens.MLP_NORM] = layer.glu.mlp_norm.mantissa
            norms[tokens.GATE_NORM] = gate.weight_norm
            pair = (weights["gate"], weights["down"])
            self.glu = (norms, down.weight_norm, _constants([gate, down]), layer.glu.glu_shift, pair)


def _constants(projections: list[IntegerProjection]) -> IntArray:
    """int64 [projections, 5]: the fields of ScaleConstants in order."""
    return np.array([dataclasses.astuple(p.constants) for p in projections], np.int64)


def _packed(projection: IntegerProjection, name: str) -> matvec.Bytes:
    """Trits as uint8 [rows * ceil(columns / 5)], a read-only view, checked once."""
    packed = np.ascontiguousarray(projection.packed).reshape(-1).view()
    if packed.size and int(packed.max()) >= CODES:
        raise SternaError(
            f"the weights of a {name} projection hold a byte that is no trit code: import the model again"
        )
    packed.flags.writeable = False
    return packed
