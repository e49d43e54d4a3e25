"""Two processes under torchrun compute what one does, up to the order of sums, and take over each other's runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training import CONFIG, RUN, computed, make, make_corpus, read_log, stop_after

from sterna.cli.main import main
from sterna.errors import SternaError
from sterna.reference.checkpoint import load_trainable
from sterna.train.parallel import Ranks
from sterna.train.state import STATE_FILE

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*TORCHRUN, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def losses(run: Path) -> list[float]:
    return [float(value) for line in computed(run) for value in line if value]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus/; one/, a whole run of one process; what parallel_runs.py writes."""
    path = tmp_path_factory.mktemp("parallel")
    (path / "corpus").mkdir()
    corpus = make_corpus(path / "corpus")
    one = make(corpus, path / "one", RUN)
    assert one.run()
    one.export(path / "one")
    single = make(corpus, path / "single-ddp", RUN)
    stop_after(6, single)
    assert not single.run()
    shutil.copytree(path / "single-ddp", path / "single-fsdp")
    done = torchrun(Path(__file__).with_name("parallel_runs.py"), corpus, path)
    assert done.returncode == 0, done.stderr[-4000:]
    return path


@pytest.mark.parametrize("run", ["ddp", "fsdp", "single-ddp", "single-fsdp"])
def test_two_processes_compute_what_one_does(runs: Path, run: str) -> None:
    assert losses(runs / run) == pytest.approx(losses(runs / "one"), rel=1e-5, abs=1e-5)
    assert [row["step"] for row in read_log(runs / run)] == [str(step) for step in range(2, 13, 2)]


def test_a_checkpoint_of_shards_is_whole(runs: Path) -> None:
    one, two = (load_trainable(runs / name).state_dict() for name in ("one", "checkpoint"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0.02, atol=2e-4)  # bfloat16
    notes = [json.loads((runs / name / "notes.json").read_text()) for name in ("one", "checkpoint")]
    assert [note["processes"] for note in notes] == [1, 2]
    assert notes[0]["valid_bits_per_byte"] == pytest.approx(notes[1]["valid_bits_per_byte"], rel=1e-3)


def test_one_process_goes_on_with_a_run_of_shards(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "half", tmp_path / "run")
    trainer = make(runs / "corpus", tmp_path / "run", RUN)
    trainer.resume()
    assert trainer.step == 6 and trainer.run()
    assert losses(tmp_path / "run") == pytest.approx(losses(runs / "one"), rel=1e-5, abs=1e-5)


def test_command_under_torchrun(runs: Path, tmp_path: Path) -> None:
    corpus = runs / "corpus"
    files = ("--train", corpus / "train.txt", "--valid", corpus / "valid.txt", "--out", tmp_path / "two")
    sizes = ("--context", 16, "--batch", 4, "--hidden-size", 32, "--layers", 1, "--tokens", 16 * 4 * 6)
    options = ("--vocab-size", 280, "--log-steps", 1, "--device", "cpu", "--set", "model.intermediate_size=64")
    done = torchrun("-m", "sterna.cli.main", "train", *files, *sizes, *options, "--quiet", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["processes"] == 2
    files = (*files[:-1], tmp_path / "one")
    assert main(["train", *map(str, (*files, *sizes, *options, "--quiet"))]) == 0
    assert losses(tmp_path / "two" / "run") == pytest.approx(losses(tmp_path / "one" / "run"), rel=1e-5, abs=1e-5)
    assert (tmp_path / "two" / "run" / STATE_FILE).is_file()


def test_a_batch_must_divide(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(SternaError, match=r"batch \(8\) must be a multiple of the number of processes \(3\)"):
        make(runs / "corpus", tmp_path, CONFIG, ranks=Ranks(rank=0, world=3))
