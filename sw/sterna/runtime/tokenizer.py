"""Text to token ids and back, for ``tokenizer.json`` and for SentencePiece's ``tokenizer.model``."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sterna.errors import SternaError

if TYPE_CHECKING:
    import tokenizers

JSON_FILE, SENTENCEPIECE_FILE = "tokenizer.json", "tokenizer.model"
CONFIG_FILE = "tokenizer_config.json"
_SPACE = "\u2581"  # what SentencePiece writes for a space


class _Backend(Protocol):
    def encode(self, text: str, *, start: bool) -> list[int]: ...
    def decode(self, ids: list[int]) -> str: ...
    def token_bytes(self, token: int) -> bytes: ...


class Tokenizer:
    """The tokenizer that was stored with a model."""

    def __init__(self, backend: _Backend) -> None:
        self._backend = backend

    @classmethod
    def open(cls, directory: str | Path, *, bos_id: int | None = None) -> Tokenizer | None:
        """Read ``tokenizer.json``, else ``tokenizer.model``, of a model directory; None if it has neither.

        ``bos_id`` is the model's begin-of-sequence id, which a ``tokenizer.model`` may put at the start of a text.

        Raises:
            SternaError: the file cannot be read as what its name says.
        """
        directory = Path(directory)
        path = directory / JSON_FILE
        if path.is_file():
            return cls(_HuggingFace.read(path))
        path = directory / SENTENCEPIECE_FILE
        if path.is_file():
            return cls(_SentencePiece(path, bos_id))
        return None

    @classmethod
    def of(cls, tokenizer: tokenizers.Tokenizer) -> Tokenizer:
        """Take over a tokenizer of the library, as the trainer makes them."""
        return cls(_HuggingFace(tokenizer))

    def encode(self, text: str, *, start: bool = False) -> list[int]:
        """Token ids of ``text``; at the ``start`` of a sequence with what the tokenizer puts there (often a bos id).

        Raises:
            SternaError: the text has a lone surrogate, as a command line that is not UTF-8 gives.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise SternaError(f"the text is not UTF-8 at character {error.start}: {text[:80]!a}") from None
        return self._backend.encode(text, start=start)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids`` without special tokens; bytes that are not UTF-8 become U+FFFD."""
        return self._backend.decode([int(token) for token in ids])

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes, perhaps a part of a character, that a token stands for; none for special or unknown ids."""
        return self._backend.token_bytes(int(token))

    def stream(self) -> TextStream:
        """A decoder that takes token after token."""
        return TextStream(self)


class TextStream:
    """Text of tokens that come one by one. A character is given out when its last byte has come, never in parts.

    Bytes that cannot become a character are given out as U+FFFD as soon as that is certain.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that became complete with ``token``; may be empty."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))


def _byte_alphabet() -> dict[str, int]:
    """Character to byte of byte-level BPE: printable Latin-1 stands for itself, other bytes follow from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def _spaced_bytes(piece: str) -> bytes:
    """Bytes of a SentencePiece piece; <0x0A> is one byte."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(_SPACE, " ").encode()


class _HuggingFace:
    """``tokenizer.json``: byte-level BPE, SentencePiece-like pieces, or plain words joined by spaces."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        kinds = _decoder_types(json.loads(tokenizer.to_str()).get("decoder"))
        self._alphabet = _byte_alphabet() if "ByteLevel" in kinds else None
        self._words = not kinds  # without a decoder the library joins pieces by spaces
        self._added = self._tokenizer.get_added_tokens_decoder()

    @classmethod
    def read(cls, path: Path) -> _HuggingFace:
        import tokenizers

        try:
            return cls(tokenizers.Tokenizer.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise SternaError(f"{path} cannot be read as a tokenizer: {error}") from error

    def encode(self, text: str, *, start: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=start).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def token_bytes(self, token: int) -> bytes:
        if token in self._added:
            added = self._added[token]
            return b"" if added.special else str(added.content).encode()
        piece: str | None = self._tokenizer.id_to_token(token)
        if piece is None:
            return b""
        if self._alphabet is not None:
            return bytes(self._alphabet[character] for character in piece if character in self._alphabet)
        return f" {piece}".encode() if self._words else _spaced_bytes(piece)


def _decoder_types(decoder: Any) -> set[str]:
    if not decoder:
        return set()
    return {decoder["type"]} | {kind for part in decoder.get("decoders", ()) for kind in _decoder_types(part)}


class _SentencePiece:
    """``tokenizer.model``; a sequence starts with the bos id unless ``tokenizer_config.json`` says it does not."""

    def __init__(self, path: Path, bos_id: int | None) -> None:
        import sentencepiece

        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError) as error:
            raise SternaError(f"{path} cannot be read as a SentencePiece model: {error}") from error
        self._prefix = [] if bos_id is None or not _adds_bos(path.with_name(CONFIG_FILE)) else [bos_id]

    def encode(self, text: str, *, start: bool) -> list[int]:
        ids: list[int] = self._model.encode(text)
        return self._prefix + ids if start else ids

    def decode(self, ids: list[int]) -> str:
        text: str = self._model.decode([token for token in ids if token < self._model.vocab_size()])
        return text

    def token_bytes(self, token: int) -> bytes:
        model = self._model
        if not 0 <= token < model.vocab_size() or model.is_control(token):
            return b""
        return " \u2047 ".encode() if model.is_unknown(token) else _spaced_bytes(model.id_to_piece(token))


def _adds_bos(config: Path) -> bool:
    try:
        return bool(json.loads(config.read_text(encoding="utf-8")).get("add_bos_token", True))
    except (OSError, ValueError, AttributeError):
        return True


def require(tokenizer: Tokenizer | None, path: str | Path) -> Tokenizer:
    """The tokenizer, or a clear error if the model at ``path`` has none."""
    if tokenizer is None:
        raise SternaError(
            f"{path} has no tokenizer ({JSON_FILE} or {SENTENCEPIECE_FILE}): use token ids, "
            "or put the file beside the checkpoint and import it again"
        )
    return tokenizer


def check_ids(ids: Sequence[int], vocab: int) -> None:
    """Raise unless every id is inside the vocabulary."""
    for token in ids:
        if not 0 <= token < vocab:
            raise SternaError(f"token id {token} is outside the model's vocabulary of {vocab}")
