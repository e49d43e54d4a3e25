"""The training loop: straight-through ternary weights, AdamW, one learning-rate schedule over the whole budget."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from sterna.errors import SternaError
from sterna.reference.bitlinear import BitLinear
from sterna.reference.checkpoint import save_checkpoint
from sterna.reference.modeling import HGRNBitForCausalLM, head_loss
from sterna.train.config import TrainConfig
from sterna.train.data import TokenWindows, validation_chunks
from sterna.train.evaluate import Likelihood, evaluate, piece_bytes
from sterna.train.tokenizer import save_tokenizer

__all__ = ["STATE_FILE", "Progress", "Trainer"]

STATE_FILE = "state.pt"
_COLUMNS = ("step", "tokens", "seconds", "lr", "train_nats", "grad_norm", "tokens_per_second", "valid_bits_per_byte")


@dataclass(frozen=True)
class Progress:
    """What a progress callback receives after every logged step; losses are means per token in nats."""

    step: int
    tokens: int
    seconds: float
    fraction: float
    lr: float
    train_nats: float
    grad_norm: float
    tokens_per_second: float
    valid_bits_per_byte: float | None = None


class Trainer:
    """Train one model into `out`: `log.csv`, `state.pt` (to resume) and, by `export`, a Hugging Face directory.

    `train` is the training data, `valid` a uint16 [tokens] array. `progress` is called with a `Progress`.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        tokenizer: Tokenizer,
        train: TokenWindows,
        valid: np.ndarray,
        out: str | Path,
        device: str | torch.device = "cpu",
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        pieces = tokenizer.get_vocab_size()
        if pieces > config.model.vocab_size:
            raise SternaError(f"the tokenizer has {pieces} pieces, the model's vocab_size is {config.model.vocab_size}")
        self.config = config
        self.out = Path(out)
        try:
            self.device = torch.device(device)
        except RuntimeError:
            raise SternaError(f"there is no device {str(device)!r}; choose cpu, cuda or cuda:N") from None
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise SternaError("no CUDA device is available; train with --device cpu")
        self.step = 0
        self.seconds = 0.0
        self._tokenizer = tokenizer
        self._lengths = piece_bytes(tokenizer)
        self._train = train
        self._chunks = validation_chunks(valid, context=config.context)
        self._progress = progress
        self._stop = False
        self._dtype = torch.bfloat16 if config.bf16 else None
        torch.manual_seed(config.seed)
        self.model = HGRNBitForCausalLM(config.model).to(self.device)
        self._optimizer = self._make_optimizer()
        self._head = head_loss
        if config.compile:
            for layer in self.model.model.layers:
                layer.compile(dynamic=False)
            self._head = torch.compile(head_loss, dynamic=False)

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

    def request_stop(self) -> None:
        """Ask `run` to save and return after the step in progress (safe to call from a signal handler)."""
        self._stop = True

    def _make_optimizer(self) -> torch.optim.AdamW:
        ternary = [m.weight for m in self.model.modules() if isinstance(m, BitLinear) and m.weight is not None]
        chosen = {id(weight) for weight in ternary}
        rest = [weight for weight in self.model.parameters() if id(weight) not in chosen]
        groups = [{"params": ternary, "decays": True}, {"params": rest, "weight_decay": 0.0, "decays": False}]
        fused = self.device.type == "cuda"
        return torch.optim.AdamW(groups, lr=self.config.lr, betas=self.config.betas, eps=1e-8, fused=fused)

    def _train_step(self) -> tuple[Tensor, Tensor, float]:
        """One optimiser step; return (loss in nats, gradient norm, learning rate), the tensors unsynchronised."""
        config = self.config
        step_tokens = config.batch * config.context
        fraction = config.fraction(tokens=self.tokens + step_tokens, seconds=self.seconds)
        lr = config.lr_at(fraction)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
            if group["decays"]:
                group["weight_decay"] = config.weight_decay if fraction < config.weight_decay_until else 0.0
        batch = torch.from_numpy(self._train.batch(self.step, size=config.batch))
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        parts = torch.split(batch, config.micro_batch)
        loss = torch.zeros((), device=self.device)
        for part in parts:
            share = self.model.loss(part[:, :-1], part[:, 1:], dtype=self._dtype, head=self._head) / len(parts)
            share.backward()  # type: ignore[no-untyped-call]  # torch has no types here
            loss += share.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss, norm, lr

    def run(self) -> bool:
        """Train until the budget is spent (True) or a stop is requested (False); the state is saved either way."""
        config = self.config
        self._stop = False
        self.out.mkdir(parents=True, exist_ok=True)
        if self.step == 0:
            (self.out / "log.csv").unlink(missing_ok=True)
        before, mark = self.seconds, time.monotonic()
        saved, since, since_step = self.seconds, self.seconds, self.step
        while not self._stop and not self.finished:
            loss, norm, lr = self._train_step()
            last = config.fraction(tokens=self.tokens, seconds=self.seconds) >= 1
            if self.step % config.log_steps and self.step % config.valid_steps and not last:
                continue
            nats = float(loss)  # waits for the device, so the clock below is honest
            self.seconds = before + time.monotonic() - mark
            if nats != nats:
                raise SternaError(f"the loss is not a number at step {self.step}; lower the learning rate")
            rate = (self.step - since_step) * config.batch * config.context / max(1e-9, self.seconds - since)
            due = self.step % config.valid_steps == 0 or self.finished
            bits = self.validate(limit=config.valid_chunks).bits_per_byte if due else None
            self.seconds = before + time.monotonic() - mark
            since, since_step = self.seconds, self.step
            self._report(
                Progress(
                    step=self.step,
                    tokens=self.tokens,
                    seconds=self.seconds,
                    fraction=min(1.0, self.fraction),
                    lr=lr,
                    train_nats=nats,
                    grad_norm=float(norm),
                    tokens_per_second=rate,
                    valid_bits_per_byte=bits,
                )
            )
            if self.seconds - saved > config.save_seconds:
                self.save_state()
                saved = self.seconds
        self.seconds = before + time.monotonic() - mark
        self.save_state()
        return self.finished

    def _report(self, progress: Progress) -> None:
        path = self.out / "log.csv"
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            if fresh:
                writer.writerow(_COLUMNS)
            values = (getattr(progress, name) for name in _COLUMNS)
            writer.writerow("" if v is None else f"{v:.6g}" if isinstance(v, float) else v for v in values)
        if self._progress is not None:
            self._progress(progress)

    def validate(self, *, limit: int | None = None) -> Likelihood:
        """Score the first `limit` validation chunks (None: all) with the weights as they are trained."""
        chunks = self._chunks[:limit]
        return evaluate(self.model, chunks, lengths=self._lengths, batch=self.config.micro_batch, dtype=self._dtype)

    def save_state(self) -> Path:
        """Write everything that a resumed run needs to `state.pt`, under a temporary name first."""
        path = self.out / STATE_FILE
        temporary = path.with_name(f"{STATE_FILE}.tmp")
        state = {
            "config": json.dumps(self.config.to_dict()),
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        torch.save(state, temporary)
        temporary.replace(path)
        return path

    def resume(self, path: str | Path | None = None) -> None:
        """Continue from `state.pt`. The model sizes must be the same; budget and intervals may differ."""
        path = Path(path) if path is not None else self.out / STATE_FILE
        if not path.is_file():
            raise SternaError(f"no training state to resume at {path}")
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            sizes = json.loads(state["config"])["model"]
        except Exception as error:  # torch.load raises many kinds
            raise SternaError(f"{path} is not a training state: {error}") from error
        mine = json.loads(json.dumps(self.config.to_dict()))["model"]
        if changed := sorted(key for key in mine if mine[key] != sizes.get(key)):
            raise SternaError(f"{path} belongs to another model: {changed[0]} is {sizes.get(changed[0])!r} there")
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])

    @property
    def valid_tokens(self) -> int:
        """Tokens that `export` scores."""
        return int(self._chunks[:, 1:].size)

    def export(
        self,
        directory: str | Path,
        *,
        max_shard_bytes: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Likelihood:
        """Write a Hugging Face directory (weights in bfloat16) and `notes.json`; return its validation likelihood.

        What is scored is the model as written: bfloat16 weights read back, ternarised again, products in float32.
        `progress` is called with the tokens of each batch that was scored.
        """
        directory = Path(directory)
        save_checkpoint(self.model, directory, max_shard_bytes=max_shard_bytes)
        save_tokenizer(self._tokenizer, directory)
        written = HGRNBitForCausalLM(self.config.model).to(self.device)
        written.load_state_dict({k: v.bfloat16().float() for k, v in self.model.state_dict().items()})
        score = evaluate(
            written.freeze(),
            self._chunks,
            lengths=self._lengths,
            batch=max(1, self.config.micro_batch // 4),
            progress=progress,
        )
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        notes = {
            "tokens": self.tokens,
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "tokens_per_second": round(self.tokens / max(1e-9, self.seconds)),
            "device": name,
            "training_tokens_unique": self._train.tokens,
            "valid_bits_per_byte": score.bits_per_byte,
            "valid_nats_per_token": score.nats_per_token,
            "valid_tokens": score.tokens,
            "valid_bytes": score.bytes,
            "config": self.config.to_dict(),
        }
        text = json.dumps(notes, indent=2) + "\n"
        (directory / "notes.json").write_text(text, encoding="utf-8")
        return score
