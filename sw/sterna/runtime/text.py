"""Text files."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from sterna.errors import SternaError


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a UTF-8 text file, plain or ``.xz``, for reading.

    Raises:
        SternaError: the file cannot be read, or is not what its name says; also while the block reads.
    """
    try:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open(encoding="utf-8") as file:
            try:
                yield file
            except UnicodeDecodeError as error:
                end = file.buffer.tell()  # type: ignore[attr-defined]  # of the piece that was decoded
                at = end - len(error.object) + error.start
                raise SternaError(f"the text {path} is not UTF-8 at byte {at}: convert it") from error
    except OSError as error:
        raise SternaError(f"the text {path} cannot be read: {error.strerror or error}") from error
    except (lzma.LZMAError, EOFError) as error:
        raise SternaError(f"{path} is not an .xz file, or truncated: {error}") from error
