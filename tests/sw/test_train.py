"""The trainer on a corpus of seconds: it learns, resumes exactly, exports what it scored, and names bad input."""

from __future__ import annotations

import argparse
import itertools
import json
import lzma
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
import torch
from training import CONFIG, TEXT, make, make_corpus, read_log

from sterna.cli.training import add_arguments, run_train
from sterna.errors import SternaError
from sterna.reference import load_reference
from sterna.train.config import TrainConfig
from sterna.train.configfile import preset
from sterna.train.data import TokenWindows, encode_file, load_tokens, read_documents, validation_chunks
from sterna.train.evaluate import evaluate, piece_bytes
from sterna.train.tokenizer import END_OF_TEXT, load_tokenizer, train_tokenizer
from sterna.train.trainer import Progress, Trainer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def test_loss_falls_and_export_is_what_was_scored(corpus: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    trainer = make(corpus, tmp_path / "run", progress=seen.append)
    before = trainer.validate()
    assert trainer.run() and trainer.finished
    assert seen[-1].step == 40 and seen[-1].fraction == 1.0 and seen[-1].tokens == CONFIG.total_tokens
    assert seen[-1].train_nats < seen[0].train_nats - 1
    assert seen[-1].valid_bits_per_byte is not None and seen[-1].valid_bits_per_byte < 0.7 * before.bits_per_byte

    counted: list[int] = []
    score = trainer.export(tmp_path, progress=counted.append)
    assert sum(counted) == score.tokens == trainer.valid_tokens
    again = evaluate(
        load_reference(tmp_path),
        validation_chunks(load_tokens(corpus / "valid.npy"), context=CONFIG.context),
        lengths=piece_bytes(load_tokenizer(tmp_path)),
        batch=5,
    )
    assert again.tokens == score.tokens and again.bytes == score.bytes
    assert again.nats == pytest.approx(score.nats, rel=1e-3)
    notes = json.loads((tmp_path / "notes.json").read_text())
    assert notes["steps"] == 40 and notes["valid_bits_per_byte"] == pytest.approx(score.bits_per_byte)
    rows = read_log(tmp_path / "run")
    assert [int(row["step"]) for row in rows] == list(range(4, 41, 4))
    assert float(rows[-1]["lr"]) == pytest.approx(0, abs=1e-9) and rows[-1]["valid_bits_per_byte"]


def test_schedule_is_a_function_of_the_budget() -> None:
    config = TrainConfig(total_tokens=1000, max_seconds=10.0, lr=2.0, final_lr=0.2, warmup=0.1)
    assert config.fraction(tokens=250, seconds=1.0) == 0.25
    assert config.fraction(tokens=250, seconds=9.0) == 0.9
    assert config.lr_at(0.05) == pytest.approx(1.0)
    assert config.lr_at(0.1) == pytest.approx(2.0)
    assert config.lr_at(0.55) == pytest.approx(1.1)
    assert config.lr_at(1.0) == config.lr_at(1.5) == pytest.approx(0.2)


def test_weights_decay_until_the_middle_and_norms_never(corpus: Path, tmp_path: Path) -> None:
    seen = []
    trainer = make(corpus, tmp_path, replace(CONFIG, log_steps=1, weight_decay_until=0.5))
    ternary, rest = trainer._optimizer.param_groups
    trainer._progress = lambda progress: seen.append((progress.fraction, ternary["weight_decay"], rest["weight_decay"]))
    assert trainer.run() and len(seen) == 40
    assert all((decay == 0.1) == (fraction < 0.5) and other == 0 for fraction, decay, other in seen)
    assert {weight.ndim for weight in ternary["params"]} == {2} and len(ternary["params"]) == 2 * 6 + 1


def test_time_budget_ends_the_run_with_its_schedule_complete(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=itertools.count(100.0, 0.01).__next__)
    monkeypatch.setattr("sterna.train.trainer.time", clock)
    seen: list[Progress] = []
    config = replace(CONFIG, total_tokens=10**9, max_seconds=0.5, log_steps=1, valid_steps=10**6)
    assert make(corpus, tmp_path, config, progress=seen.append).run()
    assert seen[-1].fraction == 1.0 and 10 < len(seen) < 50
    assert seen[-1].lr < 0.05 * max(p.lr for p in seen)


def test_tokens_of_documents(corpus: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(corpus)
    text = "Ça va — 海鳥 🐦\n\n  two\tspaces"
    path = tmp_path / "text.txt.xz"
    path.write_bytes(lzma.compress(f"{text}\n{END_OF_TEXT}\n\n{END_OF_TEXT}\nlast".encode()))
    assert list(read_documents(path)) == [text, "last"]
    assert encode_file(path, tmp_path / "t.npy", tokenizer=tokenizer) == len(load_tokens(tmp_path / "t.npy"))
    tokens = load_tokens(tmp_path / "t.npy", vocab_size=300)
    first, second = np.split(tokens, np.flatnonzero(tokens == 0)[:1] + 1)
    assert tokenizer.decode(first[:-1].tolist()) == text and second[-1] == 0
    assert piece_bytes(tokenizer)[tokens].sum() == len(text.encode()) + len("last")


def test_bytes_of_pieces_that_are_not_byte_level() -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"\u2581né": 0, "a": 1, END_OF_TEXT: 2}))
    tokenizer.decoder = tokenizers.decoders.Metaspace()
    tokenizer.add_special_tokens([END_OF_TEXT])
    assert piece_bytes(tokenizer).tolist() == [4, 1, 0]


