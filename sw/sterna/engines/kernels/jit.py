"""Compiles kernels with Numba and keeps the machine code for the next process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

from sterna.spec import numerics, packing

F = TypeVar("F", bound=Callable[..., Any])


def _cache_folder() -> str:
    """Where the code is kept: a folder named by all that is frozen into it.

    Numba looks only at a kernel's own file to see whether its code is stale; constants of the specification and
    kernels that were inlined from other files would go unnoticed.
    """
    sources = [Path(numerics.__file__), Path(packing.__file__), *sorted(Path(__file__).parent.glob("*.py"))]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    beside = Path(__file__).parent
    chosen = numba.config.CACHE_DIR
    folder = Path(chosen) if chosen else beside if os.access(beside, os.W_OK) else Path.home() / ".cache" / "sterna"
    return str(folder / "__pycache__" / digest)


_CACHE_FOLDER = _cache_folder()


def _compile(function: F, *, parallel: bool) -> F:
    chosen = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = _CACHE_FOLDER
    try:
        return cast(F, numba.njit(nogil=True, cache=True, parallel=parallel)(function))
    finally:
        numba.config.CACHE_DIR = chosen


def compiled(function: F) -> F:
    """A kernel of one thread, compiled at its first call."""
    return _compile(function, parallel=False)


def compiled_parallel(function: F) -> F:
    """A kernel that shares the turns of its ``numba.prange`` among threads."""
    return _compile(function, parallel=True)
