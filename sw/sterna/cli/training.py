"""The `train` command: argument definitions and the run itself."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from tokenizers import Tokenizer
from tqdm import tqdm

from sterna.cli.progress import progress as progress_bar
from sterna.errors import SternaError
from sterna.train.config import Checkpointing, Parallelism, TrainConfig
from sterna.train.configfile import PRESETS, build, preset_table, read_file, read_setting, to_toml
from sterna.train.data import TokenWindows, encode_file, load_tokens, sample_documents
from sterna.train.export import NOTES_FILE
from sterna.train.files import write_text
from sterna.train.log import Progress
from sterna.train.parallel import Ranks, join
from sterna.train.state import STATE_FILE
from sterna.train.tokenizer import load_tokenizer, save_tokenizer, train_tokenizer
from sterna.train.trainer import Trainer

__all__ = ["DESCRIPTION", "add_arguments", "run_train"]

DESCRIPTION = """\
Train a ternary MatMul-free model (HGRNBit) and write a Hugging Face directory.

Text files are UTF-8, plain or .xz, with a line <|endoftext|> between documents; without --tokenizer a byte-level BPE
is trained on them. Files ending in .npy are taken as tokens (uint16) and need --tokenizer.

  sterna train --train books.txt.xz --valid held-out.txt --out my-model --preset tiny
  sterna train --train a.xz b.xz --valid v.xz --out my-model --preset 30m --max-seconds 3600
  sterna train --preset 125m --print-config > my.toml     # a config to start from
  sterna train --config my.toml --set lr=3e-3 --set model.num_hidden_layers=16 --train a.npy --valid v.npy \\
      --tokenizer tokenizer.json --out my-model
  torchrun --nproc-per-node 2 -m sterna.cli.main train ...     # several GPUs, or machines that share OUT

A config is TOML with the keys of a preset; --set and the options below go over it, it goes over --preset.

OUT/run holds config.toml, log.csv, loss.png, tokenizer and tokens, and state.pt to go on from. Ctrl-C and SIGTERM save
the state; the same command with --resume goes on as if nothing had been, also after a kill, from the last save. The
model, the data, the optimiser and the seed must be the same then; the budget, intervals and use of memory may differ.
The run ends when --tokens or --max-seconds is reached, whichever comes first, and the learning rate reaches its end at
that moment."""

CONFIG_FILE = "config.toml"
_BPE_BYTES = 20_000_000

# Options that are settings by another name: option, key, type, help.
_MODEL = (
    ("--vocab-size", "model.vocab_size", int, "pieces of the tokenizer"),
    ("--hidden-size", "model.hidden_size", int, "width of the model"),
    ("--layers", "model.num_hidden_layers", int, "number of layers"),
)
_RUN = (
    ("--tokens", "total_tokens", int, "training tokens"),
    ("--max-seconds", "max_seconds", float, "training time, resumed runs added up"),
    ("--context", "context", int, "tokens per training sequence"),
    ("--batch", "batch", int, "sequences per optimiser step"),
    ("--micro-batch", "micro_batch", int, "sequences per pass (less memory)"),
    ("--lr", "lr", float, "peak learning rate"),
    ("--warmup", "warmup", float, "fraction of the run in which the rate rises"),
    ("--weight-decay", "weight_decay", float, "of ternary weights, in the first half of the run"),
    ("--log-steps", "log_steps", int, "steps between log lines"),
    ("--valid-steps", "valid_steps", int, "steps between validations"),
    ("--seed", "seed", int, "of weights and data order"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `run_train` to `parser`."""
    files = parser.add_argument_group("files")
    files.add_argument("--train", nargs="+", type=Path, metavar="FILE", help="training text or tokens")
    files.add_argument("--valid", type=Path, metavar="FILE", help="held-out text or tokens")
    files.add_argument("--out", type=Path, metavar="OUT", help="directory for the checkpoint")
    files.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json to use (default: train one)")
    files.add_argument("--resume", action="store_true", help="continue from OUT/run/state.pt")
    settings = parser.add_argument_group("settings")
    settings.add_argument("--preset", choices=PRESETS, help="sizes and schedule (default without --config: tiny)")
    settings.add_argument("--config", type=Path, metavar="FILE", help="TOML; with --resume default OUT/run/config.toml")
    settings.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one key of the config")
    settings.add_argument("--print-config", action="store_true", help="print the whole config as TOML and end")
    sizes = parser.add_argument_group("model (default: the config's)")
    budget = parser.add_argument_group("budget and optimiser (default: the config's)")
    for group, options in ((sizes, _MODEL), (budget, _RUN)):
        for option, key, kind, text in options:
            group.add_argument(option, dest=key, type=kind, metavar="N" if kind is int else "X", help=text)
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 or auto (default)")
    machine.add_argument("--bf16", action=argparse.BooleanOptionalAction, help="bfloat16 products (default: on CUDA)")
    machine.add_argument("--compile", action=argparse.BooleanOptionalAction, help="torch.compile (default: on CUDA)")
    machine.add_argument("--checkpointing", choices=get_args(Checkpointing), help="compute again to save memory")
    machine.add_argument(
        "--parallel", choices=get_args(Parallelism), help="with torchrun: copies or shards of the model"
    )
    machine.add_argument("--max-shard-mb", type=float, metavar="MB", help="split the weights into files of this size")
    machine.add_argument("--no-score", action="store_true", help="do not score the checkpoint as written")
    machine.add_argument("--quiet", action="store_true", help="no progress bar")
    machine.add_argument("--json", action="store_true", help="print the notes of the checkpoint as JSON")


