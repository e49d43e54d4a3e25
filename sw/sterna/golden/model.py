"""A whole token in integers, as docs/numerics.md writes it, for a batch of independent sequences."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.golden import rows
from sterna.model.integer import IntegerGLU, IntegerModel, IntegerProjection, NormVector
from sterna.model.store import Model
from sterna.spec import numerics, packing
from sterna.spec.numerics import BoolArray, IntArray

KEPT_BYTES = 2 << 30  # of unpacked trits: all those of 370M; what is over is unpacked again for each use


@dataclass
class Trace:
    """What a token produced, in program order, and what was clamped.

    ``results`` holds (name, int64 [batch, rows]); names are "embedding", "layer 3 f", ..., "logits". ``clamped`` holds
    how many results of a name were clamped, int64 [batch].
    """

    results: list[tuple[str, IntArray]] = field(default_factory=list)
    clamped: dict[str, IntArray] = field(default_factory=dict)

    @property
    def saturations(self) -> int:
        """All results that were clamped."""
        return sum(int(counts.sum()) for counts in self.clamped.values())

    def add(self, name: str, values: IntArray, clamped: BoolArray | None = None) -> None:
        """Record the results of one descriptor and where they were clamped."""
        self.results.append((name, values))
        if clamped is not None:
            counts = np.count_nonzero(clamped, axis=-1)
            self.clamped[name] = self.clamped[name] + counts if name in self.clamped else counts


@dataclass
class _Quantised:
    """A projection's input: activations [batch, columns] and the scale of each sequence [batch, 1]."""

    q: IntArray
    mantissa: IntArray
    shift: IntArray


