"""Documents of tasks: prompts as the harness writes them, from both forms of a line, and what bad data is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from tiny_tasks import ARC, GLUE, LAMBADA, place

from sterna.cli.main import main
from sterna.errors import SternaError
from sterna.tasks import harness
from sterna.tasks.data import read_documents
from sterna.tasks.definitions import TASKS, choose
from sterna.tasks.run import run_tasks


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
def test_bad_data_is_one_sentence(task: str, content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        path = tmp_path / TASKS[task].files[0]
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    with pytest.raises(SternaError, match=message) as caught:
        run_tasks("no model is opened", task, tmp_path)
    assert "\n" not in str(caught.value)
