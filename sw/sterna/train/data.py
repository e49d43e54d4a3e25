"""Text to token files, and token files to training windows and validation chunks.

A token file is a NumPy `.npy` of dtype uint16, shape [tokens]: documents one after the other, each followed by the
end-of-text id. It is memory-mapped, never read whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tokenizers import Tokenizer

from sterna.errors import SternaError
from sterna.runtime.text import open_text
from sterna.train.files import atomic
from sterna.train.tokenizer import END_OF_TEXT, check_pieces

__all__ = ["TokenWindows", "encode_file", "load_tokens", "read_documents", "sample_documents", "validation_chunks"]

_BATCH_CHARS = 4_000_000


def read_documents(path: str | Path) -> Iterator[str]:
    """Yield the documents of a UTF-8 text file (plain or `.xz`), split at lines that are exactly `<|endoftext|>`."""
    path = Path(path)
    lines: list[str] = []
    with open_text(path) as stream:
        for line in stream:
            if line.rstrip("\n") == END_OF_TEXT:
                document = "".join(lines).strip("\n")
                lines.clear()
                if document:
                    yield document
            else:
                lines.append(line)
    document = "".join(lines).strip("\n")
    if document:
        yield document


def sample_documents(paths: Sequence[str | Path], *, max_bytes: int) -> Iterator[str]:
    """Yield whole paragraphs spread evenly over all documents of `paths`, about `max_bytes` of UTF-8 in all."""
    total = sum(len(document) for path in paths for document in read_documents(path))
    stride = max(1, total // max(1, max_bytes))
    for path in paths:
        for document in read_documents(path):
            yield "\n".join(document.split("\n")[::stride])


def encode_file(
    path: str | Path, out: str | Path, *, tokenizer: Tokenizer, progress: Callable[[int], None] | None = None
) -> int:
    """Tokenise the text file `path` into the token file `out`; return the number of tokens.

    Each document is followed by the end-of-text id. `out` is written under a temporary name and renamed. `progress`
    is called with the number of UTF-8 bytes done since its last call.
    """
    end_id = tokenizer.token_to_id(END_OF_TEXT)
    if end_id is None:
        raise SternaError(f"the tokenizer has no {END_OF_TEXT} piece")
    check_pieces(tokenizer, source="the tokenizer")
    count = 0
    with atomic(Path(out)) as stream:
        _write_header(stream, 0)
        for batch in _batches(read_documents(path)):
            for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                stream.write(np.asarray([*encoding.ids, end_id], dtype=np.uint16).tobytes())
                count += len(encoding.ids) + 1
            if progress is not None:
                progress(sum(len(document.encode()) for document in batch))
        if not count:
            raise SternaError(f"{path} holds no text")
        stream.seek(0)
        _write_header(stream, count)
    return count


def _write_header(stream: BinaryIO, count: int) -> None:
    """Write the `.npy` header of uint16 [count]; its length does not depend on `count`."""
    values = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint16)), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(stream, values)


def _batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents in lists of about `_BATCH_CHARS` characters."""
    batch: list[str] = []
    chars = 0
    for document in documents:
        batch.append(document)
        chars += len(document)
        if chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def load_tokens(path: str | Path, *, vocab_size: int | None = None) -> np.ndarray:
    """Memory-map a token file: uint16, shape [tokens]. With `vocab_size`, ids beyond it are an error."""
    path = Path(path)
    if not path.is_file():
        raise SternaError(f"no token file at {path}")
    try:
        tokens: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise SternaError(f"{path} is not a token file: {error}") from error
    if tokens.dtype != np.uint16 or tokens.ndim != 1:
        raise SternaError(f"{path} holds {tokens.dtype}{list(tokens.shape)}, not uint16[tokens]")
    if vocab_size is not None and tokens.size and int(tokens.max()) >= vocab_size:
        raise SternaError(f"{path} holds token id {int(tokens.max())}, but the vocabulary has {vocab_size} pieces")
    return tokens


class TokenWindows:
    """Random contiguous windows over one or more token arrays.

    batch(step) depends on `seed` and `step` alone, so a resumed run draws what the uninterrupted run would have drawn.
    """

    def __init__(self, tokens: Sequence[np.ndarray], *, context: int, seed: int = 0) -> None:
        if context < 1:
            raise SternaError(f"context must be at least 1 token, not {context}")
        self._tokens = [part for part in tokens if part.size > context]
        if not self._tokens:
            longest = max((int(part.size) for part in tokens), default=0)
            raise SternaError(f"the training tokens ({longest}) are fewer than one window of context {context} + 1")
        self._context = context
        self._seed = seed
        starts = np.array([part.size - context for part in self._tokens], dtype=np.int64)
        self._ends = np.cumsum(starts)

    @property
    def sizes(self) -> list[int]:
        """Number of tokens in each array that holds a window."""
        return [int(part.size) for part in self._tokens]

    @property
    def tokens(self) -> int:
        """Number of tokens in all of them."""
        return sum(self.sizes)

    def batch(self, step: int, *, size: int, rows: slice = slice(None)) -> np.ndarray:
        """Return int64 [size, context + 1], or these `rows` of it: inputs are `[:, :-1]`, targets `[:, 1:]`."""
        rng = np.random.default_rng((self._seed, step))
        picks = rng.integers(0, int(self._ends[-1]), size=size)[rows]
        parts = np.searchsorted(self._ends, picks, side="right")
        out = np.empty((len(picks), self._context + 1), dtype=np.int64)
        for row, (pick, part) in enumerate(zip(picks, parts, strict=True)):
            start = int(pick - (self._ends[part - 1] if part else 0))
            out[row] = self._tokens[part][start : start + self._context + 1]
        return out


def validation_chunks(tokens: np.ndarray, *, context: int, limit: int | None = None) -> np.ndarray:
    """Cut `tokens` into chunks, int64 [chunks, context + 1], neighbours overlapping by one token.

    Every token but the first of the array is predicted exactly once; a last, incomplete chunk is dropped. `limit`
    bounds the number of chunks.
    """
    count = (tokens.size - 1) // context
    if count < 1:
        raise SternaError(f"{tokens.size} validation tokens do not fill one chunk of context {context} + 1")
    count = count if limit is None else min(count, limit)
    index = np.arange(count)[:, None] * context + np.arange(context + 1)[None, :]
    chunks: np.ndarray = tokens[index].astype(np.int64)
    return chunks
