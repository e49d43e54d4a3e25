"""What the tests of the tasks share: a tiny model, files of documents, and where a task looks for its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checkpoints import write_checkpoint

from sterna.importer import import_checkpoint
from sterna.tasks.definitions import TASKS

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
NAMES = "arc_easy,lambada_openai,advglue"  # of the tasks that make_data writes


def write_lines(path: Path, docs: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(doc)}\n" for doc in docs))


def place(task: str, docs: list[Any], directory: Path) -> None:
    """Write the file of a task."""
    definition = TASKS[task]
    path = directory / definition.files[-1]
    path.parent.mkdir(exist_ok=True)
    if definition.member:
        path.write_text(json.dumps({definition.member: docs}))
    else:
        write_lines(path, docs)


def make_model(path: Path) -> Path:
    """Import a random model of one token a byte; returns its directory."""
    write_checkpoint(path / "checkpoint", hidden=40, layers=2, inner=56, vocab=261, seed=5)
    import_checkpoint(path / "checkpoint", path / "model")
    return path / "model"


def make_data(path: Path) -> Path:
    """Write files of two tasks and of AdvGLUE; returns their directory."""
    (path / "advglue").mkdir(parents=True)
    write_lines(path / "arc_easy.jsonl", ARC)
    write_lines(path / "lambada_openai.jsonl", LAMBADA)
    (path / "advglue" / "dev.json").write_text(json.dumps(GLUE))
    return path
