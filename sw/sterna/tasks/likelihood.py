"""Log likelihoods of continuations on any runner; a context that several of them follow is read once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sterna.runtime.chunks import LOGITS
from sterna.runtime.evaluate import log_likelihoods
from sterna.runtime.runners import FloatArray, IdArray, Runner, StateArray

_NOT_SCORED = -1

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Request:
    """Token ids; neither is empty."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """Natural logarithm of the probability of a continuation, and whether it is what greedy decoding gives."""

    log_likelihood: float
    greedy: bool


@dataclass(frozen=True)
class _Row:
    """Tokens to run, and the token to score after each."""

    request: int
    ids: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class _Question:
    """Rows that start with the state after ``prefix``."""

    prefix: tuple[int, ...]
    rows: tuple[_Row, ...]


class Plan:
    """What has to run for some requests.

    Args:
        requests: Those that share a context stand together.
        share: The runner's state can be read and set, so that a shared context is read once.
    """

    def __init__(self, requests: Sequence[Request], *, share: bool) -> None:
        self._questions = sorted(_questions(requests, share), key=lambda question: len(question.prefix))
        self._requests = len(requests)
        self.tokens = sum(len(q.prefix) + sum(len(row.ids) for row in q.rows) for q in self._questions)

    def run(self, runner: Runner, count: Callable[[int], object]) -> list[Score]:
        """The score of each request, in order; ``count`` is called with the tokens of each piece of work."""
        scores = [_Sum() for _ in range(self._requests)]
        for questions in _slices(self._questions, runner.batch):
            after = _run(runner, [question.prefix for question in questions], None, lambda *_: None, count)
            rows = [(column, row) for column, question in enumerate(questions) for row in question.rows]
            rows.sort(key=lambda item: len(item[1].ids))
            for part in _slices(rows, runner.batch):
                columns, running = zip(*part, strict=True)
                start = None if after is None else after[:, list(columns)]
                _run(runner, [row.ids for row in running], start, _adding(running, scores), count)
        return [score.result() for score in scores]


class _Sum:
    """Terms of one score."""

    def __init__(self) -> None:
        self._terms: list[float] = []
        self._greedy = True

    def add(self, logits: FloatArray, targets: IdArray) -> None:
        """Score targets [n] by logits [n, vocab]."""
        scored = targets != _NOT_SCORED
        logits, targets = logits[scored], targets[scored]
        self._terms.extend(log_likelihoods(logits, targets).tolist())
        self._greedy &= bool(np.all(logits.argmax(axis=-1) == targets))

    def result(self) -> Score:
        """The sum; exact, so that it does not depend on the pieces that a device runs."""
        return Score(math.fsum(self._terms), self._greedy)


_Use = Callable[[int, int, FloatArray], object]


def _adding(rows: Sequence[_Row], scores: Sequence[_Sum]) -> _Use:
    """What adds the logits of rows to the scores of their requests."""

    def use(index: int, position: int, logits: FloatArray) -> None:
        row = rows[index]
        scores[row.request].add(logits, np.array(row.targets[position : position + len(logits)]))

    return use


def _questions(requests: Sequence[Request], share: bool) -> Iterator[_Question]:
    if share:
        for context, group in itertools.groupby(enumerate(requests), key=lambda item: item[1].context):
            # Each row reads the context's last token itself, whose logits score its first one.
            rows = tuple(
                _Row(index, context[-1:] + request.continuation[:-1], request.continuation) for index, request in group
            )
            yield _Question(context[:-1], rows)
    else:
        for index, request in enumerate(requests):
            targets = (_NOT_SCORED,) * (len(request.context) - 1) + request.continuation
            yield _Question((), (_Row(index, request.context + request.continuation[:-1], targets),))


def _run(
    runner: Runner,
    rows: Sequence[Sequence[int]],
    start: StateArray | None,
    use: _Use,
    count: Callable[[int], object],
) -> StateArray | None:
    """Run rows, shortest first, side by side, each from its column of ``start`` (None: fresh).

    ``use`` gets the row, the position in it, and logits [n, vocab]. Returns the state after each row's last token, None
    if the runner does not tell it.
    """
    running = list(range(len(rows)))
    if start is None:
        runner.reset(len(rows))
    else:
        runner.resume(start)
    states, position = [], 0
    while running:
        stop = len(rows[running[0]])
        while position < stop:
            n = min(stop - position, max(1, LOGITS // (len(running) * runner.vocab)))
            logits = runner.run(np.array([rows[row][position : position + n] for row in running], np.int64))
            for row, values in zip(running, logits, strict=True):
                use(row, position, values)
            position += n
            count(n * len(running))
        ended = sum(len(rows[row]) == stop for row in running)
        running = running[ended:]
        state = runner.state
        if state is not None:
            states.append(state[:, :ended])
            if running:
                runner.resume(state[:, ended:])
    return np.concatenate(states, axis=1) if states else None


def _slices(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
