"""Many prompts: the same ids as each alone, on engines with slots and without."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write_checkpoint

from sterna.cli.main import main
from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.runtime.batch import continue_all
from sterna.runtime.load import load

PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11], [60, 0], [5, 5, 5, 5], [7, 8, 9]]
EMULATOR = {"device": "emulator", "config": "sim-tiny-b4"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batch")
    import_checkpoint(
        write_checkpoint(path / "checkpoint", seed=5, hidden=24, layers=2, inner=40, vocab=61), path / "m"
    )
    return path / "m"


def alone(model: Path, prompt: list[int], tokens: int) -> list[int]:
    with load(model) as session:
        return session.generate(prompt, tokens=tokens).run().ids


@pytest.mark.parametrize("options", [EMULATOR, {"device": "golden"}, {"device": "emulator", "config": "sim-tiny"}])
def test_every_prompt_is_as_alone(model: Path, options: dict[str, Any]) -> None:
    done: list[int] = []
    with load(model, **options) as session:
        session.generate([3], tokens=1).run()  # an earlier sequence does not matter
        batch = continue_all(session, PROMPTS, tokens=4, progress=done.append)
    assert [result.ids for result in batch.results] == [alone(model, prompt, 4) for prompt in PROMPTS]
    assert [result.prompt_ids for result in batch.results] == PROMPTS
    assert sum(done) == len(PROMPTS)
    # The last id of a sequence is never read, everything else once.
    assert batch.read == sum(len(result.prompt_ids) + len(result.ids) - 1 for result in batch.results)
    assert (batch.passes < batch.read / 3) == (options is EMULATOR)


def test_text(model: Path) -> None:
    with load(model, **EMULATOR) as session:
        (result,) = continue_all(session, ["t5 t34"], tokens=3).results
        assert (result.prompt_ids, result.text) == ([5, 34], session.generate("t5 t34", tokens=3).run().text)


def test_prompts_that_cannot_be_read(model: Path) -> None:
    with load(model) as session:
        with pytest.raises(SternaError, match="prompt 2 is empty"):
            continue_all(session, [[1], []])
        with pytest.raises(SternaError, match="outside the model's vocabulary"):
            continue_all(session, [[61]])


def test_command(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("1 2 3\n\n8\n"))
    arguments = ["batch", str(model), "-", "--ids", "--tokens", "3", "--device", "emulator", "--config", "sim-tiny-b4"]
    assert main([*arguments, "--json"]) == 0
    *results, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert [result["ids"] for result in results] == [alone(model, [1, 2, 3], 3), alone(model, [8], 3)]
    assert (summary["prompts"], summary["tokens"], summary["read"]) == (2, 6, 8)

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("1 2 3\n8\n")
    assert main(["batch", str(model), str(prompts), "--ids", "--tokens", "3"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1] == "8 " + " ".join(map(str, alone(model, [8], 3)))
    assert "6 tokens after 2 prompts, 8 tokens read in 8 passes" in err


@pytest.mark.parametrize(("text", "words"), [(b"\n \n", "has no prompt"), (b"\xff\n", "not UTF-8"), (None, "No such")])
def test_files_without_prompts(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: bytes | None, words: str
) -> None:
    prompts = tmp_path / "prompts.txt"
    if text is not None:
        prompts.write_bytes(text)
    assert main(["batch", str(model), str(prompts)]) == 2
    assert words in capsys.readouterr().err
