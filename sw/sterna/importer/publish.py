"""Writing a directory so that it appears under its name whole or not at all, and disk errors as sentences."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sterna.errors import SternaError


@contextmanager
def temporary(target: Path) -> Iterator[Path]:
    """A new directory beside ``target``, removed on the way out unless it was renamed.

    Directories that killed processes left for the same target are removed first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    directory = target.parent / f".{target.name}.{secrets.token_hex(4)}.partial"
    directory.mkdir()
    lock = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # where the file system has no locks, no other process can take one to sweep
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield directory
    finally:
        os.close(lock)
        shutil.rmtree(directory, ignore_errors=True)


def _sweep(target: Path) -> None:
    """Remove what killed processes left for ``target``; one at work holds a lock, which ends with the process."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.partial")
    for directory in [path for path in target.parent.iterdir() if name.fullmatch(path.name)]:
        with suppress(OSError):
            lock = os.open(directory, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)


def publish(directory: Path, target: Path) -> None:
    """Give the complete ``directory`` its final name; a model that was there survives until then."""
    if not target.exists():
        directory.rename(target)
        return
    old = directory.with_suffix(".old")
    target.rename(old)
    try:
        directory.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn errors of the operating system into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            place = os.fspath(target.parent)
            raise SternaError(f"the disk that holds {place} is full; free some space and import again") from error
        name = f" ({Path(error.filename).name})" if isinstance(error.filename, str) else ""
        raise SternaError(f"{target} cannot be written: {error.strerror or error}{name}") from error
