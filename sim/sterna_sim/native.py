"""The structures of ``config.hpp`` for ctypes, filled in from a memory model."""

from __future__ import annotations

import ctypes
from math import ceil

from sterna_boards.recipe import RECIPES, DramCore
from sterna_sim.banked import BankedModel
from sterna_sim.memory import ControllerModel, Ddr3Model, Memory, MemoryModel

_IDEAL, _DDR3, _CONTROLLER, _BANKED = 0, 1, 2, 3  # MemoryKind
_SEED_STEP = 7919  # from the stalls of one port to those of the next


def _words(*names: str) -> tuple[tuple[str, type[ctypes.c_uint32]], ...]:
    return tuple((name, ctypes.c_uint32) for name in names)


class _IdealConfig(ctypes.Structure):
    _fields_ = _words("latency", "beats_numerator", "beats_denominator", "refresh_interval", "refresh_cycles")


class _Ddr3Config(ctypes.Structure):
    _fields_ = _words(
        "row_bytes",
        "banks",
        "buffered_beats",
        "queue_cycles",
        "read_cycles",
        "write_cycles",
        "column_cycles",
        "trcd",
        "trp",
        "tras",
        "trc",
        "write_recovery",
        "read_to_write",
        "write_to_read",
        "refresh_interval",
        "refresh_cycles",
    )


class _BankedConfig(ctypes.Structure):
    _fields_ = _words(
        "beat_bytes",
        "channels",
        "rate_numerator",
        "rate_denominator",
        "latency",
        "write_latency",
        "row_beats",
        "interleave_beats",
        "banks",
        "trcd",
        "trp",
        "tras",
        "trrd",
        "read_recovery",
        "write_recovery",
        "turnaround",
        "refresh_interval",
        "refresh_cycles",
        "refresh_stagger",
        "refresh_phase",
        "beats_in_flight",
        "write_queue",
    )


class ChipConfig(ctypes.Structure):
    """A DDR3 chip's times and sizes."""

    _fields_ = _words(
        "init_register",
        "read_latency",
        "write_latency",
        "bank_bits",
        "column_bits",
        "cl",
        "cwl",
        "trcd",
        "trp",
        "tras",
        "trc",
        "trrd",
        "tfaw",
        "tccd",
        "trtp",
        "twr",
        "twtr",
        "trfc",
        "trefi",
    )


class MemoryConfig(ctypes.Structure):
    """What the memory behind a port is made with."""

    _fields_ = (
        ("bytes", ctypes.c_uint64),
        ("seed", ctypes.c_uint64),
        ("stall_threshold", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("ideal", _IdealConfig),
        ("ddr3", _Ddr3Config),
        ("banked", _BankedConfig),
        ("chip", ChipConfig),
    )


def memory_config(
    memory: Memory, core: DramCore | None = None, *, port: int = 0, reach: int | None = None
) -> MemoryConfig:
    """The structure for ``memory`` behind a port; the real controller's needs the ``core`` that was compiled.

    Args:
        memory: The model.
        core: The real controller.
        port: Which of the ports; ports stall and refresh out of step.
        reach: Bytes that the port can address; the memory is not larger.
    """
    config = MemoryConfig(bytes=memory.size if reach is None else min(memory.size, reach), seed=1)
    if isinstance(memory, MemoryModel):
        config.kind = _IDEAL
        config.seed = memory.seed + _SEED_STEP * port
        config.stall_threshold = int(memory.stall * (1 << 32))
        _copy(memory, config.ideal)
    elif isinstance(memory, Ddr3Model):
        config.kind = _DDR3
        _copy(memory, config.ddr3)
    elif isinstance(memory, BankedModel):
        config.kind = _BANKED
        for name, value in memory.cycles(port).items():
            setattr(config.banked, name, value)
    elif isinstance(memory, ControllerModel) and core is not None:
        config.kind = _CONTROLLER
        config.chip = chip_config(memory, core)
    else:
        raise TypeError(f"not a memory model, or one without its controller: {memory!r}")
    return config


def chip_config(memory: ControllerModel, core: DramCore) -> ChipConfig:
    """The chip of ``memory`` behind the controller ``core``: times in clocks, rounded up."""
    clock = 1e9 / (core.phases * RECIPES[memory.recipe].clock)  # of the DRAM, nanoseconds
    address, _ = core.registers["ddrctrl_init_done"]
    chip = ChipConfig(
        init_register=address // 4,
        bank_bits=core.bank_bits,
        column_bits=core.column_bits,
        tccd=memory.tccd_clocks,
        **{name: core.phy[name] for name in ("read_latency", "write_latency", "cl", "cwl")},
    )
    for name in ("trcd", "trp", "tras", "trc", "trrd", "tfaw", "trtp", "twr", "twtr", "trfc", "trefi"):
        setattr(chip, name, max(ceil(getattr(memory, name) / clock), getattr(memory, f"{name}_clocks", 0)))
    return chip


def _copy(model: object, structure: ctypes.Structure) -> None:
    for name, *_ in structure._fields_:
        setattr(structure, name, getattr(model, name))
