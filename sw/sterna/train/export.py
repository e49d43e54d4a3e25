"""The result of a run as a Hugging Face directory, scored as written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch

from sterna.importer.publish import temporary
from sterna.reference.checkpoint import load_reference, save_checkpoint
from sterna.reference.config import HGRNBitConfig
from sterna.reference.modeling import HGRNBitForCausalLM
from sterna.train.evaluate import Likelihood, evaluate
from sterna.train.files import write_text
from sterna.train.tokenizer import save_tokenizer

__all__ = ["NOTES_FILE", "export"]

NOTES_FILE = "notes.json"
_CONFIG = "config.json"  # what makes a directory a checkpoint


def export(
    directory: Path,
    weights: Mapping[str, torch.Tensor],
    *,
    config: HGRNBitConfig,
    tokenizer: tokenizers.Tokenizer,
    notes: Mapping[str, Any],
    score: Callable[[HGRNBitForCausalLM], Likelihood] | None,
    max_shard_bytes: int | None = None,
) -> Likelihood | None:
    """Write weights in bfloat16, tokenizer and `notes.json`; return what `score` makes of the model read back.

    The files are made in a temporary directory. They get their names only when all are there, `config.json` last, so
    that `directory` is at no time a mixture that loads.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with temporary(directory / "checkpoint") as new:
        with torch.device("meta"):
            model = HGRNBitForCausalLM(config)
        model.load_state_dict(dict(weights), assign=True)
        save_checkpoint(model, new, max_shard_bytes=max_shard_bytes)
        save_tokenizer(tokenizer, new)
        result = None if score is None else score(load_reference(new))
        write_text(new / NOTES_FILE, json.dumps(dict(notes) | _scores(result), indent=2) + "\n")
        _publish(new, directory)
    return result


def score_on(
    device: torch.device,
    chunks: np.ndarray,
    *,
    lengths: np.ndarray,
    batch: int,
    progress: Callable[[int], object] | None = None,
) -> Callable[[HGRNBitForCausalLM], Likelihood]:
    """A `score` for `export`: products in float32 on `device`; `progress` is called with the tokens of each batch."""

    def score(model: HGRNBitForCausalLM) -> Likelihood:
        return evaluate(model.to(device), chunks, lengths=lengths, batch=batch, progress=progress)

    return score


def _scores(result: Likelihood | None) -> dict[str, Any]:
    if result is None:
        return {}
    return {
        "valid_bits_per_byte": result.bits_per_byte,
        "valid_nats_per_token": result.nats_per_token,
        "valid_tokens": result.tokens,
        "valid_bytes": result.bytes,
    }


def _publish(new: Path, directory: Path) -> None:
    """Move the files of `new` into `directory`, in place of an earlier checkpoint there."""
    (directory / _CONFIG).unlink(missing_ok=True)
    for stale in directory.glob("model*.safetensors*"):
        stale.unlink()
    for file in sorted(new.iterdir(), key=lambda file: file.name == _CONFIG):
        file.replace(directory / file.name)
