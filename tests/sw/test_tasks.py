"""Zero-shot tasks: scores worked out by hand, devices that agree, and what the command says."""

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
from tiny_tasks import ARC, GLUE, LAMBADA, NAMES, make_data, make_model

import sterna
from sterna.cli.main import main
from sterna.cli.tasks import text as table
from sterna.errors import SternaError
from sterna.runtime import runners
from sterna.tasks import likelihood
from sterna.tasks.definitions import CLEAN
from sterna.tasks.run import run_tasks


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def data(model: Path) -> Path:
    return make_data(model.parent / "data")


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
