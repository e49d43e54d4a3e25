"""Byte-level BPE tokenizers: training, loading and saving.

Every tokenizer made here has the 256 byte pieces, so any text can be encoded and decoded without loss, and one special
piece, `<|endoftext|>`, with id 0. It ends a document and doubles as begin- and end-of-sequence id of the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sterna.errors import SternaError
from sterna.train.files import write_text

__all__ = ["END_OF_TEXT", "END_OF_TEXT_ID", "check_pieces", "load_tokenizer", "save_tokenizer", "train_tokenizer"]

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
_MIN_VOCAB = 256 + 1
_MAX_VOCAB = 1 << 16  # ids are stored as uint16


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE on `texts` (documents, without the end-of-text piece).

    `vocab_size` counts the 256 bytes and the special piece; it must lie in 257..65536. A very small corpus can give
    fewer pieces than asked for; the tokenizer's own `get_vocab_size()` is what the model must use.
    """
    if not _MIN_VOCAB <= vocab_size <= _MAX_VOCAB:
        raise SternaError(f"vocab_size must be in {_MIN_VOCAB}..{_MAX_VOCAB} for a byte-level BPE, not {vocab_size}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    if tokenizer.token_to_id(END_OF_TEXT) != END_OF_TEXT_ID:
        raise SternaError(f"the trained tokenizer does not give {END_OF_TEXT} the id {END_OF_TEXT_ID}")
    return tokenizer


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load `tokenizer.json` (or the one in the directory `path`) and check that ids fit uint16."""
    path = Path(path)
    if path.is_dir():
        path = path / "tokenizer.json"
    if not path.is_file():
        raise SternaError(f"no tokenizer at {path}")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise SternaError(f"{path} is not a tokenizer.json: {error}") from error
    check_pieces(tokenizer, source=str(path))
    return tokenizer


def check_pieces(tokenizer: Tokenizer, *, source: str) -> None:
    """Refuse a tokenizer whose ids do not fit the uint16 of token files."""
    if tokenizer.get_vocab_size() > _MAX_VOCAB:
        raise SternaError(f"{source} has {tokenizer.get_vocab_size()} pieces, more than the {_MAX_VOCAB} of uint16 ids")


def save_tokenizer(tokenizer: Tokenizer, directory: str | Path) -> Path:
    """Write `tokenizer.json` into `directory` and return its path."""
    path = Path(directory) / "tokenizer.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, tokenizer.to_str(pretty=True))  # as its own save() does, but never half
    return path