def test_windows_and_chunks() -> None:
    parts = [np.arange(40, dtype=np.uint16), np.arange(100, 130, dtype=np.uint16), np.arange(3, dtype=np.uint16)]
    windows = TokenWindows(parts, context=7, seed=5)
    batch = windows.batch(3, size=500)
    assert batch.shape == (500, 8) and np.all(np.diff(batch, axis=1) == 1)
    assert set(batch[:, 0]) == {*range(33), *range(100, 123)}
    assert np.array_equal(batch, windows.batch(3, size=500)) and not np.array_equal(batch, windows.batch(4, size=500))
    chunks = validation_chunks(parts[0], context=7)
    assert chunks.shape == (5, 8) and np.array_equal(chunks[:, 1:].ravel(), np.arange(1, 36))


def command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run_train(parser.parse_args([str(argument) for argument in arguments]))


def test_command_from_text_to_checkpoint(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._train_step
    sizes = ("--context", 16, "--batch", 4, "--hidden-size", 32, "--layers", 1, "--tokens", 16 * 4 * 3, "--quiet")
    files = ("--train", corpus / "train.txt", "--valid", corpus / "valid.txt", "--out", tmp_path)
    with monkeypatch.context() as patch:
        # The first step of a run that is interrupted: Ctrl-C arrives while it computes.
        patch.setattr(Trainer, "_train_step", lambda self: (signal.raise_signal(signal.SIGINT), step(self))[1])
        assert command(*files, *sizes, "--device", "cpu", "--vocab-size", 280) == 130
    assert "state saved" in capsys.readouterr().err and (tmp_path / "run" / "state.pt").is_file()
    with pytest.raises(SternaError, match=r"state\.pt is of an earlier run: add --resume"):
        command(*files, *sizes, "--device", "cpu", "--vocab-size", 280)
    assert command(*files, *sizes, "--device", "cpu", "--vocab-size", 280, "--resume") == 0
    assert "bits per byte over" in capsys.readouterr().out
    model = load_reference(tmp_path)
    assert model.config.vocab_size == 280 and load_tokenizer(tmp_path).get_vocab_size() == 280
    again = ("--resume", "--tokens", 16 * 4 * 5, "--vocab-size", 280, "--device", "cpu")
    assert command(*files, *sizes, *again) == 0
    assert json.loads((tmp_path / "notes.json").read_text())["steps"] == 5


def test_a_small_text_gives_a_small_vocabulary_unless_another_is_asked_for(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("tern gull auk skua\n" * 20)
    files = ("--train", tmp_path / "train.txt", "--valid", corpus / "valid.txt", "--device", "cpu", "--quiet")
    sizes = ("--context", 16, "--batch", 2, "--layers", 1, "--tokens", 32)
    assert command(*files, *sizes, "--out", tmp_path / "a") == 0
    pieces = load_tokenizer(tmp_path / "a").get_vocab_size()
    assert load_reference(tmp_path / "a").config.vocab_size == pieces < 300
    assert command(*files, *sizes, "--out", tmp_path / "b", "--set", "model.vocab_size=320") == 0
    assert load_reference(tmp_path / "b").config.vocab_size == 320


def test_bad_input_is_named(corpus: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(corpus)
    cases = [
        (lambda: preset("huge"), "no preset 'huge'"),
        (lambda: preset("tiny", batch=10, micro_batch=4), "must be a multiple of micro_batch"),
        (lambda: preset("tiny", lr=-1.0), "lr must be positive"),
        (lambda: preset("tiny", total_tokens=0), "total_tokens must be a positive integer"),
        (lambda: train_tokenizer([TEXT], vocab_size=100), "vocab_size must be in"),
        (lambda: load_tokenizer(tmp_path), "no tokenizer at"),
        (lambda: load_tokens(tmp_path / "none.npy"), "no token file"),
        (lambda: load_tokens(corpus / "train.txt"), "is not a token file"),
        (lambda: load_tokens(corpus / "train.npy", vocab_size=100), "but the vocabulary has 100"),
        (lambda: TokenWindows([np.zeros(8, np.uint16)], context=8), "fewer than one window"),
        (lambda: validation_chunks(np.zeros(8, np.uint16), context=8), "do not fill one chunk"),
        (lambda: list(read_documents(tmp_path / "none.txt")), "cannot be read: No such file"),
        (lambda: make(corpus, tmp_path).resume(), "no training state"),
        (lambda: make(corpus, tmp_path, replace(CONFIG, model=preset("tiny", seed=1).model)).resume(), "no training"),
        (
            lambda: command("--train", corpus / "train.npy", "--valid", corpus / "valid.npy", "--out", tmp_path),
            "need --tokenizer",
        ),
        (lambda: command("--train", corpus / "train.txt", "--valid", "no.txt", "--out", tmp_path), "no such file"),
    ]
    cases.append((lambda: make(corpus, tmp_path, device="abacus"), "there is no device 'abacus'; choose cpu"))
    if not torch.cuda.is_available():
        cases.append((lambda: make(corpus, tmp_path, device="cuda"), "no CUDA device"))
    for action, message in cases:
        with pytest.raises(SternaError, match=message):
            action()

    empty, garbled, broken = tmp_path / "empty.txt", tmp_path / "garbled.txt", tmp_path / "broken.xz"
    empty.write_text(f"\n{END_OF_TEXT}\n")
    garbled.write_bytes("Größe\n".encode() * 5000 + b"\xff")
    broken.write_bytes(b"no xz")
    for path, message in (
        (empty, "holds no text"),
        (garbled, r"garbled\.txt is not UTF-8 at byte 40000"),
        (broken, "is not an .xz file"),
    ):
        with pytest.raises(SternaError, match=message):
            encode_file(path, tmp_path / "out.npy", tokenizer=tokenizer)
    assert not (tmp_path / "out.npy").exists()

    small = replace(CONFIG, model=replace(CONFIG.model, vocab_size=200))
    with pytest.raises(SternaError, match="the model's vocab_size is 200"):
        make(corpus, tmp_path, small)
