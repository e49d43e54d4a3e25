"""What quantisation costs: one run of a text through the golden model and through the float32 reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.progress import Progress
from sterna.quality.statistics import ActivationSum, Place, ValueSum, fractional_bits
from sterna.quality.tracing import TracingGolden, TracingReference, Values
from sterna.runtime.evaluate import CHUNK, compare_runners
from sterna.runtime.load import GOLDEN
from sterna.runtime.tokenizer import Tokenizer, require


def measure(
    path: str | Path,
    text: str | Path,
    *,
    reference: str | Path | None = None,
    max_tokens: int | None = None,
    chunk: int = CHUNK,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Compare every value of a text with the float32 reference that reads the same text.

    Args:
        path: A stored model.
        text: A UTF-8 text file, plain or ``.xz``.
        reference: What the reference is made from: the stored model itself (default), or the checkpoint directory
            that it was imported from.
        max_tokens: Tokens to read from the start of the text; all by default.
        chunk: Tokens to a fresh state.
        progress: Makes a bar that counts tokens.

    Returns:
        ``whole``: what :func:`sterna.runtime.evaluate.compare` measures. ``values``: for each result of a token in
        program order ``layer`` (None outside), ``quantity``, ``fractional_bits``; ``largest`` magnitude seen and
        ``rms`` (of the reference) in real units; ``headroom_bits``, the base-2 logarithm of what the format holds over
        the largest integer seen (None for the forget gate, whose format is its range); ``clamped`` results;
        ``sqnr_db``, the power of the reference over that of the difference, errors of earlier layers included;
        ``worst_error``, the largest difference. ``activations``: for the input of each projection the share
        ``flipped`` of 8-bit values that differ from the reference's, and the ``largest_step`` between two of them.
        Also ``model`` and ``reference``.

    Raises:
        SternaError: the model, the text or the reference cannot be used, or they are of different sizes.
    """
    with TracingGolden(path) as golden, TracingReference(reference or path, golden.stored.geometry) as yardstick:
        sums = _Sums(golden)
        whole = compare_runners(
            golden,
            yardstick,
            require(Tokenizer.open(path), path),
            text,
            max_tokens=max_tokens,
            chunk=chunk,
            progress=progress,
            label="quality",
            numbers=golden.numbers,
            observe=lambda read: sums.add(golden.values, yardstick.values, read),
        )
    return {
        "model": str(path),
        "reference": str(reference or path),
        "whole": {**whole, "device": GOLDEN, "chunk": chunk},
        "values": [total.result() for total in sums.values.values()],
        "activations": [total.result() for total in sums.activations.values()],
    }


class _Sums:
    """The sums of every value by name, made when a name is first seen."""

    def __init__(self, golden: TracingGolden) -> None:
        self._model = golden.stored
        self.values: dict[str, ValueSum] = {}
        self.activations: dict[str, ActivationSum] = {}

    def add(self, ours: Values, theirs: Values, read: npt.NDArray[np.bool_]) -> None:
        """Add a part; ``read`` [sequences, positions]."""
        for name, values in ours.results.items():
            if name not in self.values:
                place = Place.of(name)
                self.values[name] = ValueSum(place, fractional_bits(self._model, place))
            clamped = int(ours.clamped[name][read].sum()) if name in ours.clamped else 0
            self.values[name].add(values[read], theirs.results[name][read], clamped)
        for name, activations in ours.activations.items():
            total = self.activations.setdefault(name, ActivationSum(name))
            total.add(activations[read], theirs.activations[name][read])
