"""A model on any device as lm-evaluation-harness sees one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from sterna.errors import SternaError
from sterna.progress import Progress, counting
from sterna.runtime.runners import Runner
from sterna.runtime.tokenizer import Tokenizer, check_ids
from sterna.tasks.likelihood import Plan, Request

MAX_TOKENS = 256  # of a generation that does not say how many; the harness's own default


# The harness is left out of type checking, so its class is an untyped base.
class SternaLM(TemplateLM):  # type: ignore[misc]  # lm-eval: no types
    """Scores and continues texts with a runner.

    A text starts with a fresh state and with what the tokenizer puts at the start of a sequence (often nothing). It can
    have any length: the state is all that a model remembers.

    Args:
        runner: The model on its device.
        tokenizer: Its tokenizer.
        start: Token id that stands for an empty context, if the model has one.
        end: Token id that ends a generation, if any.
        progress: Makes a bar that counts tokens.
        label: Of the bar.
    """

    def __init__(
        self,
        runner: Runner,
        tokenizer: Tokenizer,
        *,
        start: int | None,
        end: int | None,
        progress: Progress | None = None,
        label: str = "",
    ) -> None:
        super().__init__()
        self._runner, self._tokenizer, self._start, self._end = runner, tokenizer, start, end
        self._progress, self._label = progress, label

    @property
    def eot_token_id(self) -> int:
        """The id that stands for an empty context.

        Raises:
            SternaError: the model has none.
        """
        if self._start is None:
            raise SternaError("a task has an empty context, and the model has no begin-of-sequence id to start from")
        return self._start

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids; those of a whole sequence unless ``add_special_tokens`` is False."""
        ids = self._tokenizer.encode(string, start=add_special_tokens is not False)
        check_ids(ids, self._runner.vocab)
        return ids

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """(log likelihood, whether it is the greedy choice) of each continuation after its context."""
        scores: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return scores

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        for (context, continuation), context_ids, ids in requests:
            if not (context_ids and ids):
                what = f"continuation {continuation!r}" if context_ids else f"context {context[:80]!r}"
                raise SternaError(f"the {what} has no token of its own in this tokenizer: it cannot be scored")
        return self._score([Request(tuple(context), tuple(ids)) for _, context, ids in requests])

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        """Log likelihood of each text, its first token included, after the start id."""
        texts = [self.tok_encode(request.args[0], add_special_tokens=False) for request in requests]
        return [score for score, _ in self._score([Request((self.eot_token_id,), tuple(ids)) for ids in texts])]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        """The greedy continuation of each context, up to one of its stops.

        Raises:
            SternaError: a request asks for sampling.
        """
        return [self._generate(*request.args) for request in requests]

    def _score(self, requests: list[Request]) -> list[tuple[float, bool]]:
        self._runner.reset(1)
        plan = Plan(requests, share=self._runner.state is not None)
        with counting(self._progress, total=plan.tokens, label=self._label, unit="token") as count:
            return [(score.log_likelihood, score.greedy) for score in plan.run(self._runner, count)]

    def _generate(self, context: str, options: dict[str, Any]) -> str:
        if options.get("do_sample"):
            raise SternaError("a task asks for sampling: generation is greedy, so do_sample must be false")
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else until
        to_read, made, text = self.tok_encode(context) or [self.eot_token_id], [], ""
        self._runner.reset(1)
        for _ in range(options.get("max_gen_toks", MAX_TOKENS)):
            token = int(self._runner.run(np.array([to_read], np.int64))[0, -1].argmax())
            if token == self._end:
                break
            made.append(token)
            to_read, text = [token], self._tokenizer.decode(made)
            if places := [place for stop in stops if stop and (place := text.find(stop)) >= 0]:
                return text[: min(places)]
        return text
