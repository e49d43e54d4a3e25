"""The training loop: straight-through ternary weights, AdamW, one learning-rate schedule over the whole budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from torch import Tensor, nn

from sterna.errors import SternaError
from sterna.reference.bitlinear import BitLinear
from sterna.reference.modeling import HGRNBitForCausalLM, head_loss
from sterna.train import state
from sterna.train.config import TrainConfig
from sterna.train.data import TokenWindows, validation_chunks
from sterna.train.evaluate import Likelihood, evaluate, piece_bytes
from sterna.train.export import export, score_on
from sterna.train.log import Log, Progress
from sterna.train.memory import enough_memory, memory_bytes
from sterna.train.parallel import Loss, Ranks

__all__ = ["Trainer"]


class Trainer:
    """Train one model into `out`: the log, the loss curve, `state.pt` and, by `export`, a Hugging Face directory.

    `train` is the training data, `valid` a uint16 [tokens] array. `progress` is called with a `Progress`. With `ranks`
    every process of the run makes a Trainer of its own and calls the same methods; the first writes the files.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        tokenizer: tokenizers.Tokenizer,
        train: TokenWindows,
        valid: np.ndarray,
        out: str | Path,
        device: str | torch.device = "cpu",
        ranks: Ranks | None = None,
        progress: Callable[[Progress], object] | None = None,
    ) -> None:
        pieces = tokenizer.get_vocab_size()
        if pieces > config.model.vocab_size:
            raise SternaError(f"the tokenizer has {pieces} pieces, the model's vocab_size is {config.model.vocab_size}")
        self.out = Path(out)
        self.device = _device(device)
        self.config = config = config.resolved(self.device.type)
        self.step = 0
        self.seconds = 0.0
        self._ranks = ranks or Ranks()
        self._rows = self._ranks.rows(config.batch)
        self._tokenizer = tokenizer
        self._lengths = piece_bytes(tokenizer)
        self._train = train
        self._chunks = validation_chunks(valid, context=config.context)
        self._progress = progress
        self._log = Log(self.out)
        self._stop = False
        self._dtype = torch.bfloat16 if config.bf16 else None
        with enough_memory(self.config):
            torch.manual_seed(config.seed)
            self.model = HGRNBitForCausalLM(config.model).to(self.device)
            self.model.set_checkpointing(config.checkpointing)
            head = self.model.compile_parts() if config.compile else head_loss
            self._loss = self._ranks.wrap(Loss(self.model, dtype=self._dtype, head=head), config.parallel)
            self._optimizer = self._make_optimizer()

    @property
    def tokens(self) -> int:
        """Training tokens seen."""
        return self.step * self.config.batch * self.config.context

    @property
    def fraction(self) -> float:
        """Elapsed fraction of the budget."""
        return self.config.fraction(tokens=self.tokens, seconds=self.seconds)

    @property
    def finished(self) -> bool:
        """True once the budget is spent."""
        return self.fraction >= 1

    @property
    def valid_tokens(self) -> int:
        """Tokens that `export` scores."""
        return int(self._chunks[:, 1:].size)

    def request_stop(self) -> None:
        """Ask `run` to save and return after the step in progress (safe to call from a signal handler)."""
        self._stop = True

    def _make_optimizer(self) -> torch.optim.AdamW:
        ternary = [m.weight for m in self.model.modules() if isinstance(m, BitLinear) and m.weight is not None]
        chosen = {id(weight) for weight in ternary}
        rest = [weight for weight in self.model.parameters() if id(weight) not in chosen]
        groups: list[dict[str, Any]] = [{"params": ternary}, {"params": rest, "weight_decay": 0.0}]
        fused = self.device.type == "cuda"
        return torch.optim.AdamW(groups, lr=self.config.lr, betas=self.config.betas, eps=1e-8, fused=fused)

    def _train_step(self) -> tuple[Tensor, Tensor, float]:
        """One optimiser step; return (this process's loss in nats, gradient norm, learning rate), not waited for."""
        config = self.config
        fraction = config.fraction(tokens=self.tokens + config.batch * config.context, seconds=self.seconds)
        lr = config.lr_at(fraction)
        ternary, rest = self._optimizer.param_groups
        ternary["lr"] = rest["lr"] = lr
        ternary["weight_decay"] = config.weight_decay if fraction < config.weight_decay_until else 0.0
        batch = torch.from_numpy(self._train.batch(self.step, size=config.batch, rows=self._rows))
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        parts = torch.split(batch, config.micro_batch)
        loss = torch.zeros((), device=self.device)
        for number, part in enumerate(parts, start=1):
            with self._ranks.accumulate(self._loss, last=number == len(parts)):
                share = self._loss(part[:, :-1], part[:, 1:]) * (len(part) / len(batch))
                share.backward()
            loss += share.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss, norm, lr

    def run(self) -> bool:
        """Train until the budget is spent (True) or a stop is requested (False); the state is saved either way.

        Raises:
            SternaError: out of memory, or the loss is not a number; the state that was saved last is kept.
        """
        with enough_memory(self.config):
            return self._run()

    def _run(self) -> bool:
        config, ranks = self.config, self._ranks
        if ranks.leads:
            self._log.rewind(self.step)
        before, mark = self.seconds, time.monotonic()

        def clock() -> float:
            return ranks.largest(before + time.monotonic() - mark)

        saved, since, since_step = self.seconds, self.seconds, self.step
        while not ranks.largest(self._stop) and not self.finished:
            loss, norm, lr = self._train_step()
            if self.step % config.log_steps and self.step % config.valid_steps and not self.finished:
                continue
            nats = ranks.mean(loss)  # waits for the device, so the clock below is honest
            self.seconds = clock()
            if nats != nats:
                raise SternaError(f"the loss is not a number at step {self.step}; lower the learning rate")
            rate = (self.step - since_step) * config.batch * config.context / max(1e-9, self.seconds - since)
            due = self.step % config.valid_steps == 0 or self.finished
            score = self.validate(limit=config.valid_chunks) if due else None
            self.seconds = clock()
            since, since_step = self.seconds, self.step
            self._report(nats=nats, norm=norm, lr=lr, rate=rate, score=score)
            if self.seconds - saved > config.save_seconds:
                self.save_state()
                saved = self.seconds
        self._stop = False
        self.seconds = clock()
        self.save_state()
        return self.finished

    def _report(self, *, nats: float, norm: Tensor, lr: float, rate: float, score: Likelihood | None) -> None:
        grad_norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)  # of shards: all must ask
        if not self._ranks.leads:
            return
        progress = Progress(
            step=self.step,
            tokens=self.tokens,
            seconds=self.seconds,
            fraction=min(1.0, self.fraction),
            lr=lr,
            train_nats=nats,
            grad_norm=grad_norm,
            tokens_per_second=rate,
            memory_bytes=memory_bytes(self.device),
            valid_nats=None if score is None else score.nats_per_token,
            valid_bits_per_byte=None if score is None else score.bits_per_byte,
        )
        self._log.add(progress)
        if self._progress is not None:
            self._progress(progress)

    def validate(self, *, limit: int | None = None) -> Likelihood:
        """Score the first `limit` validation chunks (None: all) with the weights as they are trained."""
        return evaluate(
            self.model,
            self._chunks[:limit],
            lengths=self._lengths,
            batch=self.config.micro_batch,
            dtype=self._dtype,
            ranks=self._ranks,
        )

    def _identity(self) -> dict[str, object]:
        return {**self.config.identity(), "training tokens": self._train.sizes}

    def save_state(self) -> Path:
        """Write everything that a resumed run needs to `state.pt`, under a temporary name first."""
        path = self.out / state.STATE_FILE
        tensors = state.collect(self.model, self._optimizer)
        if self._ranks.leads:
            values = {**tensors, "step": self.step, "seconds": self.seconds}
            state.write(path, values, identity=self._identity())
        return path

    def resume(self, path: str | Path | None = None) -> None:
        """Continue from `state.pt`. What is computed must be the same (`TrainConfig.identity`); the rest may differ."""
        path = Path(path) if path is not None else self.out / state.STATE_FILE
        saved = state.read(path, identity=self._identity())
        state.restore(saved, self.model, self._optimizer)
        self.step, self.seconds = int(saved["step"]), float(saved["seconds"])

    def export(
        self,
        directory: str | Path,
        *,
        max_shard_bytes: int | None = None,
        score: bool = True,
        progress: Callable[[int], object] | None = None,
    ) -> Likelihood | None:
        """Write a Hugging Face directory with `notes.json`; return its likelihood on all validation chunks.

        What is scored is the model as written (None without `score`, and in other processes than the first).
        `progress` is called with the tokens of each batch that was scored.
        """
        weights = state.weights(self.model)
        result = None
        if self._ranks.leads:
            batch = max(1, self.config.micro_batch // 4)
            scorer = score_on(self.device, self._chunks, lengths=self._lengths, batch=batch, progress=progress)
            with enough_memory(self.config):
                result = export(
                    Path(directory),
                    weights,
                    config=self.config.model,
                    tokenizer=self._tokenizer,
                    notes=self._notes(),
                    score=scorer if score else None,
                    max_shard_bytes=max_shard_bytes,
                )
        self._ranks.wait()
        return result

    def _notes(self) -> dict[str, object]:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return {
            "tokens": self.tokens,
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "tokens_per_second": round(self.tokens / max(1e-9, self.seconds)),
            "device": name,
            "processes": self._ranks.world,
            "memory_bytes": memory_bytes(self.device),
            "training_tokens_unique": self._train.tokens,
            "config": self.config.to_dict(),
        }


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SternaError(f"there is no device {str(name)!r}; choose cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SternaError("no CUDA device is available; train with --device cpu")
    return device
