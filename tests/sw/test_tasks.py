"""Zero-shot tasks: scores worked out by hand, prompts of every task, devices that agree, and what bad data is told."""

from __future__ import annotations

import json
import math
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_checkpoint
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

import sterna
from sterna.cli.main import main
from sterna.cli.tasks import text as table
from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.runtime import runners
from sterna.runtime.runners import open_runner
from sterna.runtime.tokenizer import Tokenizer
from sterna.tasks import harness, likelihood
from sterna.tasks.data import read_documents
from sterna.tasks.definitions import CLEAN, TASKS, choose
from sterna.tasks.likelihood import Plan, Request
from sterna.tasks.model import SternaLM
from sterna.tasks.run import run_tasks

ARC = [
    {"query": "Question: Why is it dark?", "choices": ["Night", "A lamp is on", "Noon"], "gold": 0},
    {"query": "Question: What is wet?", "choices": ["Sand", "Rain", "Fire", "Glass"], "gold": 1},
    {"query": "Question: What burns?", "choices": ["Stone", "Wood in a stove"], "gold": 1},
    {"query": "Question: Which is a bird?", "choices": ["A tern", "An ox", "Moss", "A cod"], "gold": 0},
    {"query": "Question: Why?", "choices": ["So", "Because of that"], "gold": 0},
]
LAMBADA = [
    {"context": "The sea was", "continuation": "calm"},
    {"context": "He said no, and meant", "continuation": "it"},
]
GLUE = {
    "sst2": [
        {"sentence": "a fine film", "label": 1},
        {"sentence": "dull", "label": 0},
        {"sentence": "bad", "label": 0},
    ],
    "mnli": [{"premise": "It rains", "hypothesis": "It is wet", "label": 0}],
    "mnli-mm": [{"premise": "It rains", "hypothesis": "It is dry.", "label": 2}],
    "qqp": [{"question1": "Who?", "question2": "Which?", "label": 0}],
    "qnli": [{"question": "Who?", "sentence": "He did", "label": 0}],
    "rte": [{"sentence1": "It rains.", "sentence2": "It is wet.", "label": 1}],
}


def write_lines(path: Path, docs: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(doc)}\n" for doc in docs))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks")
    write_checkpoint(path / "checkpoint", hidden=40, layers=2, inner=56, vocab=261, seed=5)
    import_checkpoint(path / "checkpoint", path / "model")
    return path / "model"


@pytest.fixture(scope="module")
def data(model: Path) -> Path:
    path = model.parent / "data"
    (path / "advglue").mkdir(parents=True)
    write_lines(path / "arc_easy.jsonl", ARC)
    write_lines(path / "lambada_openai.jsonl", LAMBADA)
    (path / "advglue" / "dev.json").write_text(json.dumps(GLUE))
    return path


def log_likelihood(model: Path, context: str, continuation: str) -> tuple[float, bool]:
    """By the golden model; the tiny tokenizer has one token a byte."""
    with sterna.load(model, "golden") as session:
        ids = np.array(session.tokenizer.encode(context + continuation))
        logits = session.forward(ids).astype(np.float64)
    first = len(context.encode())
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    positions = range(first, len(ids))
    total = sum(float(logits[position - 1, ids[position]]) for position in positions)
    return total, all(logits[position - 1].argmax() == ids[position] for position in positions)