def _config(args: argparse.Namespace) -> tuple[TrainConfig, bool]:
    """The run that was asked for, and whether its vocabulary was asked for other than by a preset."""
    file = args.config
    if file is None and args.preset is None and args.resume and (args.out / "run" / CONFIG_FILE).is_file():
        file = args.out / "run" / CONFIG_FILE
    base = preset_table(args.preset or "tiny") if args.preset or file is None else {}
    tables = [read_file(file)] if file is not None else []
    tables += [read_setting(text) for text in args.set]
    given = {key: getattr(args, key) for _, key, _, _ in (*_MODEL, *_RUN)}
    given |= {key: getattr(args, key) for key in ("bf16", "compile", "checkpointing", "parallel")}
    for key, value in given.items():
        if value is not None:
            group, _, name = key.rpartition(".")
            tables.append({group: {name: value}} if group else {key: value})
    named = [key for table in tables for key in (table, table.get("model", {}))]
    micro = base.get("micro_batch")
    if micro is not None and not any("micro_batch" in table for table in named):
        batch = next((table["batch"] for table in reversed(tables) if "batch" in table), base["batch"])
        base = base | {"micro_batch": min(micro, batch)}
    return build(base, *tables, source=file and str(file)), any("vocab_size" in table for table in named)


def _bar(*, quiet: bool, label: str, unit: str, total: int | None = None) -> Any:
    return tqdm(disable=True) if quiet else progress_bar(total=total, label=label, unit=unit)


def _tokenizer(args: argparse.Namespace, work: Path, vocab_size: int, *, reuse: bool) -> Tokenizer:
    if args.tokenizer is not None:
        return load_tokenizer(args.tokenizer)
    if reuse and (work / "tokenizer.json").is_file():
        return load_tokenizer(work)
    if any(path.suffix == ".npy" for path in [*args.train, args.valid]):
        raise SternaError("token files (.npy) need --tokenizer, the tokenizer they were made with")
    with _bar(quiet=args.quiet, label="train the tokenizer", unit="text") as bar:
        texts = sample_documents(args.train, max_bytes=_BPE_BYTES)
        tokenizer = train_tokenizer(_counted(texts, bar), vocab_size=vocab_size)
    save_tokenizer(tokenizer, work)
    return tokenizer


