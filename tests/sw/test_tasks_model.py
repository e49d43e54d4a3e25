"""Likelihoods of continuations on runners, and a model as the harness sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lm_eval.api.instance import Instance
from tiny_tasks import make_model

import sterna
from sterna.errors import SternaError
from sterna.runtime.runners import open_runner
from sterna.runtime.tokenizer import Tokenizer
from sterna.tasks import likelihood
from sterna.tasks.likelihood import Plan, Request
from sterna.tasks.model import SternaLM


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tasks"))


def test_greedy_is_what_the_model_continues_with(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = (40, 41, 42)
    with sterna.load(model, "cpu") as session:
        made = session.generate(context, tokens=5, stop_at_eos=False).run().ids
        session.reset()
        late = [7, *session.generate([*context, 7], tokens=3, stop_at_eos=False).run().ids]  # right after a wrong start
    assert made[0] != 7
    monkeypatch.setattr(likelihood, "LOGITS", 1)  # position by position
    other = [*made[:-1], (made[-1] + 1) % 261]
    with open_runner(model, "golden", {}) as runner:
        requests = [Request(context, tuple(ids)) for ids in (made, made[:2], other, late)]
        found = Plan(requests, share=True).run(runner, lambda tokens: None)
    assert [score.greedy for score in found] == [True, True, False, False]


def test_scores_are_those_of_whole_sequences(model: Path) -> None:
    """Shared contexts and ragged batches change no score; rows of every length, in no order."""
    rng = np.random.default_rng(1)

    def ids(size: int) -> tuple[int, ...]:
        return tuple(int(token) for token in rng.integers(0, 261, size))

    requests = [
        Request(context, ids(int(size)))
        for context in map(ids, (7, 1, 12, 3, 3, 9, 1))
        for size in rng.integers(1, 9, rng.integers(1, 4))
    ]
    with open_runner(model, "golden", {}) as runner:
        expected = []
        for request in requests:
            runner.reset(1)
            logits = runner.run(np.array([request.context + request.continuation]))[0].astype(np.float64)
            logits = logits[len(request.context) - 1 : -1]
            logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            expected.append(sum(logits[range(len(logits)), request.continuation]))
        for batch in (1, 2, 5, 64):
            runner.batch = batch
            counted: list[int] = []
            plan = Plan(requests, share=True)
            found = plan.run(runner, counted.append)
            assert [score.log_likelihood for score in found] == pytest.approx(expected, rel=1e-9)
            assert sum(counted) == plan.tokens
    alone = Plan(requests, share=False)
    assert alone.tokens == sum(len(r.context) + len(r.continuation) - 1 for r in requests)
    contexts = {r.context for r in requests}
    assert plan.tokens == sum(len(c) - 1 for c in contexts) + sum(len(r.continuation) for r in requests) < alone.tokens


@pytest.fixture(scope="module")
def language_model(model: Path) -> Any:
    tokenizer = Tokenizer.open(model)
    assert tokenizer is not None
    with open_runner(model, "cpu", {"threads": 1}) as runner:
        yield SternaLM(runner, tokenizer, start=0, end=0)


def request(kind: str, *arguments: Any) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def test_a_context_starts_as_the_tokenizer_starts_a_sequence(language_model: Any) -> None:
    class Backend:
        def encode(self, text: str, *, start: bool) -> list[int]:
            return [1] * start + list(text.encode())

    other = SternaLM(language_model._runner, Tokenizer(Backend()), start=0, end=0)  # type: ignore[arg-type]
    assert other.tok_encode("ab") == [1, 97, 98]
    assert other._encode_pair("a", "b") == ([1, 97], [98])
    assert other.tok_encode("ab", add_special_tokens=False) == [97, 98]


def test_rolling_likelihood_scores_the_first_token_too(language_model: Any, model: Path) -> None:
    with sterna.load(model) as session:
        ids = session.tokenizer.encode("The sea was calm.")
        logits = session.forward([0, *ids[:-1]]).astype(np.float64)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    terms = logits[range(len(ids)), ids]
    (whole,) = language_model.loglikelihood_rolling([request("loglikelihood_rolling", "The sea was calm.")])
    assert whole == pytest.approx(terms.sum(), rel=1e-9)
    ((first, _),) = language_model.loglikelihood([request("loglikelihood", "", "T")])  # after the start id, too
    assert first == pytest.approx(terms[0], rel=1e-9)


@pytest.mark.parametrize("stop", [None, "end"])
def test_generation_is_greedy(language_model: Any, model: Path, stop: str | None) -> None:
    with sterna.load(model) as session:
        ids = session.generate("The sea", tokens=12).run().ids
        assert ids.pop() == 0  # this model ends here, before its twelfth token
        whole = session.tokenizer.decode(ids)
    until = [] if stop is None else [whole[5:7]]
    expected = whole if stop is None else whole[: whole.find(whole[5:7])]
    asked = request("generate_until", "The sea", {"until": until, "max_gen_toks": 12})
    assert language_model.generate_until([asked]) == [expected]


def test_what_cannot_be_scored_is_said(language_model: Any) -> None:
    with pytest.raises(SternaError, match="do_sample must be false"):
        language_model.generate_until([request("generate_until", "a", {"do_sample": True})])
    with pytest.raises(SternaError, match="the continuation '' has no token of its own"):
        language_model.loglikelihood([request("loglikelihood", "a", "")])
    nameless = SternaLM(language_model._runner, language_model._tokenizer, start=None, end=None)
    with pytest.raises(SternaError, match="no begin-of-sequence id"):
        nameless.loglikelihood([request("loglikelihood", "", "a")])
