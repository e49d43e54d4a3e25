"""A run that is stopped, killed or out of memory loses nothing, and goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training import CONFIG, RUN, computed, make, make_corpus, read_log, stop_after

from sterna.cli.main import main
from sterna.errors import SternaError
from sterna.reference import load_reference
from sterna.reference.modeling import HGRNBitForCausalLM
from sterna.train.config import TrainConfig
from sterna.train.log import Log
from sterna.train.trainer import Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def same_weights(one: Trainer, other: Trainer) -> bool:
    theirs = other.model.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.model.state_dict().items())


def test_resumed_run_equals_the_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    whole = make(corpus, tmp_path / "a", RUN)
    assert whole.run()
    first = make(corpus, tmp_path / "b", RUN)
    stop_after(4, first)
    assert not first.run() and first.step == 4
    second = make(corpus, tmp_path / "b", RUN)
    second.resume()
    assert second.step == 4 and second.seconds == first.seconds > 0 and not same_weights(whole, second)
    assert second.run() and second.step == 12 and same_weights(whole, second)
    assert computed(tmp_path / "a") == computed(tmp_path / "b")
    assert not list((tmp_path / "b").glob("*.tmp"))


def test_a_stop_asked_for_before_the_run_is_heeded(corpus: Path, tmp_path: Path) -> None:
    trainer = make(corpus, tmp_path, RUN)
    trainer.request_stop()
    assert not trainer.run() and trainer.step == 0
    assert trainer.run() and trainer.step == 12


def test_steps_after_the_last_save_are_taken_and_logged_again(corpus: Path, tmp_path: Path) -> None:
    assert make(corpus, tmp_path / "a", RUN).run()
    killed = make(corpus, tmp_path / "b", RUN)
    stop_after(4, killed)
    killed.run()
    lines = (tmp_path / "a" / "log.csv").read_text().splitlines(keepends=True)
    with (tmp_path / "b" / "log.csv").open("a") as log:  # what a kill leaves: lines of later steps, the last one torn
        log.writelines([*lines[3:6], lines[6][:1]])
    resumed = make(corpus, tmp_path / "b", RUN)
    resumed.resume()
    assert resumed.run() and computed(tmp_path / "a") == computed(tmp_path / "b")


ARGUMENTS = ["--preset", "tiny", "--hidden-size", "32", "--layers", "1", "--context", "16", "--batch", "4"]
ARGUMENTS += ["--vocab-size", "280", "--log-steps", "1", "--valid-steps", "50", "--device", "cpu", "--quiet"]


def command(corpus: Path, out: Path, steps: int, *more: str) -> list[str]:
    files = ["--train", str(corpus / "train.txt"), "--valid", str(corpus / "valid.txt"), "--out", str(out)]
    return ["train", *files, *ARGUMENTS, "--tokens", str(16 * 4 * steps), *more]


def interrupted(arguments: list[str], log: Path, *, lines: int, number: signal.Signals) -> subprocess.Popen[str]:
    """Run the command and send it the signal as soon as its log has so many lines."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "sterna.cli.main", *arguments]
    process = subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 120
        while not log.exists() or log.read_text().count("\n") <= lines:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(number)
        process.wait(60)
    finally:
        process.kill()
    return process


def test_killed_and_resumed_run_equals_the_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    steps = 150
    often = ("--set", "save_seconds=0.1")
    assert main(command(corpus, tmp_path / "a", steps, *often)) == 0
    killed = interrupted(
        command(corpus, tmp_path / "b", steps, *often), tmp_path / "b/run/log.csv", lines=50, number=signal.SIGKILL
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "b" / "config.json").exists()
    assert main([*command(corpus, tmp_path / "b", steps, *often), "--resume"]) == 0
    assert computed(tmp_path / "a/run") == computed(tmp_path / "b/run")
    assert [row["step"] for row in read_log(tmp_path / "b/run")] == [str(step) for step in range(1, steps + 1)]
    one, two = (load_reference(tmp_path / name).state_dict() for name in "ab")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_sigterm_saves_the_state(corpus: Path, tmp_path: Path) -> None:
    arguments = command(corpus, tmp_path, 10_000)
    ended = interrupted(arguments, tmp_path / "run/log.csv", lines=3, number=signal.SIGTERM)
    assert ended.returncode == 128 + signal.SIGTERM
    assert ended.stderr is not None and "state saved; the same command with --resume goes on" in ended.stderr.read()
    step = int(read_log(tmp_path / "run")[-1]["step"])
    # The config of the run stands in its directory; only the budget is another one.
    files = command(corpus, tmp_path, step + 2)
    shorter = [*files[: files.index("--preset")], "--tokens", files[-1], "--device", "cpu", "--quiet", "--resume"]
    assert main(shorter) == 0 and int(read_log(tmp_path / "run")[-1]["step"]) == step + 2


