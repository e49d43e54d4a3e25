"""The command line, end to end on a tiny model: what it prints, its JSON, its errors and exit codes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint

import sterna
from sterna.cli import generate
from sterna.cli.device_options import device_options
from sterna.cli.main import BROKEN_PIPE, INTERRUPTED, main
from sterna.cli.progress import progress
from sterna.errors import DeviceError

TEXT = "The quick brown fox jumps over the lazy dog.\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli")
    write_checkpoint(path / "checkpoint", hidden=24, layers=2, inner=40, vocab=257, seed=3)
    assert main(["import", str(path / "checkpoint"), str(path / "model")]) == 0
    (path / "text.txt").write_text(TEXT)
    return path / "model"


def words(command: str, model: Path) -> list[str]:
    """Words of a command; MODEL and TEXT stand for files."""
    places = {"MODEL": str(model), "TEXT": str(model.parent / "text.txt")}
    return [places.get(word, word) for word in command.split()]


@pytest.mark.parametrize("command", ["", "import", "info", "generate", "eval", "quality", "train"])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"sterna {command}" in text
    assert text.count("  sterna ") >= 2  # examples
    assert max(map(len, text.splitlines())) <= 120


def test_without_command_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sterna {sterna.__version__}\n"


def test_starts_without_heavy_imports() -> None:
    script = (
        "import sys, sterna.cli.main as cli; cli.main(['--help']);"
        "print(sorted({'torch', 'numba', 'numpy', 'tokenizers', 'tqdm'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_generate_streams_text(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sterna.load(model) as session:
        expected = session.generate("Hello", tokens=6, stop_at_eos=False).run()
    assert main(words("generate MODEL --prompt Hello --tokens 6 --ignore-eos --device cpu", model)) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{expected.text}\n"
    assert captured.err.startswith("6 tokens after a prompt of 5, ") and "tokens/s on cpu" in captured.err
    assert main(words("generate MODEL --prompt Hello --tokens 6 --ignore-eos --echo", model)) == 0
    assert capsys.readouterr().out == f"Hello{expected.text}\n"


def test_generate_ids(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words("generate MODEL --tokens 4 --ignore-eos --ids --prompt", model), "5, 7 9"]) == 0
    ids = [int(word) for word in capsys.readouterr().out.split()]
    with sterna.load(model) as session:
        assert session.generate([5, 7, 9], tokens=4, stop_at_eos=False).run().ids == ids


def test_generate_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("generate MODEL --prompt Hello --tokens 3 --ignore-eos --json", model)) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {
        *("device", "prompt_ids", "ids", "text", "tokens", "steps", "seconds", "tokens_per_second", "counters")
    }
    assert (result["device"], result["tokens"], result["steps"], len(result["ids"])) == ("golden", 3, 7, 3)


def test_cycles_are_reported() -> None:
    class Made:
        prompt_ids, ids, text, steps, seconds, counters = [1], [2, 3], "ab", 2, 4.0, {"cycles": 3000}

    result = generate._result(Made(), argparse.Namespace(device="verilator"))  # type: ignore[arg-type]
    assert result["cycles_per_token"] == 1500
    Made.counters = {"cycles": 0}
    assert "cycles_per_token" not in generate._result(Made(), argparse.Namespace(device="emulator"))  # type: ignore[arg-type]
    assert generate._summary(result) == "2 tokens after a prompt of 1, 0.5 tokens/s on verilator, 1,500 cycles/token"


def test_simulation_options() -> None:
    asked: dict[str, Any] = {"device": "verilator", "threads": None, "verify": None}
    asked |= {"config": "sim-tiny", "waves": Path("out.fst")}
    ideal = {"memory": None, "memory_latency": 100, "memory_rate": "3/4", "wave_cycles": "5:20"}
    options = device_options(argparse.Namespace(**asked, **ideal))
    memory = options["memory"]
    assert (memory.latency, memory.beats_numerator, memory.beats_denominator) == (100, 3, 4)
    assert (options["config"], options["waves"]) == ("sim-tiny", Path("out.fst"))
    assert options["wave_cycles"] == range(5, 20)
    asked |= {"memory_latency": None, "memory_rate": None, "wave_cycles": None}
    assert not {"memory", "wave_cycles"} & set(device_options(argparse.Namespace(**asked, memory=None)))
    assert device_options(argparse.Namespace(**asked, memory="ecp5-ddr3"))["memory"] == "ecp5-ddr3"


LIKELIHOOD = {"tokens", "nll", "perplexity", "bits_per_byte", "bytes", "positions", "device", "chunk"}


@pytest.mark.parametrize("device", ["golden", "cpu", "reference"])
def test_eval_json(model: Path, device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(f"eval MODEL --text TEXT --device {device} --max-tokens 20 --chunk 8 --json", model)) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == LIKELIHOOD
    assert (result["tokens"], result["positions"], result["device"]) == (17, 20, device)


def test_eval_against_reference(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words("eval MODEL --text TEXT --device golden --against reference --json", model)) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == LIKELIHOOD | {
        *("reference_nll", "reference_perplexity", "reference_bits_per_byte", "perplexity_change_percent"),
        *("top1_equal", "top1_equal_margin_0_3", "positions_margin_0_3", "top1_equal_margin_0_1"),
        *("positions_margin_0_1", "cosine_mean", "cosine_min"),
    }
    assert main(words("eval MODEL --text TEXT --against reference --max-tokens 10", model)) == 0
    text = capsys.readouterr().out
    assert "10 tokens read in chunks of 512, 9 scored" in text and "% against the reference" in text


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("generate missing --prompt a", "missing"),
        ("generate MODEL --prompt a --device abacus", "there is no device 'abacus'; choose one of golden, cpu"),
        ("generate MODEL --ids --prompt one", "--ids wants token ids"),
        ("generate MODEL --ids --prompt 999", "token id 999 is outside the model's vocabulary of 257"),
        ("generate MODEL --prompt a --tokens 0", "tokens must be a positive integer, not 0"),
        (
            "generate MODEL --prompt a --waves out.fst",
            "--waves is for the simulated accelerator: add --device",
        ),
        ("generate MODEL --prompt a --memory-latency 3 --device cpu", "--memory-latency is for the simulated"),
        ("generate MODEL --prompt a --memory-rate x --device verilator", "--memory-rate wants beats a cycle"),
        (
            "generate MODEL --prompt a --memory tape --device verilator",
            "no memory model 'tape'; choose one of ideal",
        ),
        ("generate MODEL --prompt a --memory ecp5-ddr3 --memory-rate 1 --device verilator", "a rate of its own"),
        ("generate MODEL --prompt a --memory ecp5-ddr3 --device cpu", "--memory is for the simulated accelerator"),
        ("generate MODEL --prompt a --device verilator --waves a --wave-cycles 9:9", "--wave-cycles wants two cycles"),
        ("generate MODEL --prompt a --device verilator --wave-cycles 0:9", "add --waves FILE.fst"),
        ("generate MODEL --prompt a --device verilator --config huge", "there is no configuration 'huge'"),
        ("generate MODEL --prompt a --threads 2", "device 'golden' has no option 'threads'"),
        ("generate MODEL --prompt a --threads 2 --device emulator", "device 'emulator' has no option 'threads'"),
        ("generate MODEL --prompt \udcff", r"the text is not UTF-8 at character 0: '\udcff'"),
        ("eval MODEL --text missing.txt", "the text missing.txt cannot be read"),
        ("eval MODEL --text MODEL", "cannot be read"),
        ("eval MODEL --text TEXT --device gpu", "there is no device 'gpu'"),
        ("eval MODEL --text TEXT --reference elsewhere", "add --against reference"),
        ("eval missing --text TEXT --device reference", "missing"),
        ("train --train TEXT --valid TEXT --out TEXT", "text.txt/run: Not a directory"),
    ],
)
def test_errors_are_one_sentence(model: Path, command: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(command, model)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sterna: ") and message in captured.err
    assert captured.err.count("\n") == 1


def test_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "MODEL"]) == 2
    assert "--text" in capsys.readouterr().err
    assert main(["frobnicate"]) == 2


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def device_error(args: argparse.Namespace) -> int:
        raise DeviceError("the accelerator is tired")

    def interrupt(args: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "run", device_error)
    assert main(["generate", "MODEL"]) == 3
    assert capsys.readouterr().err == "sterna: the accelerator is tired\n"
    monkeypatch.setattr(generate, "run", interrupt)
    assert main(["generate", "MODEL"]) == INTERRUPTED


@pytest.mark.parametrize(
    ("layers", "inner", "memory"), [(1, 1024, "vector_depth 1048"), (22, 40, "state_depth 528")], ids=["wide", "deep"]
)
def test_a_model_that_exceeds_the_build_is_one_sentence(
    tmp_path: Path, layers: int, inner: int, memory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "checkpoint", hidden=24, layers=layers, inner=inner, vocab=257, seed=3)
    assert main(["import", str(tmp_path / "checkpoint"), str(tmp_path / "model"), "--no-calibrate"]) == 0
    capsys.readouterr()
    asked = ["--prompt", "a", "--device", "emulator", "--config", "sim-tiny"]
    assert main(["generate", str(tmp_path / "model"), *asked]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"sterna: the model needs {memory}, configuration sim-tiny has ") and err.count("\n") == 1


def test_a_reader_that_leaves_is_no_error(model: Path) -> None:
    command = [sys.executable, "-m", "sterna.cli.main", *words("generate MODEL --prompt a --ignore-eos", model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == BROKEN_PIPE


def test_train_without_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [
        name for name in sys.modules if name.startswith(("sterna.cli.training", "sterna.train", "sterna.reference"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("sterna.cli.training", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["train", "--help"]) == 2
    assert "pip install 'sterna[train]'" in capsys.readouterr().err


def test_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(3), label="short")) == [0, 1, 2]
    assert capsys.readouterr().err == ""  # short work leaves nothing in a log
    monkeypatch.setenv("STERNA_PROGRESS", "1")
    with progress(total=2, label="drawn", unit="token") as bar:
        bar.update(2)
    assert "drawn" in capsys.readouterr().err
    monkeypatch.setenv("STERNA_PROGRESS", "0")
    with progress(total=2, label="hidden") as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""
