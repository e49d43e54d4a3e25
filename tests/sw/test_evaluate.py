"""Likelihoods: what is scored, that devices agree, and what a bad text is told."""

from __future__ import annotations

import lzma
import math
from pathlib import Path

import numpy as np
import pytest
from checkpoints import write_checkpoint

import sterna
from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.runtime import chunks, runners
from sterna.runtime import evaluate as evaluate_module
from sterna.runtime.chunks import read_tokens
from sterna.runtime.evaluate import compare, evaluate
from sterna.runtime.runners import load_float
from sterna.runtime.tokenizer import Tokenizer

TEXT = "It was a bright cold day in April — and the clocks were striking thirteen.\n"
SIZES = {"hidden": 40, "layers": 2, "inner": 56, "vocab": 261}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("evaluate") / "checkpoint", seed=5, **SIZES)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    import_checkpoint(checkpoint, checkpoint.parent / "model")
    return checkpoint.parent / "model"


@pytest.fixture(scope="module")
def text(model: Path) -> Path:
    path = model.parent / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_definition(model: Path, text: Path) -> None:
    """One token a byte: 50 tokens in chunks of 16, of which 46 are scored."""
    ids = read_tokens(text, Tokenizer.open(model), max_tokens=50)
    nats = 0.0
    with sterna.load(model, "cpu") as session:
        for start in range(0, 50, 16):
            chunk = ids[start : start + 16]
            logits = session.forward(chunk).astype(np.float64)
            logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            nats -= sum(logits[position, token] for position, token in enumerate(chunk[1:]))
            session.reset()
    result = evaluate(model, text, device="golden", max_tokens=50, chunk=16)
    assert (result["tokens"], result["bytes"], result["positions"]) == (46, 46, 50)
    assert result["nll"] == pytest.approx(nats / 46, rel=1e-9)
    assert result["perplexity"] == pytest.approx(math.exp(nats / 46), rel=1e-9)
    assert result["bits_per_byte"] == pytest.approx(nats / 46 / math.log(2), rel=1e-9)
    assert (result["device"], result["chunk"]) == ("golden", 16)


def test_devices_and_batches_agree(model: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = evaluate(model, text, chunk=10)
    cpu = evaluate(model, text, chunk=10, device="cpu", threads=1)
    assert cpu["nll"] == pytest.approx(golden["nll"], rel=1e-12)
    monkeypatch.setattr(runners._GoldenRunner, "batch", 3)
    monkeypatch.setattr(chunks, "LOGITS", 3 * 261 * 4)  # parts of four positions
    assert evaluate(model, text, chunk=10)["nll"] == pytest.approx(golden["nll"], rel=1e-12)


def test_progress_counts_every_token(model: Path, text: Path) -> None:
    counted: list[int] = []

    class Bar:
        def update(self, n: int) -> None:
            counted.append(n)

        def close(self) -> None:
            counted.append(0)

    def progress(*, total: int, label: str, unit: str) -> Bar:
        assert (total, label, unit) == (33, "eval golden", "token")
        return Bar()

    evaluate(model, text, max_tokens=33, chunk=8, progress=progress)
    assert sum(counted) == 33 and counted[-1] == 0


def test_reference_of_a_stored_model_is_that_of_its_checkpoint(model: Path, checkpoint: Path, text: Path) -> None:
    stored, published = load_float(model), load_float(checkpoint)
    for (name, ours), theirs in zip(stored.state_dict().items(), published.state_dict().values(), strict=True):
        if name == "model.lower_bounds":  # the same floors from other arguments
            ours, theirs = stored.model.forget_floors(), published.model.forget_floors()
            assert (ours - theirs).abs().max() < 2**-16
        else:  # scales differ by the order of a sum
            assert ((ours - theirs).abs() <= 1e-6 * theirs.abs()).all(), name
    ours, theirs = (evaluate(path, text, device="reference") for path in (model, checkpoint))
    assert ours["nll"] == pytest.approx(theirs["nll"], rel=1e-3)


def test_compare(model: Path, checkpoint: Path, text: Path) -> None:
    result = compare(model, text, chunk=20)
    assert result["positions"] == len(TEXT.encode())
    assert result["nll"] == pytest.approx(evaluate(model, text, chunk=20)["nll"], rel=1e-12)
    assert result["reference_nll"] == pytest.approx(
        evaluate(model, text, chunk=20, device="reference")["nll"], rel=1e-6
    )
    ratio = result["perplexity"] / result["reference_perplexity"]
    assert result["perplexity_change_percent"] == pytest.approx(100 * (ratio - 1), abs=1e-9)
    assert abs(result["perplexity_change_percent"]) < 2
    assert result["cosine_mean"] > 0.999
    assert result["top1_equal"] >= 0.9
    assert result["top1_equal_margin_0_3"] == 1
    assert 0 < result["positions_margin_0_3"] <= result["positions_margin_0_1"] <= result["positions"]
    other = compare(model, text, chunk=20, device="cpu", reference=checkpoint)
    assert other["nll"] == pytest.approx(result["nll"], rel=1e-12)
    with pytest.raises(SternaError, match="nothing to compare"):
        compare(model, text, device="reference")


def test_agreement_counts() -> None:
    agreement = evaluate_module._Agreement()
    expected = np.array([[1.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.05, 0.0, 0.0], [0.0, 2.0, 0.0]], np.float32)
    ours = np.array([[2.0, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], np.float32)
    agreement.add(ours, expected)
    assert agreement.result() == {
        "top1_equal": 0.5,
        "top1_equal_margin_0_3": 1.0,
        "positions_margin_0_3": 2,
        "top1_equal_margin_0_1": pytest.approx(2 / 3),
        "positions_margin_0_1": 3,
        "cosine_mean": 0.5,
        "cosine_min": 0.0,
    }


def test_reading(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.open(model)
    assert tokenizer is not None
    content = TEXT * 40
    plain, packed = tmp_path / "a.txt", tmp_path / "a.txt.xz"
    plain.write_text(content, encoding="utf-8")
    packed.write_bytes(lzma.compress(content.encode()))
    whole = read_tokens(plain, tokenizer)
    assert whole == read_tokens(packed, tokenizer) == tokenizer.encode(content)
    monkeypatch.setattr(chunks, "_CHARACTERS", 7)
    for limit in (1, 500, len(whole), 10 * len(whole)):
        assert read_tokens(packed, tokenizer, max_tokens=limit) == whole[:limit]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "is empty"),
        ("one.txt", b"a", "only one token"),
        ("latin.txt", "Größe".encode("latin-1"), "is not UTF-8"),
        ("broken.xz", b"not xz at all", "is not an .xz file"),
        ("cut.xz", lzma.compress(TEXT.encode() * 100)[:60], "is not an .xz file, or truncated"),
    ],
)
def test_bad_texts(model: Path, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SternaError, match=message):
        evaluate(model, path)


def test_errors(model: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(SternaError, match="cannot be read: No such file"):
        evaluate(model, tmp_path / "missing.txt")
    with pytest.raises(SternaError, match=r"no device 'gpu'; choose one of golden, cpu.*reference"):
        evaluate(model, text, device="gpu")
    with pytest.raises(SternaError, match="chunk must be at least 2"):
        evaluate(model, text, chunk=1)
    with pytest.raises(SternaError, match="max_tokens must be a positive integer"):
        evaluate(model, text, max_tokens=0)
    with pytest.raises(SternaError, match="has no option 'threads'"):
        evaluate(model, text, threads=2)
