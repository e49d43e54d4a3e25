"""The golden model and the float32 reference as runners that keep every value of the tokens they ran last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.golden.model import GoldenModel, Trace
from sterna.model.geometry import Geometry
from sterna.model.integer import IntegerModel, IntegerProjection
from sterna.model.layout import projections
from sterna.model.store import Model
from sterna.runtime.runners import FloatArray, IdArray, load_float
from sterna.spec import numerics
from sterna.spec.numerics import IntArray

if TYPE_CHECKING:
    import torch

_BATCH = 64  # sequences side by side


@dataclass
class Values:
    """Values of the last part of a text, [sequences, positions, rows] by name.

    ``results`` has the names of :class:`sterna.golden.model.Trace`; ``activations`` has the 8-bit inputs of the
    projections, under the names of docs/model-format.md ("layers.0.f", "head"). ``clamped`` is [sequences, positions].
    """

    results: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    activations: dict[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    clamped: dict[str, IntArray] = field(default_factory=dict)


class TracingGolden:
    """The integer model; ``values.results`` are integers."""

    batch = _BATCH

    def __init__(self, path: str | Path) -> None:
        self.stored = Model.open(path)
        self.stored.verify()
        self._model = GoldenModel(self.stored)
        self._inputs = list(_inputs(self._model.model))
        self.vocab = self.stored.geometry.vocab
        self.values = Values()

    @property
    def numbers(self) -> int:
        """Numbers that are kept for a position."""
        sizes = self.stored.geometry
        return sizes.layers * (6 * sizes.hidden + 2 * sizes.inner) + 2 * sizes.hidden + sizes.vocab

    def reset(self, sequences: int) -> None:
        """Start so many fresh sequences."""
        self._model.batch = sequences
        self._model.reset()

    def run(self, ids: IdArray) -> FloatArray:
        """Logits float32 [sequences, n, vocab] of the next ids [sequences, n]."""
        traces = [Trace() for _ in range(ids.shape[1])]
        for trace, column in zip(traces, ids.T, strict=True):
            self._model.step(column, trace=trace)
        tokens = [dict(trace.results) for trace in traces]
        results = {name: np.stack([token[name] for token in tokens], axis=1) for name in tokens[0]}
        self.values = Values(
            results,
            {name: _quantise(results[source], projection) for name, source, projection in self._inputs},
            {name: np.stack([trace.clamped[name] for trace in traces], axis=1) for name in traces[0].clamped},
        )
        return np.ldexp(results["logits"].astype(np.float32), -numerics.LOGIT_FRAC)


def _inputs(model: IntegerModel) -> Iterator[tuple[str, str, IntegerProjection]]:
    """Each projection's name, the result that it quantises, and its constants, in the order of a token."""
    residual = "embedding"
    for index, layer in enumerate(model.layers):
        prefix = f"layers.{index}"
        for name in ("f", "i", "g"):
            yield f"{prefix}.{name}", residual, getattr(layer, name)
        yield f"{prefix}.o", f"layer {index} output gate", layer.o
        residual = f"layer {index} attention residual"
        if layer.glu is not None:
            yield f"{prefix}.gate", residual, layer.glu.gate
            yield f"{prefix}.down", f"layer {index} gated", layer.glu.down
            residual = f"layer {index} residual"
    yield "head", residual, model.head


def _quantise(w: IntArray, projection: IntegerProjection) -> npt.NDArray[np.int8]:
    """The 8-bit activations of QUANT; the sums of squares do not matter to them (docs/numerics.md)."""
    product = w * projection.weight_norm
    largest = np.max(np.abs(product), axis=-1)
    scalars = [numerics.quantiser_scalars(int(top), 0, 0, projection.constants) for top in largest.ravel()]

    def column(values: list[int]) -> IntArray:
        return np.array(values, np.int64).reshape(*largest.shape, 1)

    q = numerics.quantise(product, column([s.exponent for s in scalars]), column([s.reciprocal for s in scalars]))
    return q.astype(np.int8)


