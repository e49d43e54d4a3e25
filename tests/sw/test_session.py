"""Sessions: state across calls, streaming text, errors."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from checkpoints import write_checkpoint

import sterna
from sterna.engines.engine import Step
from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.model.geometry import Geometry
from sterna.runtime.load import devices
from sterna.runtime.session import Session
from sterna.runtime.tokenizer import Tokenizer
from sterna.spec.numerics import LOGIT_FRAC

SIZES = {"hidden": 24, "layers": 2, "inner": 40, "vocab": 257}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("session")
    write_checkpoint(path / "checkpoint", seed=3, **SIZES)
    import_checkpoint(path / "checkpoint", path / "model")
    return path / "model"


class Script:
    """An engine that says what it was told to say, whatever it reads."""

    geometry = Geometry(hidden=1, layers=1, inner=1, vocab=257, rms_eps=1e-6)

    def __init__(self, says: list[int]) -> None:
        self.says, self.read, self.closed = iter(says), [], 0

    def reset(self) -> None:
        self.read.clear()

    def step(self, token: int, *, logits: bool = False) -> Step:
        self.read.append(token)
        values = np.full(257, token, np.int32) if logits else None
        return Step(next(self.says), values, {"cycles": 10})

    def close(self) -> None:
        self.closed += 1


def scripted(model: Path, says: list[int], *, tokenizer: bool = True, eos_id: int | None = 0) -> tuple[Session, Script]:
    engine = Script(says)
    opened = Tokenizer.open(model) if tokenizer else None
    return Session(engine, opened, bos_id=None, eos_id=eos_id, path=model), engine


@pytest.mark.parametrize("device", ["golden", "cpu"])
def test_two_calls_equal_one(model: Path, device: str) -> None:
    with sterna.load(model, device) as session:
        whole = session.generate("A prompt", tokens=12, stop_at_eos=False).run()
        session.reset()
        first = session.generate("A prompt", tokens=5, stop_at_eos=False).run()
        second = session.generate(tokens=7, stop_at_eos=False).run()
    assert first.ids + second.ids == whole.ids
    assert first.text + second.text == whole.text
    assert second.prompt_ids == first.ids[-1:]
    assert whole.steps == len(whole.prompt_ids) + 11
    assert set(whole.counters) == {"saturations"}


def test_devices_agree_and_logits_are_exact(model: Path) -> None:
    ids = [5, 77, 0, 256, 33]
    with sterna.load(model) as golden, sterna.load(model, device="cpu", threads=1) as cpu:
        integers = golden.forward_integers(ids)
        assert integers.shape == (5, 257)
        assert integers.dtype == np.int32
        np.testing.assert_array_equal(cpu.forward_integers(ids), integers)
        cpu.reset()
        logits = cpu.forward(np.array(ids))
        assert logits.dtype == np.float32
        np.testing.assert_array_equal(logits.astype(np.float64) * 2**LOGIT_FRAC, integers)
        cpu.reset()
        parts = [cpu.forward_integers(ids[:2]), cpu.forward_integers([]), cpu.forward_integers(ids[2:])]
        np.testing.assert_array_equal(np.concatenate(parts), integers)


def test_forward_reads_the_pending_token_first(model: Path) -> None:
    session, engine = scripted(model, [9, 8, 7, 6, 5])
    assert session.generate([1, 2], tokens=2).run().ids == [8, 7]
    assert session.forward_integers([3])[:, 0].tolist() == [3]
    assert engine.read == [1, 2, 8, 7, 3]


def test_stops_after_eos(model: Path) -> None:
    session, engine = scripted(model, [3, 0, 5, 6])
    generation = session.generate([1], tokens=4)
    assert generation.run().ids == [3, 0]
    assert generation.counters == {"cycles": 20}
    assert session.generate([7], tokens=1).run().prompt_ids == [0, 7]
    session, engine = scripted(model, [3, 0, 5, 6])
    assert session.generate([1], tokens=4, stop_at_eos=False).run().ids == [3, 0, 5, 6]
    assert engine.read == [1, 3, 0, 5]


def test_nothing_runs_before_it_is_asked_for(model: Path) -> None:
    session, engine = scripted(model, [3, 4, 5, 6])
    counted: list[int] = []
    generation = session.generate([1, 2], tokens=3, progress=counted.append)
    assert engine.read == []
    assert next(generation).id == 4
    assert (engine.read, counted, generation.ids) == ([1, 2], [1, 1], [4])
    later = session.generate(tokens=1)
    assert later.run().ids == [5]
    with pytest.raises(SternaError, match="later call"):
        next(generation)


def byte_ids(model: Path, data: bytes) -> list[int]:
    tokenizer = Tokenizer.open(model)
    assert tokenizer is not None
    table = {tokenizer.token_bytes(token): token for token in range(1, 257)}
    return [table[bytes([byte])] for byte in data]


def test_characters_are_never_torn(model: Path) -> None:
    text = "né… €𝄞 — fin"
    session, _ = scripted(model, byte_ids(model, text.encode()))
    generation = session.generate([1], tokens=len(text.encode()))
    pieces = [piece.text for piece in generation]
    assert "".join(pieces) == generation.text == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert pieces.count("") == len(text.encode()) - len(text)


def test_characters_may_span_calls(model: Path) -> None:
    session, _ = scripted(model, byte_ids(model, "€".encode()))
    assert [session.generate([1] if part == 0 else "", tokens=1).run().text for part in range(3)] == ["", "", "€"]


def test_bytes_that_are_no_text_are_replaced(model: Path) -> None:
    session, _ = scripted(model, byte_ids(model, b"\xe2\x82a\xffb"))
    assert session.generate([1], tokens=5).run().text == "\ufffda\ufffdb"


def test_without_tokenizer(model: Path) -> None:
    session, _ = scripted(model, [3, 4], tokenizer=False)
    assert session.tokenizer is None
    with pytest.raises(SternaError, match=r"has no tokenizer .*use token ids"):
        session.generate("text")
    with pytest.raises(SternaError, match="has no tokenizer"):
        session.forward("text")
    assert [(piece.id, piece.text) for piece in session.generate([1], tokens=2)] == [(3, ""), (4, "")]


def test_errors(model: Path, tmp_path: Path) -> None:
    session, engine = scripted(model, [3])
    with pytest.raises(SternaError, match="prompt is empty"):
        session.generate()
    with pytest.raises(SternaError, match="tokens must be a positive integer, not 0"):
        session.generate([1], tokens=0)
    with pytest.raises(SternaError, match="token id 257 is outside the model's vocabulary of 257"):
        session.generate([1, 257])
    with pytest.raises(SternaError, match="token id -1"):
        session.forward([-1])
    session.close()
    session.close()
    assert engine.closed == 1
    with pytest.raises(SternaError, match="session is closed"):
        session.forward([1])

    with pytest.raises(SternaError, match="no device 'abacus'; choose one of golden, cpu"):
        sterna.load(model, "abacus")
    with pytest.raises(SternaError, match="device 'golden' has no option 'threads'"):
        sterna.load(model, threads=1)
    with pytest.raises(SternaError, match="nowhere"):
        sterna.load(tmp_path / "nowhere")
    assert devices()[:2] == ("golden", "cpu")


def test_empty_prompt_starts_with_bos(model: Path) -> None:
    engine = Script([3, 4])
    session = Session(engine, None, bos_id=0, eos_id=None, path=model)
    assert session.generate(tokens=2).run().prompt_ids == [0]
    assert engine.read == [0, 3]


def test_json_tokenizer(model: Path) -> None:
    tokenizer = Tokenizer.open(model, bos_id=0)
    assert tokenizer is not None
    text = "Größe: 1 µm\n\t<ok>"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert tokenizer.token_bytes(100_000) == b""


def test_damaged_tokenizers(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(SternaError, match="SentencePiece"):
        Tokenizer.open(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(SternaError, match="cannot be read as a tokenizer"):
        Tokenizer.open(tmp_path)
    assert Tokenizer.open(tmp_path / "nothing") is None


def test_sentencepiece_tokenizer(tmp_path: Path) -> None:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the sea was calm and the ship was slow"] * 20),
        model_writer=out,
        vocab_size=290,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(out.getvalue())
    tokenizer = Tokenizer.open(tmp_path, bos_id=1)
    assert tokenizer is not None
    text = "the ship € was calm"
    ids = tokenizer.encode(text)
    assert tokenizer.encode(text, start=True) == [1, *ids]
    assert tokenizer.decode([1, *ids]) == text
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in [1, *ids]]
    assert "".join(pieces) == f" {text}"
    assert "€" in pieces
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    plain = Tokenizer.open(tmp_path, bos_id=1)
    assert plain is not None and plain.encode(text, start=True) == ids
