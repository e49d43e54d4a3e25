"""One measurement of training steps in one process: memory, time, loss curve, kernels (for `cli.bench_train`)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sterna.errors import SternaError
from sterna.reference.checkpointing import MODES
from sterna.reference.config import HGRNBitConfig
from sterna.reference.loss import head_loss
from sterna.reference.modeling import HGRNBitForCausalLM
from sterna.reference.product import ternary_product
from sterna.train.configfile import PRESETS, preset
from sterna.train.unfused import make_unfused, unfused_loss

__all__ = ["GEOMETRIES", "VARIANTS", "Task", "agreements", "curve", "kernels", "products", "steps"]

VARIANTS = ("unfused", *MODES)
GEOMETRIES = {
    "tiny": HGRNBitConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, intermediate_size=48),
    **{name: preset(name).model for name in PRESETS if name != "tiny"},
}
_WARMUP = 3  # steps before any figure: compilation, choice of tilings, state of the optimiser


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is measured: a variant of a geometry with a batch of sequences of `context` tokens."""

    variant: str
    geometry: str
    batch: int
    context: int
    device: str
    bf16: bool = True
    compile: bool = True
    lr: float = 1e-3
    seed: int = 0

    @property
    def dtype(self) -> torch.dtype | None:
        """Type of the products."""
        return torch.bfloat16 if self.bf16 else None


