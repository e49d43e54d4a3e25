"""Likelihood of a text under a model, and how far two devices agree on it.

A text is cut into chunks that each start with a fresh state. The first token of a chunk is read and not scored; every
other token is scored by the logits before it. ``bits_per_byte`` divides the sum of the negative log likelihoods, in
bits, by the UTF-8 bytes that the scored tokens stand for (special tokens stand for none).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.progress import Progress, counting
from sterna.runtime.chunks import Part, batches, read_chunks
from sterna.runtime.load import GOLDEN
from sterna.runtime.runners import REFERENCE, FloatArray, Forward, IdArray, open_runner
from sterna.runtime.tokenizer import Tokenizer, require

CHUNK = 512
MARGINS = (0.3, 0.1)  # of the reference's two largest logits, above which agreement is counted apart

DoubleArray = npt.NDArray[np.float64]
Observe = Callable[[npt.NDArray[np.bool_]], object]


def evaluate(
    path: str | Path,
    text: str | Path,
    *,
    device: str = GOLDEN,
    max_tokens: int | None = None,
    chunk: int = CHUNK,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score a text.

    Args:
        path: A stored model; for the device "reference" also a Hugging Face checkpoint directory.
        text: A UTF-8 text file, plain or ``.xz``.
        device: Any device of :func:`sterna.load`, or "reference" for float32 in PyTorch.
        max_tokens: Tokens to read from the start of the text; all by default.
        chunk: Tokens to a chunk.
        progress: Makes a bar that counts tokens.
        options: Passed to :func:`sterna.load`.

    Returns:
        ``tokens`` (scored), ``nll`` (mean nats a token), ``perplexity``, ``bits_per_byte``, ``bytes`` (of the scored
        tokens), ``positions`` (tokens read), ``device``, ``chunk``.

    Raises:
        SternaError: the model, the text or the device cannot be used.
    """
    with open_runner(path, device, options) as runner:
        tokenizer = require(Tokenizer.open(path), path)
        chunks = read_chunks(text, tokenizer, max_tokens=max_tokens, chunk=chunk, vocab=runner.vocab)
        score = _Score(tokenizer)
        with counting(progress, total=sum(map(len, chunks)), label=f"eval {device}", unit="token") as count:
            for batch in batches(chunks, runner.batch):
                runner.reset(len(batch.ids))
                for part in batch.parts(runner.vocab):
                    score.add(part, log_likelihoods(runner.run(part.ids), part.targets))
                    count(part.positions)
    return {**score.result(), "positions": sum(map(len, chunks)), "device": device, "chunk": chunk}