def standard_error(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def test_accuracies_by_hand(model: Path, data: Path) -> None:
    hits, normed = [], []
    for doc in ARC:
        scores = [log_likelihood(model, f"{doc['query']}\nAnswer:", f" {choice}")[0] for choice in doc["choices"]]
        hits.append(float(np.argmax(scores) == doc["gold"]))
        lengths = [len(choice) for choice in doc["choices"]]
        normed.append(float(np.argmax(np.array(scores) / lengths) == doc["gold"]))
    assert 0 < sum(hits) < len(hits) and 0 < sum(normed) < len(normed) and hits != normed  # the model tells them apart
    result = run_tasks(model, "arc_easy", data, device="golden")
    task = result["tasks"]["arc_easy"]
    assert (task["n"], task["documents"]) == (5, 5)
    assert task["acc"] == pytest.approx(sum(hits) / 5)
    assert task["acc_norm"] == pytest.approx(sum(normed) / 5)
    assert task["acc_stderr"] == pytest.approx(standard_error(hits))
    assert task["acc_norm_stderr"] == pytest.approx(standard_error(normed))
    assert task["chance"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 2 + 1 / 4 + 1 / 2) / 5)
    assert task["majority"] == pytest.approx(3 / 5)
    assert result["versions"]["lm-eval"] and result["versions"]["sterna"] == sterna.__version__


def test_perplexity_by_hand(model: Path, data: Path) -> None:
    scores = [log_likelihood(model, doc["context"], f" {doc['continuation']}") for doc in LAMBADA]
    nats = [-score for score, _ in scores]
    task = run_tasks(model, "lambada_openai", data)["tasks"]["lambada_openai"]
    assert task["perplexity"] == pytest.approx(math.exp(sum(nats) / 2), rel=1e-9)
    assert task["perplexity_stderr"] == pytest.approx(task["perplexity"] * standard_error(nats), rel=1e-9)
    assert task["acc"] == sum(greedy for _, greedy in scores) / 2
    assert "chance" not in task


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


NAMES = "arc_easy,lambada_openai,advglue"


