"""What the driver needs of a compiled model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sterna.spec.image import ImageTensor


class Image(Protocol):
    """What the driver needs of ``sterna.compiler.image.MemoryImage``; addresses and sizes in bytes."""

    @property
    def segments(self) -> Sequence[tuple[int, bytes]]:
        """Address and contents of each piece."""
        ...

    @property
    def tensors(self) -> Sequence[ImageTensor]:
        """What the pieces hold, with checksums."""
        ...

    @property
    def program_address(self) -> int:
        """Where the program starts."""
        ...

    @property
    def program_beats(self) -> int:
        """Its length in beats."""
        ...

    @property
    def prefix_beats(self) -> int:
        """Length in beats of the program without its head."""
        ...

    @property
    def embed_address(self) -> int:
        """Where the embedding table starts."""
        ...

    @property
    def embed_beats(self) -> int:
        """Beats of one row of it."""
        ...

    @property
    def logits_address(self) -> int:
        """Where the accelerator leaves the logits."""
        ...

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding table."""
        ...