class GoldenModel:
    """The integer model. State is carried from :meth:`step` to :meth:`step` until :meth:`reset`.

    Args:
        model: A stored model, or its integer constants.
        batch: Independent sequences that run side by side.
        kept_bytes: Memory for unpacked trits that are kept from one use to the next; 0 holds one projection at a time.
    """

    def __init__(self, model: Model | IntegerModel, *, batch: int = 1, kept_bytes: int = KEPT_BYTES) -> None:
        self.model = model if isinstance(model, IntegerModel) else IntegerModel.from_model(model)
        self.batch = batch
        self._trits: dict[int, npt.NDArray[np.float32]] = {}
        self._room = kept_bytes
        self.reset()

    def reset(self) -> None:
        """Forget all sequences."""
        geometry = self.model.geometry
        self.state: IntArray = np.zeros((geometry.layers, self.batch, geometry.hidden), np.int64)

    def step(self, tokens: npt.ArrayLike, *, trace: Trace | None = None) -> IntArray:
        """Run one token of each sequence.

        Args:
            tokens: Token ids, int [batch].
            trace: Filled with every row result of the token when given.

        Returns:
            Logits, int64 [batch, vocab], 14 fractional bits.
        """
        trace = trace or Trace()
        x = self.embed(np.asarray(tokens, np.int64).reshape(self.batch), trace)
        for index in range(self.model.geometry.layers):
            x = self.layer(index, x, trace)
        quantised = self._quantise(x, self.model.head, _sum_of_squares(x, self.model.norm), rows.squares(x))
        logits, clamped = self._rows(self.model.head, quantised)
        trace.add("logits", logits, clamped)
        return logits

    def embed(self, ids: IntArray, trace: Trace) -> IntArray:
        """The residual before the first layer, int64 [rows, hidden], of token ids int64 [rows].

        Raises:
            SternaError: an id is outside the vocabulary.
        """
        m = self.model
        if ids.min() < 0 or ids.max() >= m.geometry.vocab:
            raise SternaError(f"token id {ids.tolist()} is outside the vocabulary of {m.geometry.vocab}")
        elements = m.embedding.integers(ids).astype(np.int64)
        x, clamped = numerics.scale_rows(elements, 1 << numerics.EMBED_MANTISSA_BITS, m.embed_shift)
        trace.add("embedding", x, clamped)
        return x

    def layer(self, index: int, x: IntArray, trace: Trace) -> IntArray:
        """The residual after a layer, whose state advances.

        Args:
            index: Which layer.
            x: The residual before it, int64 [rows, hidden]: a row for each sequence, or several times as many, those
                of the first token, then those of the next. Only the recurrence knows time, so they run together.
            trace: Filled with the results of the layer.
        """
        layer, name = self.model.layers[index], f"layer {index}"
        s1, s2 = _sum_of_squares(x, layer.attn_norm), rows.squares(x)
        y, clamped = self._rows(layer.f, self._quantise(x, layer.f, s1, s2))
        f = rows.forget(y, layer.lower_bound)
        trace.add(f"{name} f", f, clamped)
        y, clamped = self._rows(layer.i, self._quantise(x, layer.i, s1, s2))
        h, clamped_h = self._recur(index, y, f)
        trace.add(f"{name} state", h, clamped | clamped_h)
        y, clamped = self._rows(layer.g, self._quantise(x, layer.g, s1, s2))
        w, clamped_w = rows.outgate(y, h, layer.product_shift)
        trace.add(f"{name} output gate", w, clamped | clamped_w)

        quantised = self._quantise(w, layer.o, _sum_of_squares(w, layer.g_norm), rows.squares(y))
        y, clamped = self._rows(layer.o, quantised)
        x, clamped_x = rows.residual(y, x)
        trace.add(f"{name} attention residual", x, clamped | clamped_x)
        return x if layer.glu is None else self._glu(name, layer.glu, x, trace)

    def _recur(self, index: int, y: IntArray, f: IntArray) -> tuple[IntArray, BoolArray]:
        """States after each token, int64 [rows, hidden], and where they were clamped."""
        states, clamps = np.empty_like(y), np.empty(y.shape, np.bool_)
        for start in range(0, len(y), self.batch):
            now = slice(start, start + self.batch)
            states[now], clamps[now] = rows.recur(y[now], f[now], self.state[index])
            self.state[index] = states[now]
        return states, clamps

    def _glu(self, name: str, glu: IntegerGLU, x: IntArray, trace: Trace) -> IntArray:
        """The residual after the gated linear unit; x int64 [batch, hidden]."""
        quantised = self._quantise(x, glu.gate, _sum_of_squares(x, glu.mlp_norm), rows.squares(x))
        y, clamped = self._rows(glu.gate, quantised)
        gate, up = np.split(y, 2, axis=-1)
        gate = rows.gate_silu(gate)
        product, clamped_product = rows.multiply(up, gate, glu.glu_shift)
        clamped_gate, clamped_up = np.split(clamped, 2, axis=-1)
        trace.add(f"{name} gate", gate, clamped_gate)
        trace.add(f"{name} gated", product, clamped_up | clamped_product)

        quantised = self._quantise(product, glu.down, rows.squares(product), rows.squares(x))
        y, clamped = self._rows(glu.down, quantised)
        x, clamped_x = rows.residual(y, x)
        trace.add(f"{name} residual", x, clamped | clamped_x)
        return x

    def _quantise(self, w: IntArray, projection: IntegerProjection, s1: IntArray, s2: IntArray) -> _Quantised:
        """QUANT: w int64 [batch, columns], sums of squares [batch]."""
        product = w * projection.weight_norm
        largest = np.max(np.abs(product), axis=-1)
        scalars = [
            numerics.quantiser_scalars(int(top), int(a), int(b), projection.constants)
            for top, a, b in zip(largest, s1, s2, strict=True)
        ]

        def column(values: list[int]) -> IntArray:
            return np.array(values, np.int64)[:, None]

        return _Quantised(
            q=numerics.quantise(
                product, column([s.exponent for s in scalars]), column([s.reciprocal for s in scalars])
            ),
            mantissa=column([s.scale_mantissa for s in scalars]),
            shift=column([s.scale_shift for s in scalars]),
        )

    def _rows(self, projection: IntegerProjection, x: _Quantised) -> tuple[IntArray, BoolArray]:
        """MATMUL and scale: y int64 [batch, rows] and where it was clamped."""
        # Geometry keeps 127 * columns below 2**23, so float32 is exact, and BLAS is far faster than integer loops.
        sums = (x.q.astype(np.float32) @ self._matrix(projection).T).astype(np.int64)
        return numerics.scale_rows(sums, x.mantissa, x.shift)

    def _matrix(self, projection: IntegerProjection) -> npt.NDArray[np.float32]:
        """Trits as float32 [rows, columns], kept while there is room."""
        key = id(projection.packed)  # projections that share trits share this array
        if key in self._trits:
            return self._trits[key]
        trits = packing.unpack(np.asarray(projection.packed), projection.columns, np.float32)
        if trits.nbytes <= self._room:
            self._room -= trits.nbytes
            self._trits[key] = trits
        return trits


def _sum_of_squares(w: IntArray, norm: NormVector) -> IntArray:
    """SUMSQ: S1 of w times its norm weights, int64 [batch]."""
    return rows.squares(numerics.round_shift(w * norm.mantissa, numerics.PARAM_WIDTH - 1))
