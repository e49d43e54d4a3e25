"""A model on a device, ready to read and write text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from sterna.engines.engine import BatchedEngine, Engine, Step
from sterna.errors import SternaError
from sterna.model.geometry import Geometry
from sterna.runtime.tokenizer import TextStream, Tokenizer, check_ids, require
from sterna.spec.numerics import LOGIT_FRAC

Prompt = str | Sequence[int] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class Piece:
    """A generated token: its id, and the text that became complete with it (empty without a tokenizer)."""

    id: int
    text: str


class Generation(Iterator[Piece]):
    """A running generation: iterating makes the tokens one by one, and the attributes tell what was made so far.

    Attributes:
        prompt_ids: Token ids that are read first, with a generated id that was still to be read.
        ids: Generated token ids.
        text: Their text.
        steps: Tokens that the engine has run.
        seconds: Time that it took for them.
        counters: What the engine counted, summed over the steps.
        pieces: What iterating draws from.
    """

    def __init__(self, prompt_ids: list[int]) -> None:
        self.prompt_ids = prompt_ids
        self.ids: list[int] = []
        self.text = ""
        self.steps = 0
        self.seconds = 0.0
        self.counters: Counter[str] = Counter()
        self.pieces: Iterator[Piece] = iter(())

    def __next__(self) -> Piece:
        return next(self.pieces)

    def run(self) -> Self:
        """Make all tokens that are left, and return this object."""
        for _ in self:
            pass
        return self

    def count(self, step: Step, seconds: float, tokens: int) -> None:
        """Add a step of so many tokens to the sums."""
        self.steps += tokens
        self.seconds += seconds
        self.counters.update(step.counters)


class Session:
    """A model with its recurrent state on an engine; made by :func:`sterna.load`.

    The state is carried from call to call until :meth:`reset`: generating 10 tokens and then 10 more gives the same as
    generating 20. The last token that was generated has not been read by the model yet; the next call reads it first.
    Not safe for use from two threads at once.

    Args:
        engine: Runs the tokens; closed with the session.
        tokenizer: None for a model without one, which then takes and gives ids only.
        bos_id: Id that starts an empty prompt, if any.
        eos_id: Id that ends a generation, if any.
        path: Where the model came from, for messages.
    """

    def __init__(
        self, engine: Engine, tokenizer: Tokenizer | None, *, bos_id: int | None, eos_id: int | None, path: str | Path
    ) -> None:
        self._engine: Engine | None = engine
        self._tokenizer, self._bos_id, self._eos_id, self._path = tokenizer, bos_id, eos_id, path
        self._call = 0  # number of the latest call; an earlier generation must not go on
        self._restart()

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            SternaError: the session is closed.
        """
        if self._engine is None:
            raise SternaError("the session is closed: load the model again")
        return self._engine

    @property
    def geometry(self) -> Geometry:
        """Sizes of the model."""
        return self.engine.geometry

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer, None if it has none."""
        return self._tokenizer

    @property
    def eos_id(self) -> int | None:
        """Id that ends a generation, if any."""
        return self._eos_id

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt as the beginning of a sequence.

        Raises:
            SternaError: text without a tokenizer, or an id outside the vocabulary.
        """
        if isinstance(prompt, str):
            return require(self._tokenizer, self._path).encode(prompt, start=True)
        ids = [int(token) for token in prompt]
        check_ids(ids, self.geometry.vocab)
        return ids

    def generate(
        self,
        prompt: Prompt = "",
        *,
        tokens: int = 64,
        stop_at_eos: bool = True,
        progress: Callable[[int], object] | None = None,
    ) -> Generation:
        """Continue the sequence greedily.

        Args:
            prompt: Text or token ids to read first; empty continues where the last call ended, and starts a fresh
                sequence with the bos id.
            tokens: How many to generate at most.
            stop_at_eos: End after the model's end-of-sequence id.
            progress: Called with the number of tokens each time the engine ran some, prompt included.

        Returns:
            An iterator of pieces that also holds the result. Nothing runs before it is iterated, and it ends when
            another call on the session begins.

        Raises:
            SternaError: a text prompt without a tokenizer, an id outside the vocabulary, nothing to start from.
        """
        if tokens < 1:
            raise SternaError(f"tokens must be a positive integer, not {tokens!r}")
        ids = self._begin(prompt)
        if not ids:
            if self._bos_id is None:
                raise SternaError("the prompt is empty and the model has no begin-of-sequence id: give a prompt")
            ids = [self._bos_id]
        generation = Generation(ids)
        generation.pieces = self._run(generation, self._call, tokens, self._eos_id if stop_at_eos else None, progress)
        return generation

    def forward(self, token_ids: Prompt) -> npt.NDArray[np.float32]:
        """Read tokens and return the logits after each: float32 [T, vocab], exact."""
        return np.ldexp(self.forward_integers(token_ids).astype(np.float32), -LOGIT_FRAC)

    def forward_integers(self, token_ids: Prompt) -> npt.NDArray[np.int32]:
        """Read tokens and return the logits after each: int32 [T, vocab], 14 fractional bits.

        Raises:
            SternaError: text without a tokenizer, or an id outside the vocabulary.
        """
        pending = self._pending
        ids = self._begin(token_ids)
        if pending is not None:
            self._feed(ids.pop(0))
        logits = np.empty((len(ids), self.geometry.vocab), np.int32)
        for index, token in enumerate(ids):
            values = self._feed(token, logits=True).logits
            assert values is not None  # the contract of Engine
            logits[index] = values
        return logits

    def reset(self) -> None:
        """Forget the sequence; also what makes a session usable again after a device error."""
        self.engine.reset()
        self._restart()
        self._call += 1

    def close(self) -> None:
        """Let go of the device. Closing again does nothing."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _restart(self) -> None:
        self._fresh = True  # nothing was read
        self._pending: int | None = None  # generated and not read yet
        self._stream: TextStream | None = self._tokenizer.stream() if self._tokenizer else None

    def _begin(self, prompt: Prompt) -> list[int]:
        """Ids to read, the pending one first; ends an earlier generation."""
        if isinstance(prompt, str):
            # An empty text is no reason to ask for a tokenizer.
            tokenizer = require(self._tokenizer, self._path) if prompt else self._tokenizer
            ids = tokenizer.encode(prompt, start=self._fresh) if tokenizer and (prompt or self._fresh) else []
        else:
            ids = [int(token) for token in prompt]
        check_ids(ids, self.geometry.vocab)
        if ids and self._tokenizer:
            self._stream = self._tokenizer.stream()
        if self._pending is not None:
            ids.insert(0, self._pending)
        self._call += 1
        return ids

    def _feed(self, token: int, *, logits: bool = False) -> Step:
        step = self.engine.step(token, logits=logits)
        self._fresh, self._pending = False, None
        return step

    def _read(self, tokens: list[int], progress: Callable[[int], object] | None) -> Step:
        """Feed several tokens at once to an engine that can, or else the only one."""
        if len(tokens) > 1:
            assert isinstance(self.engine, BatchedEngine)
            step = self.engine.prefill(tokens, progress=progress)
            self._fresh, self._pending = False, None
            return step
        step = self._feed(tokens[0])
        if progress:
            progress(1)
        return step

    def _run(
        self,
        generation: Generation,
        call: int,
        tokens: int,
        stop: int | None,
        progress: Callable[[int], object] | None,
    ) -> Iterator[Piece]:
        """Read the prompt and yield the tokens that follow."""
        to_read = generation.prompt_ids
        while len(generation.ids) < tokens:
            batched = isinstance(self.engine, BatchedEngine)
            for part in [to_read] if batched else [[token] for token in to_read]:
                if self._call != call:
                    raise SternaError("a later call on the session has ended this generation")
                began = time.perf_counter()
                step = self._read(part, progress)
                generation.count(step, time.perf_counter() - began, len(part))
            self._pending = sampled = step.sampled
            piece = Piece(sampled, self._stream.push(sampled) if self._stream else "")
            generation.ids.append(sampled)
            generation.text += piece.text
            to_read = [sampled]
            yield piece
            if sampled == stop:
                return
