"""Chooses the binary points that depend on the data: residual, output-gate product, gated product."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TypedDict

import numpy as np

from sterna.golden.model import GoldenModel, Trace
from sterna.model.store import Model
from sterna.progress import Progress, counting
from sterna.spec.numerics import VALUE_WIDTH, IntArray

HEADROOM_BITS = 3  # eight times the largest value seen
MIN_FRAC, MAX_FRAC = 2, 16
_ROUNDS = 4


class BinaryPoints(TypedDict):
    """Fractional bits of the residual, and of the two products of each layer."""

    residual_frac: int
    product_frac: list[int]
    glu_frac: list[int | None]  # None in mixer-only layers


def calibrate(model: Model, *, ids: IntArray | None = None, progress: Progress | None = None) -> BinaryPoints:
    """Binary points such that the largest value seen uses an eighth of the range.

    Args:
        model: A stored model; its present binary points are where the search starts.
        ids: Token ids int64 [sequences, tokens] to look at; by default 8 sequences of 48 uniformly random ids.
        progress: Called once to make a progress bar that counts layers; it ends early when nothing changes any more.

    Returns:
        The binary points; the lists have an entry a layer.
    """
    if ids is None:
        ids = np.random.default_rng(0).integers(0, model.geometry.vocab, (8, 48))
    with counting(progress, total=(1 + _ROUNDS) * len(model.layers), label="calibrating", unit="layer") as count:
        chosen = _choose(model, ids, count)
        for _ in range(_ROUNDS):
            previous, model = chosen, _with_fracs(model, chosen)
            chosen = _choose(model, ids, count)
            if chosen == previous:
                break
    return chosen


def _choose(model: Model, ids: IntArray, count: Callable[[int], object]) -> BinaryPoints:
    """The points for what ``model`` makes of ``ids``."""
    largest = _largest(model, ids, count)
    residual = max(value for name, value in largest.items() if name == "embedding" or name.endswith("residual"))
    layers = list(enumerate(model.layers))
    return {
        "residual_frac": _frac(residual, model.residual_frac),
        "product_frac": [_frac(largest[f"layer {n} output gate"], layer.product_frac) for n, layer in layers],
        "glu_frac": [
            _frac(largest[f"layer {n} gated"], layer.glu.glu_frac) if layer.glu else None for n, layer in layers
        ],
    }


def _largest(model: Model, ids: IntArray, count: Callable[[int], object] = lambda layers: None) -> dict[str, int]:
    """The largest magnitude of each result but the logits, by its name in a trace.

    All tokens of a layer run before the next layer, so the trits of a projection are needed once, and no two
    projections are unpacked at a time.
    """
    golden = GoldenModel(model, batch=len(ids), kept_bytes=0)
    largest: dict[str, int] = {}

    def look(trace: Trace) -> None:
        largest.update({name: int(np.max(np.abs(values))) for name, values in trace.results})

    x = golden.embed(ids.T.reshape(-1), trace := Trace())
    look(trace)
    for index in range(model.geometry.layers):
        x = golden.layer(index, x, trace := Trace())
        look(trace)
        count(1)
    return largest


def _frac(largest: int, frac: int) -> int:
    """Fractional bits that leave the headroom above ``largest``, an integer of ``frac`` fractional bits."""
    whole_bits = math.frexp(max(largest, 1) / (1 << frac))[1]
    return min(max(VALUE_WIDTH - 1 - HEADROOM_BITS - whole_bits, MIN_FRAC), MAX_FRAC)


def _with_fracs(model: Model, chosen: BinaryPoints) -> Model:
    layers = tuple(
        dataclasses.replace(
            layer,
            product_frac=product,
            glu=dataclasses.replace(layer.glu, glu_frac=frac) if layer.glu and frac is not None else None,
        )
        for layer, product, frac in zip(model.layers, chosen["product_frac"], chosen["glu_frac"], strict=True)
    )
    return dataclasses.replace(model, residual_frac=chosen["residual_frac"], layers=layers)