def compare(
    path: str | Path,
    text: str | Path,
    *,
    device: str = GOLDEN,
    reference: str | Path | None = None,
    max_tokens: int | None = None,
    chunk: int = CHUNK,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score a text with a device and with the float32 reference, position by position.

    Args:
        path: A stored model.
        text: A UTF-8 text file, plain or ``.xz``.
        device: Any device of :func:`sterna.load`.
        reference: What the reference is made from: the stored model itself (default), or the checkpoint directory
            that it was imported from.
        max_tokens: Tokens to read from the start of the text; all by default.
        chunk: Tokens to a chunk.
        progress: Makes a bar that counts tokens.
        options: Passed to :func:`sterna.load`.

    Returns:
        What :func:`evaluate` returns for the device, the same with the prefix ``reference_`` for the reference, and
        over all positions read: ``perplexity_change_percent``, ``cosine_mean`` and ``cosine_min`` of the logits,
        ``top1_equal`` (share of positions where both have the same largest logit), and for the positions whose
        reference margin (largest minus second logit) is above 0.3 ``top1_equal_margin_0_3`` (None if there are none)
        and ``positions_margin_0_3``; likewise ``_0_1``.

    Raises:
        SternaError: the model, the text or the device cannot be used.
    """
    if device == REFERENCE:
        raise SternaError(f"nothing to compare: choose a device other than {REFERENCE!r}")
    with open_runner(path, device, options) as runner, open_runner(reference or path, REFERENCE, {}) as yardstick:
        if runner.vocab != yardstick.vocab:
            raise SternaError(
                f"{reference} has a vocabulary of {yardstick.vocab}, {path} of {runner.vocab}: not one model"
            )
        tokenizer = require(Tokenizer.open(path), path)
        result = compare_runners(
            runner,
            yardstick,
            tokenizer,
            text,
            max_tokens=max_tokens,
            chunk=chunk,
            progress=progress,
            label=f"compare {device}",
        )
    return {**result, "device": device, "chunk": chunk}


def compare_runners(
    runner: Forward,
    yardstick: Forward,
    tokenizer: Tokenizer,
    text: str | Path,
    *,
    max_tokens: int | None,
    chunk: int,
    progress: Progress | None,
    label: str,
    numbers: int | None = None,
    observe: Observe = lambda read: None,
) -> dict[str, Any]:
    """What :func:`compare` does, with runners that are open and of one vocabulary.

    ``numbers`` is what the runners hold for a position, by default its logits. ``observe`` is called after each part
    that both have run, with a mask [sequences, n] that is False where the part goes beyond the text.
    """
    chunks = read_chunks(text, tokenizer, max_tokens=max_tokens, chunk=chunk, vocab=runner.vocab)
    ours, theirs, agreement = _Score(tokenizer), _Score(tokenizer), _Agreement()
    with counting(progress, total=sum(map(len, chunks)), label=label, unit="token") as count:
        for batch in batches(chunks, runner.batch):
            runner.reset(len(batch.ids))
            yardstick.reset(len(batch.ids))
            for part in batch.parts(numbers or runner.vocab):
                logits, expected = runner.run(part.ids), yardstick.run(part.ids)
                ours.add(part, log_likelihoods(logits, part.targets))
                theirs.add(part, log_likelihoods(expected, part.targets))
                agreement.add(logits[part.read], expected[part.read])
                observe(part.read)
                count(part.positions)
    result, expectation = ours.result(), theirs.result()
    for key in ("nll", "perplexity", "bits_per_byte"):
        result[f"reference_{key}"] = expectation[key]
    change = 100 * math.expm1(result["nll"] - expectation["nll"])
    return {
        **result,
        "perplexity_change_percent": change,
        **agreement.result(),
        "positions": sum(map(len, chunks)),
    }


def log_likelihoods(logits: FloatArray, targets: IdArray) -> DoubleArray:
    """Natural logarithms of the probabilities of the targets, [batch, n]; 0 where the target is -1."""
    values = logits.astype(np.float64)
    chosen = np.take_along_axis(values, np.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    largest = values.max(axis=-1)
    values -= largest[..., None]
    np.exp(values, out=values)
    return np.where(targets < 0, 0.0, chosen - largest - np.log(values.sum(axis=-1)))


class _Score:
    """Sums over the scored tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._nats, self._tokens, self._bytes = 0.0, 0, 0

    def add(self, part: Part, log_likelihoods: DoubleArray) -> None:
        scored = part.targets[part.targets >= 0]
        self._nats -= float(log_likelihoods.sum())
        self._tokens += scored.size
        self._bytes += sum(len(self._tokenizer.token_bytes(token)) for token in scored.tolist())

    def result(self) -> dict[str, Any]:
        mean = self._nats / self._tokens
        return {
            "tokens": self._tokens,
            "nll": mean,
            "perplexity": math.exp(mean) if mean < 700 else math.inf,
            "bits_per_byte": self._nats / math.log(2) / self._bytes if self._bytes else None,
            "bytes": self._bytes,
        }


@dataclass
class _Agreement:
    """Greedy agreement and cosine over positions."""

    positions: int = 0
    equal: int = 0
    cosine: float = 0.0
    cosine_min: float = math.inf
    above: dict[float, list[int]] = field(default_factory=lambda: {margin: [0, 0] for margin in MARGINS})

    def add(self, logits: FloatArray, expected: FloatArray) -> None:
        """Count positions: both arrays [positions, vocab]."""
        if not len(logits):
            return
        equal = logits.argmax(axis=-1) == expected.argmax(axis=-1)
        two = np.partition(expected, -2, axis=-1)[:, -2:] if expected.shape[-1] > 1 else np.zeros((len(expected), 2))
        margin = two[:, 1] - two[:, 0]
        a, b = logits.astype(np.float64), expected.astype(np.float64)
        norms = np.sqrt(np.sum(a * a, axis=-1) * np.sum(b * b, axis=-1))
        cosine = np.sum(a * b, axis=-1) / np.where(norms == 0, 1, norms)
        self.positions += len(equal)
        self.equal += int(np.count_nonzero(equal))
        self.cosine += float(cosine.sum())
        self.cosine_min = min(self.cosine_min, float(cosine.min()))
        for bound, counts in self.above.items():
            counts[0] += int(np.count_nonzero(margin > bound))
            counts[1] += int(np.count_nonzero(equal & (margin > bound)))

    def result(self) -> dict[str, Any]:
        """The shares, by the names that :func:`compare` documents."""
        result: dict[str, Any] = {"top1_equal": self.equal / self.positions}
        for bound, (positions, equal) in self.above.items():
            suffix = f"margin_{bound:g}".replace(".", "_")
            result[f"top1_equal_{suffix}"] = equal / positions if positions else None
            result[f"positions_{suffix}"] = positions
        return {**result, "cosine_mean": self.cosine / self.positions, "cosine_min": self.cosine_min}
