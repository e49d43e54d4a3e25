"""A text as token ids in chunks that each start with a fresh state, and batches of them that run side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.runtime.runners import IdArray
from sterna.runtime.text import open_text
from sterna.runtime.tokenizer import Tokenizer, check_ids

LOGITS = 1 << 23  # logits held at a time

_CHARACTERS = 1 << 16  # of text read at first; doubled while they give too few tokens
_TAIL = 64  # tokens at the end of a partial read that the text after it might change


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


def read_chunks(
    text: str | Path, tokenizer: Tokenizer, *, max_tokens: int | None, chunk: int, vocab: int
) -> list[Sequence[int]]:
    """The tokens of a text, ``chunk`` at a time.

    Raises:
        SternaError: the text cannot be used, or ``chunk`` is too small to score anything.
    """
    if chunk < 2:
        raise SternaError(f"chunk must be at least 2 tokens, not {chunk!r}")
    ids = read_tokens(text, tokenizer, max_tokens=max_tokens)
    if len(ids) < 2:
        raise SternaError(f"the text {text} gives only one token: at least 2 are needed to score one")
    check_ids(ids, vocab)
    return [ids[start : start + chunk] for start in range(0, len(ids), chunk)]


@dataclass(frozen=True)
class Part:
    """Consecutive positions of a batch of chunks, [batch, n]."""

    ids: IdArray
    targets: IdArray  # the token after each; -1 where there is none to score
    read: npt.NDArray[np.bool_]  # False beyond the end of a short chunk

    @property
    def positions(self) -> int:
        """Tokens of the text that are read."""
        return int(np.count_nonzero(self.read))


@dataclass(frozen=True)
class Batch:
    """Chunks that run side by side, the shorter ones filled up; ids and targets [batch, time]."""

    ids: IdArray
    targets: IdArray
    read: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, chunks: Sequence[Sequence[int]]) -> Batch:
        """The batch of some chunks."""
        shape = len(chunks), max(map(len, chunks))
        ids, targets = np.zeros(shape, np.int64), np.full(shape, -1, np.int64)
        read = np.zeros(shape, np.bool_)
        for row, tokens in enumerate(chunks):
            ids[row, : len(tokens)] = tokens
            targets[row, : len(tokens) - 1] = tokens[1:]
            read[row, : len(tokens)] = True
        return cls(ids, targets, read)

    def parts(self, numbers: int) -> Iterator[Part]:
        """The batch in parts that can be held in memory; a position holds so many ``numbers``, its logits at least."""
        batch, time = self.ids.shape
        step = max(1, LOGITS // (batch * numbers))
        for start in range(0, time, step):
            cut = np.s_[:, start : start + step]
            yield Part(self.ids[cut], self.targets[cut], self.read[cut])


def batches(chunks: Sequence[Sequence[int]], size: int) -> Iterator[Batch]:
    """``size`` chunks at a time."""
    for start in range(0, len(chunks), size):
        yield Batch.of(chunks[start : start + size])
