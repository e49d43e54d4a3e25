"""The options that say on which device a model runs, shared by the commands that run one."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from sterna.errors import SternaError

SIMULATION = ("memory", "memory_latency", "memory_rate", "waves", "wave_cycles")  # options of --device verilator
VERILATOR = "verilator"


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add --device and what belongs to it."""
    parser.add_argument(
        "--device",
        default="golden",
        metavar="D",
        help="golden (default), cpu, cuda, emulator, verilator, serial:PORT, usb",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="threads of device cpu (default: all processors)")
    group = parser.add_argument_group("accelerators")
    group.add_argument("--config", metavar="PRESET", help="configuration of the build (default: sim-small)")
    group.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        help="read memory back after loading and compare each tensor with its checksum (default: where that takes "
        "seconds, on simulated and mapped devices)",
    )
    group.add_argument("--memory", metavar="NAME", help="ideal (default), ecp5-ddr3 or ecp5-ddr3-litedram")
    group.add_argument("--memory-latency", type=int, metavar="CYCLES", help="of the ideal memory (default: 24)")
    group.add_argument("--memory-rate", metavar="BEATS", help="of it, in a cycle, such as 3/4 or 0.5 (default: 1)")
    group.add_argument("--waves", type=Path, metavar="FILE.fst", help="record all signals in this file")
    group.add_argument("--wave-cycles", metavar="A:B", help="record only the cycles from A up to B (default: all)")


def ids_of(text: str) -> list[int]:
    """Token ids in the text of a prompt."""
    try:
        return [int(word) for word in text.replace(",", " ").split()]
    except ValueError:
        raise SternaError(f"--ids wants token ids such as --prompt '443 345 695', not {text!r}") from None


def device_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of :func:`sterna.load` that the arguments ask for."""
    names = ("threads", "config", "verify", "waves")
    options = {name: value for name in names if (value := getattr(args, name)) is not None}
    if args.device != VERILATOR:
        for name in SIMULATION:
            if getattr(args, name) is not None:
                raise SternaError(
                    f"--{name.replace('_', '-')} is for the simulated accelerator: add --device {VERILATOR}"
                )
        return options
    try:
        from sterna_sim.memory import MemoryModel
    except ImportError as error:
        raise SternaError(f"device {VERILATOR!r} needs more packages ({error}): pip install 'sterna[hw]'") from error

    memory: dict[str, Any] = {}
    if args.memory_latency is not None:
        memory["latency"] = args.memory_latency
    if args.memory_rate is not None:
        memory["beats_numerator"], memory["beats_denominator"] = _rate(args.memory_rate)
    if args.wave_cycles is not None:
        if args.waves is None:
            raise SternaError("--wave-cycles says what to record: add --waves FILE.fst")
        options["wave_cycles"] = _cycles(args.wave_cycles)
    if memory and args.memory not in (None, "ideal"):
        raise SternaError(f"--memory {args.memory} has a latency and a rate of its own: leave --memory-... away")
    if memory or args.memory is not None:
        options["memory"] = MemoryModel(**memory) if memory else args.memory
    options["progress"] = _build_step
    return options


def _rate(text: str) -> tuple[int, int]:
    from fractions import Fraction

    try:
        rate = Fraction(text).limit_denominator(1 << 16)
    except (ValueError, ZeroDivisionError):
        raise SternaError(f"--memory-rate wants beats a cycle such as 1, 3/4 or 0.5, not {text!r}") from None
    return rate.numerator, rate.denominator


def _cycles(text: str) -> range:
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise SternaError(f"--wave-cycles wants two cycles such as 0:20000, not {text!r}")
    return range(int(first), int(last))


def _build_step(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr)
