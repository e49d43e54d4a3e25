"""Likelihood of a text under a model, and how far two devices agree on it.

A text is cut into chunks that each start with a fresh state. The first token of a chunk is read and not scored; every
other token is scored by the logits before it. ``bits_per_byte`` divides the sum of the negative log likelihoods, in
bits, by the UTF-8 bytes that the scored tokens stand for (special tokens stand for none).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.progress import Progress, counting
from sterna.runtime.load import GOLDEN
from sterna.runtime.runners import REFERENCE, FloatArray, IdArray, open_runner
from sterna.runtime.text import open_text
from sterna.runtime.tokenizer import Tokenizer, check_ids, require

CHUNK = 512
MARGINS = (0.3, 0.1)  # of the reference's two largest logits, above which agreement is counted apart

LOGITS = 1 << 23  # logits held at a time
_CHARACTERS = 1 << 16  # of text read at first; doubled while they give too few tokens
_TAIL = 64  # tokens at the end of a partial read that the text after it might change

DoubleArray = npt.NDArray[np.float64]


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
        tokenizer = require(_tokenizer(path), path)
        chunks = _chunks(text, tokenizer, max_tokens=max_tokens, chunk=chunk, vocab=runner.vocab)
        score = _Score(tokenizer)
        with counting(progress, total=sum(map(len, chunks)), label=f"eval {device}", unit="token") as count:
            for batch in _batches(chunks, runner.batch):
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
        tokenizer = require(_tokenizer(path), path)
        chunks = _chunks(text, tokenizer, max_tokens=max_tokens, chunk=chunk, vocab=runner.vocab)
        ours, theirs, agreement = _Score(tokenizer), _Score(tokenizer), _Agreement()
        with counting(progress, total=sum(map(len, chunks)), label=f"compare {device}", unit="token") as count:
            for batch in _batches(chunks, runner.batch):
                runner.reset(len(batch.ids))
                yardstick.reset(len(batch.ids))
                for part in batch.parts(runner.vocab):
                    logits, expected = runner.run(part.ids), yardstick.run(part.ids)
                    ours.add(part, log_likelihoods(logits, part.targets))
                    theirs.add(part, log_likelihoods(expected, part.targets))
                    agreement.add(logits[part.read], expected[part.read])
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
        "device": device,
        "chunk": chunk,
    }


def _tokenizer(path: str | Path) -> Tokenizer | None:
    return Tokenizer.open(path)


# --- the text --------------------------------------------------------------------------------------------------------


def read_tokens(text: str | Path, tokenizer: Tokenizer, *, max_tokens: int | None = None) -> list[int]:
    """The first ``max_tokens`` (default: all) token ids of a UTF-8 text file, plain or ``.xz``.

    Raises:
        SternaError: the file is missing, empty, or not what its name says.
    """
    path = Path(text)
    if max_tokens is not None and max_tokens < 1:
        raise SternaError(f"max_tokens must be a positive integer, not {max_tokens!r}")
    with open_text(path) as file:
        content = file.read(-1 if max_tokens is None else _CHARACTERS)
        ids = tokenizer.encode(content)
        # Tokens near the end of a partial read can depend on what follows.
        while max_tokens is not None and len(ids) < max_tokens + _TAIL and (more := file.read(len(content))):
            content += more
            ids = tokenizer.encode(content)
    if not ids:
        raise SternaError(f"the text {path} is empty: there is nothing to score")
    return ids[:max_tokens]


def _chunks(
    text: str | Path, tokenizer: Tokenizer, *, max_tokens: int | None, chunk: int, vocab: int
) -> list[Sequence[int]]:
    if chunk < 2:
        raise SternaError(f"chunk must be at least 2 tokens, not {chunk!r}")
    ids = read_tokens(text, tokenizer, max_tokens=max_tokens)
    if len(ids) < 2:
        raise SternaError(f"the text {text} gives only one token: at least 2 are needed to score one")
    check_ids(ids, vocab)
    return [ids[start : start + chunk] for start in range(0, len(ids), chunk)]


@dataclass(frozen=True)
class _Part:
    """Consecutive positions of a batch of chunks, [batch, n]."""

    ids: IdArray
    targets: IdArray  # the token after each; -1 where there is none to score
    read: npt.NDArray[np.bool_]  # False beyond the end of a short chunk

    @property
    def positions(self) -> int:
        """Tokens of the text that are read."""
        return int(np.count_nonzero(self.read))


@dataclass(frozen=True)
class _Batch:
    """Chunks that run side by side, the shorter ones filled up; ids and targets [batch, time]."""

    ids: IdArray
    targets: IdArray
    read: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, chunks: Sequence[Sequence[int]]) -> _Batch:
        shape = len(chunks), max(map(len, chunks))
        ids, targets = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
        read = np.zeros(shape, np.bool_)
        for row, tokens in enumerate(chunks):
            ids[row, : len(tokens)] = tokens
            targets[row, : len(tokens) - 1] = tokens[1:]
            read[row, : len(tokens)] = True
        return cls(ids, targets, read)

    def parts(self, vocab: int) -> Iterator[_Part]:
        """The batch in parts whose logits are few enough to be held."""
        batch, time = self.ids.shape
        step = max(1, LOGITS // (batch * vocab))
        for start in range(0, time, step):
            cut = np.s_[:, start : start + step]
            yield _Part(self.ids[cut], self.targets[cut], self.read[cut])


def _batches(chunks: Sequence[Sequence[int]], size: int) -> Iterator[_Batch]:
    for start in range(0, len(chunks), size):
        yield _Batch.of(chunks[start : start + size])


# --- sums ------------------------------------------------------------------------------------------------------------


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

    def add(self, part: _Part, log_likelihoods: DoubleArray) -> None:
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
