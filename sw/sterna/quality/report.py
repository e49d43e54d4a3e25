"""What quantisation costs: one run of a text through the golden model and through the float32 reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.progress import Progress
from sterna.quality.statistics import ActivationSum, ChoiceSum, Place, ValueSum, fractional_bits
from sterna.quality.tracing import TracingGolden, TracingReference
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
    baseline: bool = True,
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
        baseline: Also run the reference in float64, to tell how much of a difference any rounding makes.
        progress: Makes a bar that counts tokens.

    Returns:
        ``whole``: what :func:`sterna.runtime.evaluate.compare` measures. ``values``: for each result of a token in
        program order ``layer`` (None outside), ``quantity``, ``fractional_bits``; ``largest`` magnitude seen and
        ``rms`` (of the reference) in real units; ``headroom_bits``, the base-2 logarithm of what the format holds over
        the largest integer seen (None for the forget gate, whose format is its range); ``clamped`` results;
        ``sqnr_db``, the power of the reference over that of the difference, errors of earlier layers included;
        ``worst_error``, the largest difference. ``activations``: for the input of each projection the share
        ``flipped`` of 8-bit values that differ from the reference's, and the ``largest_step`` between two of them.
        ``baseline_sqnr_db`` and ``baseline_flipped`` say the same of float64 against float32, as does
        ``baseline_top1_equal`` in ``whole``; None without a baseline. ``widest_flip`` is the largest margin (first
        less second logit of the reference) at which another token was chosen. Also ``model`` and ``reference``.

    Raises:
        SternaError: the model, the text or the reference cannot be used, or they are of different sizes.
    """
    golden = TracingGolden(path)
    yardstick = TracingReference(reference or path, golden.stored.geometry, exact=baseline)
    sums = _Sums(golden, yardstick)
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
        observe=sums.add,
    )
    return {
        "model": str(path),
        "reference": str(reference or path),
        "whole": {
            **whole,
            "widest_flip": sums.choices.widest,
            "baseline_top1_equal": sums.baseline.equal / whole["positions"] if baseline else None,
            "baseline_widest_flip": sums.baseline.widest if baseline else None,
            "device": GOLDEN,
            "chunk": chunk,
        },
        "values": [total.result() for total in sums.values.values()],
        "activations": [total.result() for total in sums.activations.values()],
    }


class _Sums:
    """The sums of every value by name, made when a name is first seen."""

    def __init__(self, golden: TracingGolden, yardstick: TracingReference) -> None:
        self._golden, self._yardstick = golden, yardstick
        self.values: dict[str, ValueSum] = {}
        self.activations: dict[str, ActivationSum] = {}
        self.choices, self.baseline = ChoiceSum(), ChoiceSum()

    def add(self, read: npt.NDArray[np.bool_]) -> None:
        """Add the part that both have just run; ``read`` [sequences, positions]."""
        ours, theirs, exact = self._golden.values, self._yardstick.values, self._yardstick.exact
        for name, values in ours.results.items():
            if name not in self.values:
                place = Place.of(name)
                self.values[name] = ValueSum(place, fractional_bits(self._golden.stored, place))
            clamped = int(ours.clamped[name][read].sum()) if name in ours.clamped else 0
            self.values[name].add(
                values[read], theirs.results[name][read], clamped, exact.results[name][read] if exact else None
            )
        for name, activations in ours.activations.items():
            self.activations.setdefault(name, ActivationSum(name)).add(
                activations[read], theirs.activations[name][read], exact.activations[name][read] if exact else None
            )
        expected = theirs.results["logits"][read]
        self.choices.add(expected, ours.results["logits"][read])
        if exact:
            self.baseline.add(expected, exact.results["logits"][read])
