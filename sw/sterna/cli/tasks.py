"""``sterna eval --tasks``: zero-shot accuracies as a table."""

from __future__ import annotations

import argparse
from typing import Any

from sterna.errors import SternaError

LIST = "list"  # in place of names: show them

_NOTE = """\
acc and acc_norm in per cent and one standard error; chance: a uniform guess, majority: the most common answer"""
_NEAR = "* within two standard errors of chance or majority, or below: no sign that the model knows the task"


def score(args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
    """Run the tasks that the arguments of ``sterna eval`` name."""
    from sterna.cli.progress import progress
    from sterna.tasks.run import run_tasks

    if args.data is None:
        raise SternaError("--tasks reads local files: add --data DIR, the directory that has them")
    return run_tasks(
        args.model, args.tasks, args.data, device=args.device, limit=args.limit, progress=progress, **options
    )


def listing() -> dict[str, dict[str, Any]]:
    """Each task's files and the fields of a document, in both forms."""
    from sterna.tasks.definitions import TASKS

    return {
        task.name: {
            "files": list(task.files),
            "member": task.member,
            "fields": list(task.fields),
            "other_fields": list(task.other or ()),
        }
        for task in TASKS.values()
    }


def listing_text() -> str:
    """The same for people."""
    lines = [f"{'task':<19}{'file in DIR':<42}fields of a document"]
    for name, task in listing().items():
        place = " or ".join(task["files"]) + (f": {task['member']!r}" if task["member"] else "")
        forms = [", ".join(task["fields"]), ", ".join(task["other_fields"])]
        lines.append(f"{name:<19}{place:<42}{' | '.join(filter(None, forms))}")
    lines.append("advglue            all advglue_… tasks, and the glue_… tasks if their file is there")
    return "\n".join(lines)


def text(result: dict[str, Any]) -> str:
    """The table."""
    rows = [("task", "n", "acc", "acc_norm", "chance", "majority", "")]
    for name, task in result["tasks"].items():
        rows.append(
            (
                name,
                f"{task['n']:,}",
                _share(task, "acc") + ("*" if _near(task) else " "),
                _share(task, "acc_norm"),
                _percent(task.get("chance")),
                _percent(task.get("majority")),
                f"perplexity {_error(task, 'perplexity', 1, 2)}" if "perplexity" in task else "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(_cells(row, widths)).rstrip() for row in rows]
    if any(map(_near, result["tasks"].values())):
        lines.append(_NEAR)
    return "\n".join([*lines, _NOTE, f"{result['device']}, {result['seconds']:.0f} s"])


def _cells(row: tuple[str, ...], widths: list[int]) -> list[str]:
    """Names and notes to the left, figures to the right."""
    last = len(row) - 1
    return [
        f"{cell:<{width}}" if column in (0, last) else f"{cell:>{width}}"
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _near(task: dict[str, Any]) -> bool:
    """The accuracy is no better than what needs no model, within two standard errors."""
    if "chance" not in task:
        return False
    return bool(task["acc"] - 2 * (task["acc_stderr"] or 0) <= max(task["chance"], task["majority"]))


def _share(task: dict[str, Any], name: str) -> str:
    return _error(task, name, 100, 2) if name in task else ""


def _error(task: dict[str, Any], name: str, factor: float, digits: int) -> str:
    error = task[f"{name}_stderr"]
    return f"{factor * task[name]:,.{digits}f}" + ("" if error is None else f" ± {factor * error:,.{digits}f}")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"