def _counted(items: Iterator[str], bar: Any) -> Iterator[str]:
    for item in items:
        yield item
        bar.update(1)


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


@contextmanager
def _stopping(trainer: Trainer) -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM end the run after its step; gives the list of the signals that came."""
    came: list[int] = []

    def stop(number: int, _frame: object) -> None:
        came.append(number)
        trainer.request_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def run_train(args: argparse.Namespace) -> int:
    """Run the command; return 0 when the budget was spent, 128 + the signal if one ended it (the state is saved)."""
    if missing := [name for name in ("train", "valid", "out") if not args.print_config and not getattr(args, name)]:
        raise SternaError(f"--{missing[0]} is missing; sterna train --help has examples")
    config, own_vocabulary = _config(args)
    if args.print_config:
        print(to_toml(config), end="")
        return 0
    for path in [*args.train, args.valid]:
        if not path.is_file():
            raise SternaError(f"no such file: {path}")
    device = ("cuda" if torch.cuda.is_available() else "cpu") if args.device == "auto" else args.device
    with join(device) as (ranks, device):
        args.quiet = args.quiet or not ranks.leads
        return _train(args, config, own_vocabulary=own_vocabulary, ranks=ranks, device=device)


def _train(args: argparse.Namespace, config: TrainConfig, *, own_vocabulary: bool, ranks: Ranks, device: str) -> int:
    work = args.out / "run"
    if (work / STATE_FILE).exists() and not args.resume:
        raise SternaError(f"{work / STATE_FILE} is of an earlier run: add --resume to go on, or choose another --out")
    work.mkdir(parents=True, exist_ok=True)
    with ranks.first_alone():
        reuse = args.resume or not ranks.leads  # the others find what the first made
        tokenizer = _tokenizer(args, work, config.model.vocab_size, reuse=reuse)
        data = _load([*args.train, args.valid], tokenizer, work, reuse=reuse, quiet=args.quiet)
    if tokenizer.get_vocab_size() < config.model.vocab_size and not own_vocabulary:
        config = replace(config, model=replace(config.model, vocab_size=tokenizer.get_vocab_size()))
    bar = _bar(quiet=args.quiet, label="train", unit="%", total=100)

    def show(progress: Progress) -> None:
        bits = progress.valid_bits_per_byte
        if bits is not None:
            bar.write(
                f"step {progress.step}: {progress.tokens} tokens, validation {bits:.4f} bits per byte", file=sys.stderr
            )
        speed, memory = progress.tokens_per_second / 1e3, progress.memory_bytes / 1e9
        text = f"{progress.train_nats:.3f} nats, {speed:.3g}k tok/s, {memory:.2g} GB"
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
            ranks=ranks,
            progress=show,
        )
        if args.resume:
            trainer.resume()
        if ranks.leads:
            write_text(work / CONFIG_FILE, to_toml(trainer.config))
        with _stopping(trainer) as signals:
            finished = trainer.run()
    if not finished:
        if ranks.leads:
            text = f"stopped at step {trainer.step}, state saved; the same command with --resume goes on"
            print(text, file=sys.stderr)
        return 128 + (signals[0] if signals else signal.SIGTERM)
    shard = None if args.max_shard_mb is None else int(args.max_shard_mb * 1e6)
    with _bar(quiet=args.quiet, label="score", unit="token", total=trainer.valid_tokens) as bar:
        score = trainer.export(args.out, max_shard_bytes=shard, score=not args.no_score, progress=bar.update)
    if args.json and ranks.leads:
        print(json.dumps(json.loads((args.out / NOTES_FILE).read_text(encoding="utf-8"))))
    elif ranks.leads:
        result = f": {score.bits_per_byte:.4f} bits per byte over {score.tokens} held-out tokens" if score else ""
        print(f"{args.out}{result}")
    return 0
