"""Time of a token on several engines, measured in turns so that what else the machine does hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from sterna.engines.engine import Engine
from sterna.errors import SternaError

_SEED = 0


def in_turns(
    engines: Sequence[Engine], *, tokens: int, repeats: int, progress: Callable[[int], object] = lambda tokens: None
) -> list[list[float]]:
    """Time ``repeats`` texts of ``tokens`` random ids on each engine.

    Every second repeat goes through the engines backwards, and one before the first is not counted. ``progress`` is
    called with the tokens of each text, between two of them.

    Returns:
        Seconds a token: for each engine an entry a repeat.

    Raises:
        SternaError: ``tokens`` or ``repeats`` is not positive.
    """
    for name, value in (("tokens", tokens), ("repeats", repeats)):
        if value < 1:
            raise SternaError(f"{name} must be a positive integer, not {value}")
    vocab = min(engine.geometry.vocab for engine in engines)
    ids = np.random.default_rng(_SEED).integers(0, vocab, tokens).tolist()
    seconds: list[list[float]] = [[] for _ in engines]
    order = range(len(engines))
    for repeat in range(-1, repeats):
        for index in order if repeat % 2 else reversed(order):
            taken = _text(engines[index], ids)
            if repeat >= 0:
                seconds[index].append(taken / tokens)
            progress(tokens)
    return seconds


def _text(engine: Engine, ids: list[int]) -> float:
    engine.reset()
    started = time.perf_counter()
    for token in ids:
        engine.step(token)
    return time.perf_counter() - started
