"""Sterna: ternary, MatMul-free language models, from checkpoint to RTL.

>>> import sterna
>>> with sterna.load("model.sterna", device="cpu") as session:  # doctest: +SKIP
...     for piece in session.generate("The sea was", tokens=32):
...         print(piece.text, end="")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sterna.runtime.load import load

    __version__: str

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # Both cost an import that most users of the submodules do not need.
    if name == "load":
        from sterna.runtime.load import load

        return load
    if name == "__version__":
        from importlib.metadata import version

        return version("sterna")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