def change(**values: Any) -> TrainConfig:
    return replace(CONFIG, **values)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (change(model=replace(CONFIG.model, hidden_size=64)), r"model\.hidden_size is 32 there, 64 here"),
        (change(lr=1e-3), r"lr is 0\.004 there, 0\.001 here"),
        (change(seed=1), "seed is 0 there, 1 here"),
        (change(batch=16), "batch is 8 there, 16 here"),
        (change(bf16=True), "bf16 is False there, True here"),
    ],
)
def test_a_state_of_another_run_is_refused(corpus: Path, tmp_path: Path, other: TrainConfig, message: str) -> None:
    make(corpus, tmp_path).save_state()
    with pytest.raises(SternaError, match=f"belongs to another run: {message}"):
        make(corpus, tmp_path, other).resume()


def test_other_data_is_refused(corpus: Path, tmp_path: Path) -> None:
    make(corpus, tmp_path).save_state()
    trainer = make(corpus, tmp_path)
    trainer._train._tokens[0] = trainer._train._tokens[0][:-1]
    with pytest.raises(SternaError, match=r"belongs to another run: training tokens is \[\d+\] there"):
        trainer.resume()


def test_how_the_machine_computes_may_change(corpus: Path, tmp_path: Path) -> None:
    first = make(corpus, tmp_path, RUN)
    stop_after(4, first)
    first.run()
    other = replace(RUN, micro_batch=2, log_steps=1, total_tokens=16 * 8 * 6, checkpointing="full", save_seconds=1.0)
    second = make(corpus, tmp_path, other)
    second.resume()
    assert second.run() and second.step == 6


def test_a_file_that_is_no_state(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(SternaError, match="no training state to resume at"):
        make(corpus, tmp_path).resume()
    (tmp_path / "state.pt").write_bytes(b"junk")
    with pytest.raises(SternaError, match="is not a training state"):
        make(corpus, tmp_path).resume()


def test_a_state_that_cannot_be_written_leaves_the_old_one(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(corpus, tmp_path, RUN)
    old = trainer.save_state().read_bytes()

    def full(_state: object, stream: Any) -> None:
        stream.write(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/1: file write failed\nmore")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SternaError, match=r"state\.pt cannot be written: PytorchStreamWriter failed"):
        trainer.run()
    assert trainer.out.joinpath("state.pt").read_bytes() == old
    assert not list(tmp_path.glob("*.tmp"))


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        MemoryError(),
    ],
)
def test_out_of_memory_is_a_sentence(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    trainer = make(corpus, tmp_path, RUN)
    stop_after(4, trainer)
    trainer.run()
    state = (tmp_path / "state.pt").read_bytes()
    monkeypatch.setattr(HGRNBitForCausalLM, "loss", raising(error))
    with pytest.raises(SternaError, match=r"out of memory: lower micro_batch \(now 4 .* or set checkpointing"):
        trainer.run()
    with pytest.raises(SternaError, match="out of memory"):
        trainer.export(tmp_path / "checkpoint")
    assert (tmp_path / "state.pt").read_bytes() == state
    assert not list((tmp_path / "checkpoint").iterdir())


def test_other_errors_are_not_taken_for_memory(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HGRNBitForCausalLM, "loss", raising(RuntimeError("shapes do not fit")))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        make(corpus, tmp_path).run()


def test_a_loss_that_is_not_a_number_ends_the_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(corpus, tmp_path, replace(CONFIG, lr=1e36, warmup=0.0))
    with pytest.raises(SternaError, match="the loss is not a number at step 4; lower the learning rate"):
        trainer.run()


def test_export_in_place_of_an_earlier_one(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(corpus, tmp_path / "run")
    assert trainer.export(tmp_path, max_shard_bytes=20_000) is not None
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("sterna.train.export.load_reference", raising(SternaError("broken off")))
        with pytest.raises(SternaError, match="broken off"):
            trainer.export(tmp_path)
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == before
    order: list[str] = []
    real = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: order.append(target.name) or real(path, target))
    assert trainer.export(tmp_path, score=False) is None
    assert order[-1] == "config.json" and "model.safetensors" in order
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    load_reference(tmp_path)


def test_the_curve_is_a_picture_of_the_log(corpus: Path, tmp_path: Path) -> None:
    curve = tmp_path / "loss.png"
    trainer = make(corpus, tmp_path, RUN, progress=lambda p: (p.step == 4 and not curve.exists()) or None)
    assert trainer.run()
    first = curve.read_bytes()
    assert first.startswith(b"\x89PNG") and len(first) > 5_000
    Log(tmp_path).rewind(8)
    Log(tmp_path).draw()
    assert curve.read_bytes() != first
