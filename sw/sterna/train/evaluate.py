"""Likelihood of held-out tokens, per token and per byte of text."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tokenizers
import torch

from sterna.reference.modeling import HGRNBitForCausalLM
from sterna.runtime.tokenizer import Tokenizer
from sterna.train.parallel import Ranks

__all__ = ["Likelihood", "evaluate", "piece_bytes"]


@dataclass(frozen=True)
class Likelihood:
    """Sums over the predicted tokens."""

    nats: float
    tokens: int
    bytes: int

    @property
    def nats_per_token(self) -> float:
        """Mean negative log likelihood of a token."""
        return self.nats / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Negative log likelihood per byte of the text that the tokens stand for, in bits."""
        return self.nats / math.log(2) / max(1, self.bytes)


def piece_bytes(tokenizer: tokenizers.Tokenizer) -> np.ndarray:
    """int64 [vocabulary]: UTF-8 bytes that each piece stands for; special pieces stand for no text and count 0."""
    pieces = Tokenizer.of(tokenizer)
    largest = max(tokenizer.get_vocab().values())
    return np.array([len(pieces.token_bytes(token)) for token in range(largest + 1)], dtype=np.int64)


@torch.no_grad()
def evaluate(
    model: HGRNBitForCausalLM,
    chunks: np.ndarray,
    *,
    lengths: np.ndarray,
    batch: int,
    dtype: torch.dtype | None = None,
    ranks: Ranks | None = None,
    progress: Callable[[int], object] | None = None,
) -> Likelihood:
    """Score `chunks` (int64 [n, context + 1], see `validation_chunks`), each from a zero state.

    `lengths` is `piece_bytes`; `dtype` as in the model's `forward`; with `ranks` the processes share the work and all
    get the result; `progress` is called with the tokens of each batch.
    """
    ranks = ranks or Ranks()
    device = model.model.norm.weight.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    own = chunks[ranks.rank :: ranks.world]
    # Processes that hold shards of one model must make the same number of passes; a surplus one counts nothing.
    most = math.ceil(len(chunks) / ranks.world)
    for start in range(0, most, batch):
        rows = own[start : start + batch]
        ids = torch.from_numpy(rows if len(rows) else chunks[:1]).to(device)
        loss = model.loss(ids[:, :-1], ids[:, 1:], dtype=dtype).double()
        total += loss * rows[:, 1:].size
        if progress is not None:
            progress(rows[:, 1:].size)
    targets = chunks[:, 1:]
    nats = float(ranks.total(total))
    return Likelihood(nats=nats, tokens=int(targets.size), bytes=int(lengths[targets].sum()))
