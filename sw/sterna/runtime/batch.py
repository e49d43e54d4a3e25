"""Many prompts on one device: in the slots of an engine that has them, else one after the other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sterna.engines.engine import SlotEngine
from sterna.errors import SternaError
from sterna.runtime.scheduler import Scheduler
from sterna.runtime.session import Prompt, Session


@dataclass(frozen=True)
class Continued:
    """A prompt and what was generated after it; ``text`` is empty without a tokenizer."""

    prompt_ids: list[int]
    ids: list[int]
    text: str


@dataclass(frozen=True)
class Batch:
    """The results in the order of the prompts, and what they took.

    Attributes:
        results: One a prompt.
        read: Tokens that the engine has read, of all prompts and continuations.
        passes: Passes over the weights; as many as tokens where an engine has no slots.
        seconds: Time that it took for them.
        counters: What the engine counted, summed.
    """

    results: list[Continued]
    read: int
    passes: int
    seconds: float
    counters: Counter[str]


def continue_all(
    session: Session,
    prompts: Sequence[Prompt],
    *,
    tokens: int = 64,
    stop_at_eos: bool = True,
    progress: Callable[[int], object] | None = None,
) -> Batch:
    """Continue each prompt greedily, as a sequence of its own; forgets the session's sequence before and after.

    Args:
        session: A model on a device.
        prompts: Texts or token ids, none of them empty.
        tokens: How many to generate after each at most.
        stop_at_eos: End a sequence after the model's end-of-sequence id.
        progress: Called with the number of prompts each time some are done.

    Raises:
        SternaError: a prompt that cannot be read; nothing was run.
        DeviceError: the device failed.
    """
    ids = [_ids(session, number, prompt) for number, prompt in enumerate(prompts)]
    stop = session.eos_id if stop_at_eos else None
    session.reset()
    try:
        if isinstance(session.engine, SlotEngine):
            return _together(session, session.engine, ids, tokens, stop, progress)
        return _in_turn(session, ids, tokens, stop_at_eos, progress)
    finally:
        session.reset()


def _together(
    session: Session,
    engine: SlotEngine,
    prompts: list[list[int]],
    tokens: int,
    stop: int | None,
    progress: Callable[[int], object] | None,
) -> Batch:
    """All of them through the scheduler."""
    scheduler = Scheduler(engine)
    continuations = [scheduler.submit(prompt, tokens=tokens, stop=stop) for prompt in prompts]
    began, done = time.perf_counter(), 0
    while not all(continuation.done for continuation in continuations):
        scheduler.step()
        now = sum(continuation.done for continuation in continuations)
        if progress and now > done:
            progress(now - done)
        done = now
    seconds = time.perf_counter() - began
    results = [Continued(list(c.prompt), c.ids, _text(session, c.ids)) for c in continuations]
    return Batch(results, scheduler.read, scheduler.passes, seconds, scheduler.counters)


def _in_turn(
    session: Session, prompts: list[list[int]], tokens: int, stop_at_eos: bool, progress: Callable[[int], object] | None
) -> Batch:
    """One after the other."""
    results, read, seconds, counters = [], 0, 0.0, Counter[str]()
    for prompt in prompts:
        session.reset()
        made = session.generate(prompt, tokens=tokens, stop_at_eos=stop_at_eos).run()
        results.append(Continued(prompt, made.ids, made.text))
        read, seconds = read + made.steps, seconds + made.seconds
        counters.update(made.counters)
        if progress:
            progress(1)
    return Batch(results, read, read, seconds, counters)


def _ids(session: Session, number: int, prompt: Prompt) -> list[int]:
    ids = session.encode(prompt)
    if not ids:
        raise SternaError(f"prompt {number + 1} is empty: give each at least one token")
    return ids


def _text(session: Session, ids: list[int]) -> str:
    if session.tokenizer is None:
        return ""
    stream = session.tokenizer.stream()
    return "".join(stream.push(token) for token in ids)
