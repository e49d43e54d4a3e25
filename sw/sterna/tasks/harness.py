"""lm-evaluation-harness on documents in memory: its configurations, its evaluator, its metrics; nothing is fetched."""

from __future__ import annotations

import logging
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

# Read when the libraries are imported: a hub that cannot be reached must never be asked.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import datasets
import lm_eval.api.task as harness_task
import lm_eval.tasks
from lm_eval.api.metrics import mean, mean_stderr, perplexity
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate as run_harness
from lm_eval.tasks._yaml_loader import load_yaml  # the one that resolves functions; the version is pinned

from sterna.tasks.definitions import Definition, Doc

_CONFIGS = Path(lm_eval.tasks.__file__).parent
_SPLIT = "local"
_METRICS = ("acc", "acc_norm", "perplexity")  # of those that a task has; the rest (an F1) has no standard error


def evaluate(
    model: LM, tasks: Sequence[tuple[Definition, list[Doc]]], *, limit: int | None = None
) -> dict[str, dict[str, Any]]:
    """Run tasks zero-shot and return for each name what :func:`sterna.tasks.run.run_tasks` says of the harness."""
    with _quiet():
        built = {definition.name: _build(definition, docs) for definition, docs in tasks}
        # Of the standard errors, some would be bootstrapped in other processes: they come from the samples below.
        found = run_harness(model, {"tasks": built, "groups": {}}, limit=limit, bootstrap_iters=0, log_samples=True)
    return {
        definition.name: {
            "n": len(found["samples"][definition.name]),
            **_metrics(built[definition.name], found["results"][definition.name], found["samples"][definition.name]),
            **_baselines(definition, found["samples"][definition.name]),
            "harness_version": found["versions"][definition.name],
        }
        for definition, _ in tasks
    }


def _build(definition: Definition, docs: list[Doc]) -> harness_task.ConfigurableTask:
    """The harness's task on our documents."""
    config = load_yaml(_CONFIGS / definition.config)
    for key in ("tag", "dataset_path", "dataset_name", "training_split", "validation_split"):
        config.pop(key, None)
    return harness_task.ConfigurableTask(
        config={
            **config,
            "task": definition.name,
            "metric_list": [metric for metric in config["metric_list"] if metric["metric"] in _METRICS],
            "custom_dataset": lambda **_: {_SPLIT: datasets.Dataset.from_list(docs)},
            "test_split": _SPLIT,
            "num_fewshot": 0,
        }
    )


def _metrics(
    task: harness_task.ConfigurableTask, results: dict[str, Any], samples: list[dict[str, Any]]
) -> dict[str, float | None]:
    """Each metric of the task and its standard error, None where there is no formula for it."""
    metrics: dict[str, float | None] = {}
    for name, aggregate in task.aggregation().items():
        metrics[name] = value = float(results[f"{name},none"])
        error = None
        if len(samples) > 1 and aggregate in (mean, perplexity):
            error = float(mean_stderr([sample[name] for sample in samples]))
            if aggregate is perplexity:  # exp(-mean): its slope carries the error of the mean over
                error *= value
        metrics[f"{name}_stderr"] = error
    return metrics


def _baselines(definition: Definition, samples: list[dict[str, Any]]) -> dict[str, float]:
    """Accuracies without a model: of a uniform guess, and of always giving the most common answer."""
    if definition.gold is None:
        return {}
    golds = [definition.gold(sample["doc"]) for sample in samples]
    ((_, most),) = Counter(index for index, _ in golds).most_common(1)
    return {"chance": math.fsum(1 / count for _, count in golds) / len(golds), "majority": most / len(golds)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the harness's own bars and notes off the terminal."""
    logger, bar = logging.getLogger("lm_eval"), harness_task.tqdm
    level = logger.level
    logger.setLevel(logging.ERROR)
    harness_task.tqdm = partial(bar, disable=True)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        harness_task.tqdm = bar
        datasets.enable_progress_bars()
