"""Runs tasks: documents in, accuracies with standard errors out."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sterna.errors import SternaError
from sterna.importer.checkpoint import read_config
from sterna.model.manifest import MANIFEST_FILE, Manifest
from sterna.progress import Progress
from sterna.runtime.load import GOLDEN
from sterna.runtime.runners import open_runner
from sterna.runtime.tokenizer import Tokenizer, require
from sterna.tasks.data import read_documents
from sterna.tasks.definitions import CLEAN, choose


def run_tasks(
    path: str | Path,
    names: str,
    data: str | Path,
    *,
    device: str = GOLDEN,
    limit: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score tasks zero-shot with lm-evaluation-harness: its prompts and metrics, on documents of local files.

    Args:
        path: A stored model; for the device "reference" also a Hugging Face checkpoint directory.
        names: Task names, separated by commas.
        data: Directory of the files that the tasks' definitions name.
        device: Any device of :func:`sterna.load`, or "reference" for float32 in PyTorch.
        limit: Documents to take from the start of each file; all by default.
        progress: Makes a bar that counts tokens.
        options: Passed to :func:`sterna.load`.

    Returns:
        ``tasks``: for each name ``n`` (documents scored), ``documents`` (in the file), ``file`` and its ``sha256``, the
        metrics of the harness (``acc``, ``acc_norm``, ``perplexity``) each with its ``_stderr``, and for tasks with
        choices ``chance`` (a uniform guess) and ``majority`` (the most common answer); also ``versions``, ``model``,
        ``device``, ``limit`` and ``seconds``.

    Raises:
        SternaError: a task, its file, the model or the device cannot be used, or the harness is not installed.
    """
    if limit is not None and limit < 1:
        raise SternaError(f"limit must be a positive number of documents, not {limit!r}")
    directory = Path(data)
    tasks = choose(names, clean=(directory / CLEAN).is_file())
    documents = {task.name: read_documents(task, directory) for task in tasks}
    try:
        from sterna.tasks import harness
    except ImportError as error:
        raise SternaError(f"tasks need lm-evaluation-harness ({error}): pip install 'sterna[eval]'") from error
    from sterna.tasks.model import SternaLM

    began = time.perf_counter()
    start, end = _special_ids(Path(path))
    tokenizer = require(Tokenizer.open(path, bos_id=start), path)
    with open_runner(path, device, options) as runner:
        model = SternaLM(
            runner,
            tokenizer,
            start=end if start is None else start,
            end=end,
            progress=progress,
            label=f"tasks {device}",
        )
        results = harness.evaluate(model, [(task, documents[task.name].docs) for task in tasks], limit=limit)
    for name, result in results.items():
        source = documents[name]
        result |= {"documents": len(source.docs), "file": str(source.path), "sha256": source.sha256}
    return {
        "model": str(path),
        "device": device,
        "limit": limit,
        "seconds": time.perf_counter() - began,
        "tasks": results,
        "versions": {name: version(name) for name in ("sterna", "lm-eval", "datasets", "numpy")},
    }


def _special_ids(path: Path) -> tuple[int | None, int | None]:
    """Ids of the begin and the end of a sequence of a stored model or a checkpoint."""
    if (path / MANIFEST_FILE).is_file():
        manifest = Manifest.read(path)
        return manifest.bos_id, manifest.eos_id
    config = read_config(path)
    return config.get("bos_token_id"), config.get("eos_token_id")
