"""The `train` command: argument definitions and the run itself."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from sterna.cli.progress import progress as progress_bar
from sterna.errors import SternaError
from sterna.train.config import PRESETS, TrainConfig, preset
from sterna.train.data import TokenWindows, encode_file, load_tokens, sample_documents
from sterna.train.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from sterna.train.trainer import STATE_FILE, Progress, Trainer

__all__ = ["DESCRIPTION", "add_arguments", "run_train"]

DESCRIPTION = """\
Train a ternary MatMul-free model (HGRNBit) and write a Hugging Face directory.

Text files are UTF-8, plain or .xz, with a line <|endoftext|> between documents; without --tokenizer a byte-level BPE
is trained on them. Files ending in .npy are taken as tokens (uint16) and need --tokenizer.

  sterna train --train books.txt.xz --valid held-out.txt --out my-model --preset tiny
  sterna train --train a.xz b.xz --valid v.xz --out my-model --preset 30m --max-seconds 3600

Ctrl-C saves the state; the same command with --resume goes on. The run ends when --tokens or --max-seconds is reached,
whichever comes first, and the learning rate reaches its end at that moment."""

_BPE_BYTES = 20_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run_train` to `parser`."""
    files = parser.add_argument_group("files")
    files.add_argument("--train", nargs="+", required=True, type=Path, metavar="FILE", help="training text or tokens")
    files.add_argument("--valid", required=True, type=Path, metavar="FILE", help="held-out text or tokens")
    files.add_argument("--out", required=True, type=Path, metavar="DIR", help="directory for the checkpoint")
    files.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json to use (default: train one)")
    files.add_argument("--resume", action="store_true", help="continue from DIR/run/state.pt")
    sizes = parser.add_argument_group("model (default: the preset's)")
    sizes.add_argument("--preset", choices=sorted(PRESETS), default="tiny", help="sizes and schedule (default: tiny)")
    sizes.add_argument("--vocab-size", type=int, metavar="N", help="pieces of the tokenizer")
    sizes.add_argument("--hidden-size", type=int, metavar="N", help="width of the model")
    sizes.add_argument("--layers", type=int, metavar="N", help="number of layers")
    budget = parser.add_argument_group("budget and optimiser (default: the preset's)")
    budget.add_argument("--tokens", type=int, metavar="N", help="training tokens")
    budget.add_argument("--max-seconds", type=float, metavar="S", help="training time, resumed runs added up")
    budget.add_argument("--context", type=int, metavar="N", help="tokens per training sequence")
    budget.add_argument("--batch", type=int, metavar="N", help="sequences per optimiser step")
    budget.add_argument("--micro-batch", type=int, metavar="N", help="sequences per pass (less memory)")
    budget.add_argument("--lr", type=float, help="peak learning rate")
    budget.add_argument("--warmup", type=float, metavar="F", help="fraction of the run in which the rate rises")
    budget.add_argument("--weight-decay", type=float, help="of ternary weights, in the first half of the run")
    budget.add_argument("--log-steps", type=int, metavar="N", help="steps between log lines")
    budget.add_argument("--valid-steps", type=int, metavar="N", help="steps between validations")
    budget.add_argument("--seed", type=int, help="of weights and data order")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 or auto (default)")
    machine.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="bfloat16 products (default: on CUDA)")
    machine.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile (default: on CUDA)")
    machine.add_argument("--max-shard-mb", type=float, metavar="MB", help="split the weights into files of this size")
    machine.add_argument("--quiet", action="store_true", help="no progress bar")


def _config(args: argparse.Namespace, *, cuda: bool) -> TrainConfig:
    config = preset(
        args.preset,
        context=args.context,
        batch=args.batch,
        micro_batch=args.micro_batch if args.micro_batch or not args.batch else min(args.batch, _micro(args.preset)),
        total_tokens=args.tokens,
        max_seconds=args.max_seconds,
        lr=args.lr,
        warmup=args.warmup,
        weight_decay=args.weight_decay,
        log_steps=args.log_steps,
        valid_steps=args.valid_steps,
        seed=args.seed,
        bf16=cuda if args.bf16 is None else args.bf16,
        compile=cuda if args.compile is None else args.compile,
    )
    sizes = {"vocab_size": args.vocab_size, "hidden_size": args.hidden_size, "num_hidden_layers": args.layers}
    return replace(config, model=replace(config.model, **{k: v for k, v in sizes.items() if v is not None}))