class TracingReference:
    """The float32 model in PyTorch and, unless ``exact`` is False, the same model in float64 beside it.

    ``values.results`` are floats, and nothing is clamped; ``exact`` has those of the float64 model.

    Raises:
        SternaError: the checkpoint is not of ``geometry``.
    """

    batch = _BATCH

    def __init__(self, path: str | Path, geometry: Geometry, *, exact: bool = True) -> None:
        model = load_float(path)
        config = model.config
        ours = (geometry.vocab, geometry.hidden, geometry.layers, geometry.inner)
        theirs = (config.vocab_size, config.hidden_size, config.num_hidden_layers, config.inner_size)
        if ours != theirs:
            raise SternaError(
                f"{path} has vocabulary, width, layers and inner width {theirs}, the model has {ours}: not one model"
            )
        self.vocab = geometry.vocab
        self.values = Values()
        self.exact: Values | None = None
        self._double = _Float(load_float(path).double(), geometry) if exact else None
        self._single = _Float(model, geometry)

    def reset(self, sequences: int) -> None:
        """Start so many fresh sequences."""
        self._single.reset(sequences)
        if self._double:
            self._double.reset(sequences)

    def run(self, ids: IdArray) -> FloatArray:
        """Logits float32 [sequences, n, vocab] of the next ids [sequences, n]."""
        logits, self.values = self._single.run(ids)
        if self._double:
            _, self.exact = self._double.run(ids)
        return logits


class _Float:
    """A float model that keeps what its projections get and give."""

    def __init__(self, model: Any, geometry: Geometry) -> None:
        self._model = model
        self._outputs: dict[str, torch.Tensor] = {}
        self._activations: dict[str, npt.NDArray[np.int8]] = {}
        modules = model.bit_linears()
        for plan in projections(geometry):
            modules[plan.source].register_forward_hook(partial(self._keep, plan.stored))
        self.reset(1)

    def _keep(self, name: str, module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        from sterna.reference.bitlinear import quantise_activations

        self._outputs[name] = output
        self._activations[name] = quantise_activations(module.norm(inputs[0]))[0].numpy().astype(np.int8)

    def reset(self, sequences: int) -> None:
        self._state: torch.Tensor = self._model.initial_state(sequences)

    def run(self, ids: IdArray) -> tuple[npt.NDArray[Any], Values]:
        """Logits [sequences, n, vocab] and all values of the next ids [sequences, n], in the model's own type."""
        import torch

        hidden: list[torch.Tensor] = []
        with torch.inference_mode():
            before = self._state
            logits, self._state = self._model(torch.from_numpy(np.ascontiguousarray(ids)), before, hidden=hidden)
            results = dict(self._results(hidden, before))
        results["logits"] = logits
        values = Values({name: tensor.numpy() for name, tensor in results.items()}, dict(self._activations))
        return logits.numpy(), values

    def _results(self, hidden: list[torch.Tensor], before: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """What the golden model calls by the same names, from the outputs of the projections."""
        import torch.nn.functional as F

        from sterna.reference.recurrence import mlgru

        body, out = self._model.model, self._outputs
        yield "embedding", hidden[0]
        floors = body.forget_floors().unbind(0)
        for index, (layer, floor, state) in enumerate(zip(body.layers, floors, before.unbind(0), strict=True)):
            name, prefix = f"layer {index}", f"layers.{index}"
            i, f, g = (out[f"{prefix}.{kind}"] for kind in "ifg")
            yield f"{name} f", floor + (1 - floor) * f.sigmoid()
            h = mlgru(i, f, floor, state)
            yield f"{name} state", h
            yield f"{name} output gate", g * F.silu(h)  # its norm is the quantiser's business
            yield f"{name} attention residual", hidden[index] + out[f"{prefix}.o"]
            if layer.mlp is not None:
                gate, up = out[f"{prefix}.gate"].chunk(2, dim=-1)
                yield f"{name} gate", F.silu(gate)
                yield f"{name} gated", F.silu(gate) * up
                yield f"{name} residual", hidden[index + 1]
