"""Many sequences over the slots of one engine: they join and leave between passes over the weights."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sterna.engines.engine import Origin, SlotEngine, SlotToken
from sterna.errors import SternaError
from sterna.runtime.tokenizer import check_ids


@dataclass(eq=False)
class Continuation:
    """A prompt that is continued greedily, alone for all it can tell.

    Attributes:
        prompt: Its token ids.
        tokens: How many to generate at most.
        stop: Id that ends it, after itself.
        ids: What was generated so far.
        done: Nothing is to come.
    """

    prompt: tuple[int, ...]
    tokens: int
    stop: int | None
    ids: list[int] = field(default_factory=list)
    done: bool = False
    _unread: list[int] = field(default_factory=list)
    _origin: Origin | int = Origin.FRESH

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Its state is lost: read everything again."""
        self._unread, self._origin = [*self.prompt, *self.ids], Origin.FRESH

    def take(self, first: int, most: int) -> dict[int, SlotToken]:
        """Its next tokens, up to so many, as a chain from slot ``first`` on."""
        tokens = self._unread[:most]
        chain = {first + n: SlotToken(token, Origin.CHAIN if n else self._origin) for n, token in enumerate(tokens)}
        self._unread, self._origin = self._unread[len(tokens) :], first + len(tokens) - 1
        return chain

    @property
    def unread(self) -> int:
        """Tokens to read before the next can be sampled."""
        return len(self._unread)

    @property
    def slot(self) -> int:
        """Where its state is, and its last result.

        Raises:
            SternaError: nothing was read.
        """
        if isinstance(self._origin, Origin):
            raise SternaError("the sequence has no slot: nothing of it was read")
        return self._origin

    def add(self, sampled: int) -> None:
        """A token was sampled."""
        self.ids.append(sampled)
        self._unread = [sampled]
        self.done = len(self.ids) == self.tokens or sampled == self.stop


class Scheduler:
    """Keeps the slots of an engine busy with as many sequences as there are, first come first served.

    Every sequence that has begun has a token in every pass; slots that are left over read further ahead in prompts. A
    sequence may be in another slot in every pass, so there is never a gap between chains. The engine must not be used
    otherwise meanwhile.

    Attributes:
        passes: Passes made so far.
        read: Tokens read in them, of all sequences.
        counters: What the engine counted, summed over the passes.
    """

    def __init__(self, engine: SlotEngine) -> None:
        self._engine = engine
        self._waiting: deque[Continuation] = deque()
        self._running: list[Continuation] = []
        self.passes = self.read = 0
        self.counters: Counter[str] = Counter()

    def submit(self, prompt: Sequence[int], *, tokens: int, stop: int | None = None) -> Continuation:
        """Queue a prompt; it may join in any pass from now on.

        Args:
            prompt: Token ids, at least one.
            tokens: How many to generate at most.
            stop: Id that ends it.

        Raises:
            SternaError: nothing to read or to generate, or an id outside the vocabulary.
        """
        ids = [int(token) for token in prompt]
        check_ids(ids, self._engine.geometry.vocab)
        if not ids:
            raise SternaError("the prompt is empty: give at least one token id")
        if tokens < 1:
            raise SternaError(f"tokens must be a positive integer, not {tokens!r}")
        continuation = Continuation(tuple(ids), tokens, stop)
        self._waiting.append(continuation)
        return continuation

    def step(self) -> list[Continuation]:
        """Make one pass, if there is anything to do; returns the sequences for which a token was sampled in it.

        Raises:
            DeviceError: the device failed. Every sequence that has begun starts again in the next pass, after a reset
                of the engine, and comes to the same ids.
        """
        while self._waiting and len(self._running) < self._engine.slots:
            self._running.append(self._waiting.popleft())
        if not self._running:
            return []
        tokens = self._plan()
        ready = [continuation for continuation in self._running if not continuation.unread]
        try:
            found = self._engine.run(tokens, head=bool(ready))
        except BaseException:
            self._engine.reset()
            for continuation in self._running:
                continuation.restart()
            raise
        self.passes += 1
        self.read += len(tokens)
        self.counters.update(found.counters)
        for continuation in ready:
            continuation.add(found.sampled[continuation.slot])
        self._running = [continuation for continuation in self._running if not continuation.done]
        return ready

    def run(self, *, progress: Callable[[int], object] | None = None) -> None:
        """Make passes until nothing is left to do; ``progress`` gets the number of sampled tokens after each."""
        while self._waiting or self._running:
            ready = self.step()
            if progress:
                progress(len(ready))

    def _plan(self) -> dict[int, SlotToken]:
        """A slot for each sequence, and what is left for those with more to read."""
        spare = self._engine.slots - len(self._running)
        tokens: dict[int, SlotToken] = {}
        for continuation in self._running:
            chain = continuation.take(len(tokens), 1 + spare)
            spare -= len(chain) - 1
            tokens |= chain
        return tokens
