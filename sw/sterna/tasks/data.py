"""Documents of a task from a local file, checked line by line before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sterna.errors import SternaError
from sterna.runtime.text import open_text
from sterna.tasks.definitions import Definition, Doc, Fields


@dataclass(frozen=True)
class Documents:
    """The documents of a file, with the fields that the harness reads."""

    path: Path
    sha256: str
    docs: list[Doc]


def read_documents(task: Definition, directory: Path) -> Documents:
    """Read the file of ``task`` in ``directory``.

    Raises:
        SternaError: the file is missing or empty, or a line is not what the task needs; the sentence names it.
    """
    path = next((directory / file for file in task.files if (directory / file).is_file()), None)
    if path is None:
        raise SternaError(f"{task.name} wants the file {' or '.join(task.files)} in {directory}: put it there")
    with open_text(path) as file:
        text = file.read()
    records = _lines(path, text) if task.member is None else _member(path, text, task.member)
    docs = [_document(task, record, place) for place, record in records]
    if not docs:
        raise SternaError(f"{path} has no document for {task.name}")
    return Documents(path, hashlib.sha256(text.encode()).hexdigest(), docs)


def _lines(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            place = f"line {number} of {path}"
            yield place, _parse(line, place)


def _member(path: Path, text: str, member: str) -> Iterator[tuple[str, Any]]:
    content = _parse(text, str(path))
    records = content.get(member) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise SternaError(f"{path} must hold a JSON object with a list under {member!r}")
    for number, record in enumerate(records, start=1):
        yield f"document {number} of {member!r} in {path}", record


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SternaError(f"{place} is not JSON: {error.msg} at character {error.pos}") from error


def _document(task: Definition, record: Any, place: str) -> Doc:
    """The fields that the harness reads, from either form of a line."""
    if not isinstance(record, dict):
        raise SternaError(f"{place} must be a JSON object")
    try:
        if not _has(record, task.fields):
            if task.other is None or task.convert is None or not _has(record, task.other):
                forms = [task.fields, *([task.other] if task.other else [])]
                raise SternaError(
                    f"{place} lacks fields of {task.name}: it wants {' or '.join(map(_describe, forms))}, "
                    f"and has {', '.join(map(str, record)) or 'none'}"
                )
            _check(record, task.other)
            record = task.convert(record)
        _check(record, task.fields)
        if task.gold:
            task.gold(record)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"the key {error} is missing" if isinstance(error, KeyError) else error
        raise SternaError(f"{place} is no document of {task.name}: {reason}") from error
    return {name: record[name] for name in task.fields}


def _has(record: Doc, fields: Fields) -> bool:
    return all(name in record for name in fields)


def _check(record: Doc, fields: Fields) -> None:
    for name, kind in fields.items():
        value = record[name]
        if not isinstance(value, kind) or value == "":
            raise ValueError(f"{name} must be {'text' if kind is str else kind.__name__}, not {value!r}")
        if kind is list and not all(isinstance(choice, str) and choice for choice in record[name]):
            raise ValueError(f"{name} must be a list of texts")


def _describe(fields: Fields) -> str:
    return f"({', '.join(fields)})"
