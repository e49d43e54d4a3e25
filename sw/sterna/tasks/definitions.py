"""The tasks: which configuration of lm-evaluation-harness, which file, and how its lines become what that reads.

A line may have the fields of the hub's data set, which the harness reads, or those of the evaluation sets of
llm-foundry: query, choices and gold; context_options, continuation and gold; context and continuation.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sterna.errors import SternaError

Doc = dict[str, Any]
Fields = Mapping[str, type]

QUERY: Fields = {"query": str, "choices": list, "gold": int}
SCHEMA: Fields = {"context_options": list, "continuation": str, "gold": int}
COMPLETION: Fields = {"context": str, "continuation": str}


@dataclass(frozen=True)
class Definition:
    """One task.

    ``gold`` gives the index of a document's right choice and the number of choices, and raises KeyError, TypeError or
    ValueError where there is none; it is None for a task without choices.
    """

    name: str
    config: str  # the harness's own configuration, under lm_eval/tasks
    files: tuple[str, ...]  # the first that is there is read
    fields: Fields  # what the harness's configuration reads
    gold: Callable[[Doc], tuple[int, int]] | None
    other: Fields | None = None  # the other form of a line ...
    convert: Callable[[Doc], Doc] | None = None  # ... and how it becomes the first
    member: str | None = None  # the file is one JSON object, with the documents under this key


# --- lines of llm-foundry to those of the hub ------------------------------------------------------------------------


def _question(doc: Doc) -> str:
    """The question without what the harness writes around it."""
    return str(doc["query"]).removeprefix("Question: ").removesuffix("\n")


def _labelled(field: str) -> Callable[[Doc], Doc]:
    def convert(doc: Doc) -> Doc:
        labels = list(string.ascii_uppercase[: len(doc["choices"])])
        return {
            field: _question(doc),
            "choices": {"text": doc["choices"], "label": labels},
            "answerKey": labels[_inside(doc["gold"], len(labels))],
        }

    return convert


def _piqa(doc: Doc) -> Doc:
    first, second = doc["choices"]
    return {"goal": _question(doc), "sol1": first, "sol2": second, "label": doc["gold"]}


def _boolq(doc: Doc) -> Doc:
    passage, _, question = doc["query"].removeprefix("Passage: ").rpartition("\nQuestion: ")
    if doc["choices"] != ["no", "yes"]:
        raise ValueError('choices must be ["no", "yes"]')
    return {"passage": passage, "question": question.removesuffix("?"), "label": doc["gold"]}


def _winogrande(doc: Doc) -> Doc:
    # The harness puts an option where the blank is; what comes before it may as well be part of the options.
    first, second = doc["context_options"]
    return {
        "sentence": f"_ {doc['continuation']}",
        "option1": first,
        "option2": second,
        "answer": str(_inside(doc["gold"], 2) + 1),
    }


def _lambada(doc: Doc) -> Doc:
    if " " in doc["continuation"]:
        raise ValueError("continuation must be one word")
    return {"text": f"{doc['context']} {doc['continuation']}"}


# --- right answers ---------------------------------------------------------------------------------------------------


def _inside(index: Any, count: int) -> int:
    if not 0 <= int(index) < count:
        raise ValueError(f"the answer {index!r} is none of the {count} choices")
    return int(index)


def _labelled_gold(doc: Doc) -> tuple[int, int]:
    texts, labels = doc["choices"]["text"], list(doc["choices"]["label"])
    if len(texts) != len(labels) or not all(isinstance(text, str) and text for text in texts):
        raise ValueError("choices must have a text and a label each")
    if doc["answerKey"] not in labels:
        raise ValueError(f"the answer {doc['answerKey']!r} is none of the {len(labels)} choices")
    return labels.index(doc["answerKey"]), len(labels)


def _index_gold(count: int) -> Callable[[Doc], tuple[int, int]]:
    return lambda doc: (_inside(doc["label"], count), count)


def _winogrande_gold(doc: Doc) -> tuple[int, int]:
    if "_" not in doc["sentence"]:
        raise ValueError("sentence must have a blank, written _")
    return _inside(int(doc["answer"]) - 1, 2), 2


# --- the table -------------------------------------------------------------------------------------------------------


def _arc(name: str) -> Definition:
    fields = {"question": str, "choices": dict, "answerKey": str}
    files = (f"{name}.jsonl",)
    return Definition(name, f"arc/{name}.yaml", files, fields, _labelled_gold, QUERY, _labelled("question"))


_CHOICES = (
    _arc("arc_easy"),
    _arc("arc_challenge"),
    Definition(
        "piqa",
        "piqa/piqa.yaml",
        ("piqa.jsonl",),
        {"goal": str, "sol1": str, "sol2": str, "label": int},
        _index_gold(2),
        QUERY,
        _piqa,
    ),
    Definition(
        "openbookqa",
        "openbookqa/openbookqa.yaml",
        ("openbookqa.jsonl", "openbook_qa.jsonl"),
        {"question_stem": str, "choices": dict, "answerKey": str},
        _labelled_gold,
        QUERY,
        _labelled("question_stem"),
    ),
    Definition(
        "winogrande",
        "winogrande/default.yaml",
        ("winogrande.jsonl",),
        {"sentence": str, "option1": str, "option2": str, "answer": str},
        _winogrande_gold,
        SCHEMA,
        _winogrande,
    ),
    Definition(
        "boolq",
        "super_glue/boolq/default.yaml",
        ("boolq.jsonl",),
        {"passage": str, "question": str, "label": int},
        _index_gold(2),
        QUERY,
        _boolq,
    ),
    Definition(
        "lambada_openai",
        "lambada/lambada_openai.yaml",
        ("lambada_openai.jsonl",),
        {"text": str},
        None,
        COMPLETION,
        _lambada,
    ),
)

# Task of AdvGLUE -> configuration, text fields, classes. The harness reads all of them as GLUE.
_GLUE = {
    "sst2": ("sst2/default.yaml", ("sentence",), 2),
    "qqp": ("qqp/default.yaml", ("question1", "question2"), 2),
    "mnli": ("mnli/default.yaml", ("premise", "hypothesis"), 3),
    "mnli-mm": ("mnli/mismatch.yaml", ("premise", "hypothesis"), 3),
    "qnli": ("qnli/default.yaml", ("question", "sentence"), 2),
    "rte": ("rte/default.yaml", ("sentence1", "sentence2"), 2),
}
ADVGLUE = "advglue"  # names all of them; the clean ones too if they are there
ADVERSARIAL, CLEAN = "advglue/dev.json", "advglue/clean.json"


def _glue(prefix: str, file: str) -> tuple[Definition, ...]:
    return tuple(
        Definition(
            f"{prefix}_{key.replace('-', '_')}",
            f"glue/{config}",
            (file,),
            {**dict.fromkeys(texts, str), "label": int},
            _index_gold(classes),
            member=key,
        )
        for key, (config, texts, classes) in _GLUE.items()
    )


_ADVERSARIAL, _CLEAN = _glue(ADVGLUE, ADVERSARIAL), _glue("glue", CLEAN)
TASKS = {task.name: task for task in (*_CHOICES, *_ADVERSARIAL, *_CLEAN)}


def choose(names: str, *, clean: bool) -> list[Definition]:
    """The tasks that a list of names asks for, each once.

    Args:
        names: Separated by commas; "advglue" stands for its six tasks.
        clean: "advglue" also stands for the six tasks on clean sentences.

    Raises:
        SternaError: there is no such task.
    """
    chosen: dict[str, Definition] = {}
    for name in filter(None, (name.strip() for name in names.split(","))):
        if name == ADVGLUE:
            chosen |= {task.name: task for task in (*_ADVERSARIAL, *(_CLEAN if clean else ()))}
        elif name in TASKS:
            chosen[name] = TASKS[name]
        else:
            raise SternaError(f"there is no task {name!r}; choose from {', '.join((*TASKS, ADVGLUE))}")
    if not chosen:
        raise SternaError(f"no task is named: choose from {', '.join((*TASKS, ADVGLUE))}")
    return list(chosen.values())