def _bar(*, quiet: bool, label: str, unit: str, total: int | None = None) -> Any:
    return tqdm(disable=True) if quiet else progress_bar(total=total, label=label, unit=unit)


def _micro(name: str) -> int:
    return PRESETS[name].micro_batch


def _tokenizer(args: argparse.Namespace, work: Path, vocab_size: int) -> Tokenizer:
    if args.tokenizer is not None:
        return load_tokenizer(args.tokenizer)
    if (work / "tokenizer.json").is_file() and args.resume:
        return load_tokenizer(work)
    if any(path.suffix == ".npy" for path in [*args.train, args.valid]):
        raise SternaError("token files (.npy) need --tokenizer, the tokenizer they were made with")
    tokenizer = train_tokenizer(sample_documents(args.train, max_bytes=_BPE_BYTES), vocab_size=vocab_size)
    save_tokenizer(tokenizer, work)
    return tokenizer


def _load(paths: Sequence[Path], tokenizer: Tokenizer, work: Path, *, reuse: bool, quiet: bool) -> list[np.ndarray]:
    vocabulary = tokenizer.get_vocab_size()
    arrays = []
    for number, path in enumerate(paths):
        if path.suffix == ".npy":
            arrays.append(load_tokens(path, vocab_size=vocabulary))
            continue
        out = work / f"{number:03d}-{path.name.split('.')[0]}.npy"
        if not (reuse and out.is_file()):
            with _bar(quiet=quiet, label=f"tokenise {path.name}", unit="B") as bar:
                encode_file(path, out, tokenizer=tokenizer, progress=bar.update)
        arrays.append(load_tokens(out, vocab_size=vocabulary))
    return arrays


def run_train(args: argparse.Namespace) -> int:
    """Run the command; return 0 when the budget was spent, 130 when Ctrl-C ended it early (the state is saved)."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    config = _config(args, cuda=device.startswith("cuda"))
    for path in [*args.train, args.valid]:
        if not path.is_file():
            raise SternaError(f"no such file: {path}")
    work = args.out / "run"
    if (work / STATE_FILE).exists() and not args.resume:
        raise SternaError(f"{work / STATE_FILE} is of an earlier run: add --resume to go on, or choose another --out")
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(args, work, config.model.vocab_size)
    if tokenizer.get_vocab_size() < config.model.vocab_size and args.vocab_size is None:
        config = replace(config, model=replace(config.model, vocab_size=tokenizer.get_vocab_size()))
    data = _load([*args.train, args.valid], tokenizer, work, reuse=args.resume, quiet=args.quiet)
    bar = _bar(quiet=args.quiet, label="train", unit="%", total=100)

    def show(progress: Progress) -> None:
        bits = progress.valid_bits_per_byte
        if bits is not None:
            bar.write(
                f"step {progress.step}: {progress.tokens} tokens, validation {bits:.4f} bits per byte", file=sys.stderr
            )
        text = f"{progress.train_nats:.3f} nats/token, {progress.tokens_per_second:.0f} token/s"
        bar.set_postfix_str(text, refresh=sys.stderr.isatty())
        bar.n = round(100 * progress.fraction, 1)
        bar.update(0)

    with bar:
        trainer = Trainer(
            config,
            tokenizer=tokenizer,
            train=TokenWindows(data[:-1], context=config.context, seed=config.seed),
            valid=data[-1],
            out=work,
            device=device,
            progress=show,
        )
        if args.resume:
            trainer.resume()
        previous = signal.signal(signal.SIGINT, lambda *_: trainer.request_stop())
        try:
            finished = trainer.run()
        finally:
            signal.signal(signal.SIGINT, previous or signal.SIG_DFL)
    if not finished:
        print(f"stopped at step {trainer.step}, state saved; the same command with --resume goes on", file=sys.stderr)
        return 130
    shard = None if args.max_shard_mb is None else int(args.max_shard_mb * 1e6)
    with _bar(quiet=args.quiet, label="score", unit="token", total=trainer.valid_tokens) as bar:
        score = trainer.export(args.out, max_shard_bytes=shard, progress=bar.update)
    print(f"{args.out}: {score.bits_per_byte:.4f} bits per byte over {score.tokens} held-out tokens")
    return 0