def test_devices_and_batches_agree(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = run_tasks(model, NAMES, data, device="golden")["tasks"]
    assert run_tasks(model, NAMES, data, device="cpu", threads=1)["tasks"] == golden
    with monkeypatch.context() as patch:
        patch.setattr(runners._GoldenRunner, "batch", 3)
        patch.setattr(likelihood, "LOGITS", 3 * 261 * 4)  # parts of four positions
        assert run_tasks(model, NAMES, data, device="golden")["tasks"] == golden
    with monkeypatch.context() as patch:
        patch.setattr(runners._SessionRunner, "state", None)  # as of an accelerator
        assert run_tasks(model, NAMES, data, device="cpu", threads=1)["tasks"] == golden
    reference = run_tasks(model, NAMES, data, device="reference")["tasks"]
    for name, task in golden.items():
        assert reference[name]["acc"] == pytest.approx(task["acc"], abs=0.34), name
    ratio = reference["lambada_openai"]["perplexity"] / golden["lambada_openai"]["perplexity"]
    assert ratio != 1 and ratio == pytest.approx(1, rel=0.05)


def test_an_accelerator_scores_the_same(model: Path, data: Path) -> None:
    golden = run_tasks(model, "lambada_openai", data, device="golden")["tasks"]
    assert run_tasks(model, "lambada_openai", data, device="emulator", config="sim-tiny")["tasks"] == golden


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


class Recorder(LM):
    """Keeps what the harness asks and likes the last choice best."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        self.asked = [request.args for request in requests]
        return [(float(index), False) for index in range(len(requests))]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError

    def generate_until(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError


LABELLED = {"text": ["sand", "rain"], "label": ["A", "B"]}
PROMPTS = [
    ("arc_challenge", ARC[1], "Question: What is wet?\nAnswer:", [" Sand", " Rain", " Fire", " Glass"], 1),
    (
        "arc_easy",
        {"question": "What is wet?", "choices": LABELLED, "answerKey": "B", "id": 3},
        "Question: What is wet?\nAnswer:",
        [" sand", " rain"],
        1,
    ),
    (
        "piqa",
        {"query": "Question: dry a shirt\n", "choices": ["hang it", "eat it"], "gold": 0},
        "Question: dry a shirt\nAnswer:",
        [" hang it", " eat it"],
        0,
    ),
    (
        "piqa",
        {"goal": "dry a shirt", "sol1": "hang it", "sol2": "eat it", "label": 1},
        "Question: dry a shirt\nAnswer:",
        [" hang it", " eat it"],
        1,
    ),
    (
        "openbookqa",
        {"query": "Predators eat", "choices": ["grass", "bunnies"], "gold": 1},
        "Predators eat",
        [" grass", " bunnies"],
        1,
    ),
    (
        "boolq",
        {"query": "Passage: It rains.\nQuestion: it says.\nQuestion: is it wet?", "choices": ["no", "yes"], "gold": 1},
        "It rains.\nQuestion: it says.\nQuestion: is it wet?\nAnswer:",
        [" no", " yes"],
        1,
    ),
    (
        "boolq",
        {"passage": "It rains.", "question": "is it wet", "label": 0},
        "It rains.\nQuestion: is it wet?\nAnswer:",
        [" no", " yes"],
        0,
    ),
    ("lambada_openai", LAMBADA[0], "The sea was", [" calm"], None),
    ("lambada_openai", {"text": "The sea was calm"}, "The sea was", [" calm"], None),
    (
        "advglue_sst2",
        GLUE["sst2"][0],
        "a fine film\nQuestion: Is this sentence positive or negative?\nAnswer:",
        [" negative", " positive"],
        1,
    ),
    (
        "advglue_qqp",
        GLUE["qqp"][0],
        "Question 1: Who?\nQuestion 2: Which?\nQuestion: Do both questions ask the same thing?\nAnswer:",
        [" no", " yes"],
        0,
    ),
    (
        "advglue_mnli",
        GLUE["mnli"][0],
        "It rains\nQuestion: It is wet. True, False or Neither?\nAnswer:",
        [" True", " Neither", " False"],
        0,
    ),
    (
        "advglue_mnli_mm",
        GLUE["mnli-mm"][0],
        "It rains\nQuestion: It is dry. True, False or Neither?\nAnswer:",
        [" True", " Neither", " False"],
        2,
    ),
    (
        "advglue_qnli",
        GLUE["qnli"][0],
        "Who?\nHe did\nQuestion: Does this response answer the question?\nAnswer:",
        [" yes", " no"],
        0,
    ),
    ("advglue_rte", GLUE["rte"][0], "It rains.\nQuestion: It is wet. True or False?\nAnswer:", [" True", " False"], 1),
]


def place(task: str, docs: list[Any], directory: Path) -> None:
    """Write the file of a task."""
    definition = TASKS[task]
    path = directory / definition.files[-1]
    path.parent.mkdir(exist_ok=True)
    if definition.member:
        path.write_text(json.dumps({definition.member: docs}))
    else:
        write_lines(path, docs)


@pytest.mark.parametrize(("task", "doc", "context", "continuations", "gold"), PROMPTS)
def test_prompts_are_the_harness_s(
    task: str, doc: dict[str, Any], context: str, continuations: list[str], gold: int | None, tmp_path: Path
) -> None:
    place(task, [doc], tmp_path)
    recorder = Recorder()
    result = harness.evaluate(recorder, [(TASKS[task], read_documents(TASKS[task], tmp_path).docs)])
    assert recorder.asked == [(context, continuation) for continuation in continuations]
    if gold is not None:
        assert result[task]["acc"] == float(gold == len(continuations) - 1)  # which the recorder likes best
        assert result[task]["chance"] == 1 / len(continuations)


@pytest.mark.parametrize(
    "doc",
    [
        {
            "context_options": ["Ann was better than Eve so Ann", "Ann was better than Eve so Eve"],
            "continuation": "won.",
            "gold": 0,
        },
        {"sentence": "Ann was better than Eve so _ won.", "option1": "Ann", "option2": "Eve", "answer": "1"},
    ],
)
def test_winogrande_scores_one_ending_after_two_beginnings(doc: dict[str, Any], tmp_path: Path) -> None:
    place("winogrande", [doc, doc | ({"gold": 1} if "gold" in doc else {"answer": "2"})], tmp_path)
    recorder = Recorder()
    result = harness.evaluate(recorder, [(TASKS["winogrande"], read_documents(TASKS["winogrande"], tmp_path).docs)])
    assert recorder.asked == 2 * [(f"Ann was better than Eve so {name}", " won.") for name in ("Ann", "Eve")]
    assert (result["winogrande"]["acc"], result["winogrande"]["majority"]) == (0.5, 0.5)


def test_adversarial_and_clean(model: Path, data: Path, tmp_path: Path) -> None:
    found = run_tasks(model, "advglue", data, device="cpu", limit=2)["tasks"]
    assert [name.removeprefix("advglue_") for name in found] == ["sst2", "qqp", "mnli", "mnli_mm", "qnli", "rte"]
    assert (found["advglue_sst2"]["n"], found["advglue_sst2"]["documents"]) == (2, 3)
    assert (found["advglue_sst2"]["majority"], found["advglue_mnli"]["chance"]) == (0.5, 1 / 3)
    assert found["advglue_mnli"]["acc_stderr"] is None  # of one document
    (tmp_path / "advglue").mkdir()
    (tmp_path / "advglue" / "dev.json").write_text(json.dumps(GLUE))
    (tmp_path / CLEAN).write_text(json.dumps(GLUE))
    both = run_tasks(model, "advglue", tmp_path, device="cpu", limit=2)["tasks"]
    assert len(both) == 12
    assert all(
        both[name]["acc"] == both[name.replace("advglue", "glue")]["acc"] == found[name]["acc"] for name in found
    )


def test_works_offline_and_quietly(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert main(["eval", str(model), "--tasks", NAMES, "--data", str(data), "--device", "cpu", "--json"]) == 0
    captured = capfd.readouterr()
    assert set(json.loads(captured.out)["tasks"]) == {
        "arc_easy",
        "lambada_openai",
        *(f"advglue_{key.replace('-', '_')}" for key in GLUE),
    }
    assert captured.err == ""


def test_table(model: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(model), "--tasks", "arc_easy,lambada_openai", "--data", str(data), "--limit", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    task = run_tasks(model, "arc_easy", data, limit=4)["tasks"]["arc_easy"]
    assert lines[0].split() == ["task", "n", "acc", "acc_norm", "chance", "majority"]
    assert lines[1].split()[:4] == ["arc_easy", "4", f"{100 * task['acc']:.2f}", "±"]
    assert "33.33" in lines[1] and lines[2].startswith("lambada_openai  2") and " perplexity " in lines[2]
    assert any(line.startswith("* within two standard errors of chance") for line in lines)
    assert lines[-1].startswith("golden, ")


def test_accuracies_that_say_nothing_are_marked() -> None:
    known = {"n": 9, "acc": 0.7, "acc_stderr": 0.05, "chance": 0.25, "majority": 0.5}
    tasks = {"known": known, "guessed": known | {"acc": 0.59}, "biased": known | {"majority": 0.65}}
    lines = table({"tasks": tasks, "device": "cpu", "seconds": 1.0}).splitlines()
    assert ["*" in line for line in lines[1:4]] == [False, True, True]
    assert "*" not in table({"tasks": {"known": known}, "device": "cpu", "seconds": 1.0})


def test_listing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "MODEL", "--tasks", "list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in (*TASKS, "openbook_qa.jsonl", "advglue/dev.json", "context_options"))
    assert main(["eval", "MODEL", "--tasks", "list", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == set(TASKS)


def test_choosing() -> None:
    assert [task.name for task in choose(" piqa,boolq ,piqa", clean=False)] == ["piqa", "boolq"]
    with pytest.raises(SternaError, match=r"no task 'hellaswag'; choose from arc_easy, .*advglue"):
        choose("piqa,hellaswag", clean=False)
    with pytest.raises(SternaError, match="no task is named"):
        choose(",", clean=False)


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("piqa", None, r"piqa wants the file piqa.jsonl in .*: put it there"),
        ("openbookqa", None, "openbookqa.jsonl or openbook_qa.jsonl in"),
        ("piqa", "\n\n", "has no document for piqa"),
        ("piqa", '{"query": "a", "choices": ["b", "c"], "gold": 0}\n{"query"', r"line 2 of .*piqa.jsonl is not JSON"),
        ("piqa", "[1]", "line 1 of .* must be a JSON object"),
        (
            "piqa",
            '{"query": "a", "gold": 0}',
            r"lacks fields of piqa: it wants \(goal, .*\) or \(query, choices, gold\), and has query, gold",
        ),
        ("piqa", '{"query": "a", "choices": ["b", "c", "d"], "gold": 0}', "is no document of piqa: too many values"),
        ("piqa", '{"query": "a", "choices": ["b", "c"], "gold": 2}', "the answer 2 is none of the 2 choices"),
        ("arc_easy", '{"query": "a", "choices": ["b", "c"], "gold": -1}', "the answer -1 is none of the 2 choices"),
        ("arc_easy", '{"query": "a", "choices": ["b", ""], "gold": 0}', "choices must be a list of texts"),
        ("arc_easy", '{"query": 3, "choices": ["b", "c"], "gold": 0}', "query must be text, not 3"),
        (
            "arc_easy",
            '{"question": "a", "choices": {"text": ["b"], "label": ["A"]}, "answerKey": "B"}',
            "answer 'B' is",
        ),
        ("arc_easy", '{"question": "a", "choices": {"text": ["b"]}, "answerKey": "A"}', "the key 'label' is missing"),
        ("boolq", '{"query": "a", "choices": ["yes", "no"], "gold": 0}', r'choices must be \["no", "yes"\]'),
        ("winogrande", '{"sentence": "a b", "option1": "c", "option2": "d", "answer": "1"}', "must have a blank"),
        ("winogrande", '{"sentence": "a _", "option1": "c", "option2": "d", "answer": "3"}', "is none of the 2"),
        ("lambada_openai", '{"context": "a", "continuation": "b c"}', "continuation must be one word"),
        ("advglue_sst2", '{"qqp": []}', "must hold a JSON object with a list under 'sst2'"),
        (
            "advglue_sst2",
            '{"sst2": [{"sentence": "a", "label": 2}]}',
            "document 1 of 'sst2' in .*: the answer 2 is none",
        ),
        ("advglue_sst2", '{"sst2": [{"text": "a"}]}', r"it wants \(sentence, label\), and has text"),
    ],
)
def test_bad_data_is_one_sentence(model: Path, task: str, content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        path = tmp_path / TASKS[task].files[0]
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    with pytest.raises(SternaError, match=message) as caught:
        run_tasks(model, task, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--tasks piqa", "add --data DIR"),
        ("--tasks nothing --data .", "there is no task 'nothing'"),
        ("--tasks arc_easy --data DATA --limit 0", "limit must be a positive number of documents, not 0"),
        ("--tasks arc_easy --data DATA --device gpu", "there is no device 'gpu'"),
        ("--tasks arc_easy --data DATA --chunk 9", "--chunk goes with --text: leave it out"),
        ("--tasks arc_easy --data DATA --against reference", "--against goes with --text"),
        ("--text a.txt --limit 3", "--limit goes with --tasks"),
    ],
)
def test_bad_options(model: Path, data: Path, options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(data) if word == "DATA" else word for word in options.split()]
    assert main(["eval", str(model), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1


def test_without_the_harness(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("lm_eval", "sterna.tasks.harness"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("sterna.tasks.harness", raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(SternaError, match=r"pip install 'sterna\[eval\]'"):
        run_tasks(model, "arc_easy", data)


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


def test_progress_counts_tokens(model: Path, data: Path) -> None:
    counted: list[int] = []
    totals: list[int] = []

    class Bar:
        update: Callable[[int], None] = staticmethod(counted.append)

        def close(self) -> None:
            totals.append(sum(counted))

    def progress(*, total: int, label: str, unit: str) -> Bar:
        assert (label, unit) == ("tasks golden", "token")
        totals.append(total)
        return Bar()

    run_tasks(model, "arc_easy", data, progress=progress)
    assert totals[0] == totals[1] > 0
