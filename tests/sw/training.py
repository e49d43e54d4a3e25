"""What the tests of the trainer share: a corpus of seconds, a configuration for it, and a trainer of both."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

from sterna.train.config import TrainConfig
from sterna.train.configfile import preset
from sterna.train.data import TokenWindows, encode_file, load_tokens
from sterna.train.tokenizer import END_OF_TEXT, load_tokenizer, save_tokenizer, train_tokenizer
from sterna.train.trainer import Trainer

BIRDS = ("tern", "gull", "auk", "skua")
PLACES = ("ice", "sea", "reef", "fjord", "delta")
TEXT = "\n".join(f"The {BIRDS[n % 4]} flew over the {PLACES[n % 5]} on day {n % 7}." for n in range(420))

CONFIG = preset("tiny", context=16, batch=8, micro_batch=8, total_tokens=16 * 8 * 40, log_steps=4, valid_steps=20)
CONFIG = replace(
    CONFIG, model=replace(CONFIG.model, vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2)
)
# Twelve steps of two passes, with everything that changes on the way: warm-up, halved rate, decay that ends.
RUN = replace(CONFIG, total_tokens=16 * 8 * 12, micro_batch=4, warmup=0.2, halve_at=0.5, log_steps=2, valid_steps=6)


def make_corpus(path: Path) -> Path:
    """Write train.txt, valid.txt, tokenizer.json and both token files into the directory `path`."""
    (path / "train.txt").write_text(f"{TEXT}\n{END_OF_TEXT}\n{TEXT[:2000]}\n{END_OF_TEXT}\n", encoding="utf-8")
    (path / "valid.txt").write_text(TEXT[:4000], encoding="utf-8")
    tokenizer = train_tokenizer([TEXT], vocab_size=300)
    save_tokenizer(tokenizer, path)
    for name in ("train", "valid"):
        encode_file(path / f"{name}.txt", path / f"{name}.npy", tokenizer=tokenizer)
    return path


def make(corpus: Path, out: Path, config: TrainConfig = CONFIG, **options: Any) -> Trainer:
    train = TokenWindows([load_tokens(corpus / "train.npy")], context=config.context, seed=config.seed)
    return Trainer(
        config,
        tokenizer=load_tokenizer(corpus),
        train=train,
        valid=load_tokens(corpus / "valid.npy"),
        out=out,
        **options,
    )


def stop_after(step: int, trainer: Trainer) -> None:
    """Make `trainer` stop after `step`, which it must log."""
    trainer._progress = lambda progress: progress.step == step and trainer.request_stop()


def read_log(run: Path) -> list[dict[str, str]]:
    """The lines of run/log.csv."""
    with (run / "log.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def computed(run: Path) -> list[tuple[str, ...]]:
    """What of each line of the log does not depend on the clock."""
    columns = ("step", "tokens", "lr", "train_nats", "grad_norm", "valid_nats", "valid_bits_per_byte")
    return [tuple(row[column] for column in columns) for row in read_log(run)]