class _Run:
    """Model, optimiser and loss of one variant."""

    def __init__(self, task: Task) -> None:
        if task.variant not in VARIANTS:
            raise SternaError(f"there is no variant {task.variant!r}; choose from {', '.join(VARIANTS)}")
        self.task = task
        torch.manual_seed(task.seed)
        with torch.device(task.device):
            self.model = HGRNBitForCausalLM(GEOMETRIES[task.geometry])
        self.loss: Callable[[Tensor, Tensor], Tensor]
        if task.variant == "unfused":
            make_unfused(self.model)
            self.loss = lambda ids, targets: unfused_loss(self.model, ids, targets, task.dtype)
        else:
            self.model.set_checkpointing(task.variant)
            head = self.model.compile_parts() if task.compile else head_loss
            self.loss = lambda ids, targets: self.model.loss(ids, targets, dtype=task.dtype, head=head)
        fused = task.device.startswith("cuda")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=task.lr, betas=(0.9, 0.95), fused=fused)

    def step(self, ids: Tensor) -> Tensor:
        """One optimiser step on ids [batch, context + 1]; returns the loss, not waited for."""
        loss = self.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()  # type: ignore[no-untyped-call]  # torch: no types
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def random_ids(self, batch: int) -> Tensor:
        """Ids [batch, context + 1] that mean nothing."""
        size = (batch, self.task.context + 1)
        return torch.randint(self.model.config.vocab_size, size, device=self.task.device)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def steps(task: Task, *, batches: list[int], count: int, repeats: int) -> dict[str, Any]:
    """Time of a step at each batch size (median of `repeats` rounds of `count` steps) and peak memory in bytes.

    `bytes_per_sample` is the slope between the largest and the smallest batch; on a CPU memory is not measured.
    """
    run = _Run(task)
    cuda = task.device.startswith("cuda")
    result: dict[str, Any] = {"parameters": sum(p.numel() for p in run.model.parameters()), "batches": {}}
    for batch in batches:
        ids = run.random_ids(batch)
        started = time.perf_counter()
        for _ in range(_WARMUP):
            loss = run.step(ids)
        _wait(task.device)
        warm = time.perf_counter() - started
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        rounds = []
        for _ in range(repeats):
            started = time.perf_counter()
            for _ in range(count):
                loss = run.step(ids)
            _wait(task.device)
            rounds.append((time.perf_counter() - started) / count)
        seconds = statistics.median(rounds)
        result["batches"][batch] = {
            "seconds_per_step": seconds,
            "spread": max(rounds) - min(rounds),
            "tokens_per_second": batch * task.context / seconds,
            "peak_bytes": torch.cuda.max_memory_allocated() if cuda else None,
            "warmup_seconds": warm,
            "loss": float(loss),
        }
    states = [v for state in run.optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
    result["static_bytes"] = sum(t.nbytes for t in (*run.model.parameters(), *states))
    if cuda and len(batches) > 1:
        low, high = min(batches), max(batches)
        peaks = [result["batches"][batch]["peak_bytes"] for batch in (low, high)]
        result["bytes_per_sample"] = (peaks[1] - peaks[0]) / (high - low)
    return result


def curve(task: Task, *, count: int, tokens: np.ndarray | None, jitter: float = 0.0) -> list[float]:
    """Losses of `count` steps over windows of `tokens`, or of text that a random Markov chain makes.

    `jitter` disturbs the initial weights by that relative amount: two such runs show what noise is.
    """
    run = _Run(task)
    if jitter:
        with torch.no_grad():
            for parameter in run.model.parameters():
                parameter.mul_(1 + jitter * torch.randn_like(parameter))
    rng = np.random.default_rng(task.seed)
    if tokens is None:
        tokens = _markov(run.model.config.vocab_size, task.batch * (task.context + 1) * min(count, 64), rng)
    if len(tokens) <= task.context + 1:
        raise SternaError(f"{len(tokens)} tokens are too few for a context of {task.context}")
    losses = []
    for _ in range(count):
        starts = rng.integers(0, len(tokens) - task.context - 1, task.batch)
        batch = np.stack([tokens[start : start + task.context + 1] for start in starts]).astype(np.int64)
        losses.append(run.step(torch.from_numpy(batch).to(task.device)))
    return [float(loss) for loss in losses]


def _markov(vocabulary: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Tokens of 256 chains in which every token has four successors: entropy log 4 once learnt."""
    successors = rng.integers(0, vocabulary, (vocabulary, 4))
    chains = np.empty((256, -(-count // 256)), np.int64)
    last = rng.integers(0, vocabulary, 256)
    for step in range(chains.shape[1]):
        last = successors[last, rng.integers(0, 4, 256)]
        chains[:, step] = last
    return chains.ravel()[:count]


def kernels(task: Task, *, count: int = 2) -> list[dict[str, Any]]:
    """Kernels of `count` steps by time: name, calls a step, milliseconds a step; operators where there is no GPU."""
    run = _Run(task)
    ids = run.random_ids(task.batch)
    for _ in range(_WARMUP):
        run.step(ids)
    _wait(task.device)
    cuda = task.device.startswith("cuda")
    activity = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        for _ in range(count):
            run.step(ids)
        _wait(task.device)
    rows = []
    for event in profile.key_averages():
        micros = event.self_device_time_total if cuda else event.self_cpu_time_total
        rows.append({"name": event.key, "calls": event.count / count, "milliseconds": micros / 1e3 / count})
    return sorted((row for row in rows if row["milliseconds"] > 0), key=lambda row: -row["milliseconds"])


def agreements(device: str, compiled: bool) -> list[dict[str, Any]]:
    """How far each variant of a small model is from the eager one in float32 that keeps everything.

    The difference of a gradient is the root mean square of its elements' over that of the gradient.
    """
    cases = [(variant, False) for variant in MODES] + [(variant, True) for variant in ("unfused", "none", "selective")]
    rows = []
    for variant, bf16 in cases:
        torch.compiler.reset()
        task = Task(variant=variant, geometry="tiny", batch=4, context=96, device=device, bf16=bf16, compile=compiled)
        rows.append({"variant": variant, "type": "bfloat16" if bf16 else "float32", **_agreement(task)})
    return rows


def _agreement(task: Task) -> dict[str, Any]:
    reference = _gradients(_Run(replace(task, variant="none", compile=False, bf16=False)))
    mine = _gradients(_Run(task))
    differences = {name: _difference(mine[name], want) for name, want in reference.items()}
    loss = differences.pop("loss")
    worst = max(differences, key=lambda name: differences[name])
    return {"loss": loss, "median": statistics.median(differences.values()), "worst": differences[worst], "at": worst}


def _gradients(run: _Run) -> dict[str, Tensor]:
    torch.manual_seed(run.task.seed)
    ids = run.random_ids(run.task.batch)
    loss = run.loss(ids[:, :-1], ids[:, 1:])
    loss.backward()  # type: ignore[no-untyped-call]  # torch: no types
    found = {name: p.grad for name, p in run.model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


def _difference(got: Tensor, want: Tensor) -> float:
    scale = want.float().square().mean().sqrt().clamp(min=1e-12)
    return float((got.float() - want.float()).square().mean().sqrt() / scale)


def products(device: str, *, tokens: int = 16384, width: int = 2048) -> list[dict[str, Any]]:
    """The ternary product of several shapes: whether it is exact, and its rate next to that of a bfloat16 product."""
    inner = width * 11 // 4
    rows = []
    for count, inputs, outputs in (
        (tokens, width, width),
        (tokens, width, 2 * inner),
        (tokens, inner, width),
        (1000, 48, 29),  # no multiple of any tile
    ):
        q = torch.randint(-128, 128, (count, inputs), dtype=torch.int8, device=device)
        trits = torch.randint(-1, 2, (outputs, inputs), dtype=torch.int8, device=device)
        scale = torch.rand(count, 1, device=device)
        y = ternary_product(q, trits, scale, torch.float32)
        exact = torch.equal(y, (q.double() @ trits.double().t()).float() * scale)
        row: dict[str, Any] = {"tokens": count, "inputs": inputs, "outputs": outputs, "exact": exact}
        wide, trits_wide = q.bfloat16(), trits.bfloat16()
        work = 2e-12 * count * inputs * outputs
        row["tera_int8"] = work / _seconds(lambda: ternary_product(q, trits, scale, torch.bfloat16), device)  # noqa: B023
        row["tera_bf16"] = work / _seconds(lambda: F.linear(wide, trits_wide), device)  # noqa: B023
        rows.append(row)
    return rows


def _seconds(call: Callable[[], object], device: str, *, calls: int = 20) -> float:
    """Mean time of a call after a first one."""
    call()
    _wait(device)
    started = time.perf_counter()
    for _ in range(calls):
        call()
    _wait(device)
    return (time.perf_counter() - started) / calls
