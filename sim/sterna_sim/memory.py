"""The memory that the simulated accelerator sees: how long it takes to answer and how much it can give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from sterna.errors import SternaError
from sterna_sim.banked import HBM2, HBM32, ZYNQ_DDR4

PORT_BYTES = 16  # data width of the DDR3 models: a burst of the chip in each beat


class Memory(Protocol):
    """What all models have in common; which one it is decides how the simulator is built and configured."""

    @property
    def size(self) -> int:
        """Bytes behind a port; host memory is taken only for what is written."""
        ...

    @property
    def port_bytes(self) -> int:
        """Data width of a port; for a model that takes any, that of the narrowest DRAM."""
        ...

    def peak_bytes(self, beat_bytes: int, ports: int = 1) -> float:
        """Bytes a cycle of long sequential reads through all ports, each of ``beat_bytes``: the unit of the roofline.

        Raises:
            SternaError: the memory has ports of another width, or another number of them.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class MemoryModel:
    """An AXI4 memory with bursts answered in order, up to 64 of them waiting in each direction.

    Reads and writes have a channel each, and each moves ``beats_numerator`` beats in ``beats_denominator`` cycles at
    most. ``stall`` and ``seed`` are for tests: they hold back ready and valid of every channel at random, within the
    rules of the protocol, and are not part of :attr:`peak`.

    Raises:
        SternaError: a value is out of range.
    """

    latency: int = (
        24  # cycles from the address handshake to the first beat, and from the last write beat to its response
    )
    beats_numerator: int = 1
    beats_denominator: int = 1
    stall: float = 0.0  # chance of a stall on a channel in a cycle, 0 <= stall < 1
    seed: int = 1
    refresh_interval: int = 0  # cycles from one refresh to the next; 0 for none
    refresh_cycles: int = 0  # cycles in which a refresh lets no data move
    size: int = 1 << 30  # bytes behind a port; host memory is taken only for what is written

    def __post_init__(self) -> None:
        _check(
            self,
            {
                "latency must be 1..1000000 cycles": 1 <= self.latency <= 1_000_000,
                "beats_numerator / beats_denominator must be above 0 and at most 1": (
                    1 <= self.beats_numerator <= self.beats_denominator <= 1 << 16
                ),
                "stall must be at least 0 and below 1": 0 <= self.stall < 1,
                "seed must be 0..2**63 - 1": 0 <= self.seed < 1 << 63,
                "refresh_cycles must be below refresh_interval": (
                    0 <= self.refresh_cycles < self.refresh_interval < 1 << 32
                    or self.refresh_cycles == self.refresh_interval == 0
                ),
                "size must be at least 4096 bytes": self.size >= 4096,
            },
        )

    @property
    def port_bytes(self) -> int:
        """See :attr:`Memory.port_bytes`."""
        return PORT_BYTES

    @property
    def peak(self) -> Fraction:
        """Beats a cycle of a long sequential read: the rate, less what refreshes take."""
        rate = Fraction(self.beats_numerator, self.beats_denominator)
        if not self.refresh_interval:
            return rate
        return rate * (self.refresh_interval - self.refresh_cycles) / self.refresh_interval

    def peak_bytes(self, beat_bytes: int, ports: int = 1) -> float:
        """Bytes a cycle of long sequential reads through any number of ports of any width."""
        return float(self.peak * beat_bytes * ports)


@dataclass(frozen=True, kw_only=True)
class Ddr3Model:
    """A DDR3 chip behind LiteDRAM's AXI4 port, as the controller of ``ecpix5-ddr3`` times it.

    Fields are cycles of the port's clock (75 MHz: half the DRAM's) unless they say otherwise, and go together: they
    were read off the controller, and ``tests/sim/test_memory_models.py`` compares both beat by beat. The rates are
    measured (``python -m sterna_sim.traffic``), in bytes a cycle; the port's limit is 8.
    """

    sequential: float = 7.446  # long sequential read, bursts of 64 beats; 7.443 where refreshes fall in odd cycles
    random: float = 4.071  # reads of 64 bytes at random places of 4 MiB, eight in flight
    row_bytes: int = 2048  # of one row of one bank; consecutive rows of the address space are in consecutive banks
    banks: int = 8
    buffered_beats: int = 16  # in flight, each way
    queue_cycles: int = 2  # from the port's accepting a beat to its bank's decision
    read_cycles: int = 16  # from a read command to the beat on the port
    write_cycles: int = 4  # from a write command to its response
    column_cycles: int = 2  # tCCD, from one column command to the next
    trcd: int = 2
    trp: int = 2
    tras: int = 4
    trc: int = 5
    write_recovery: int = 7  # from a write command to a precharge
    read_to_write: int = 13  # from the decision to write to the write command
    write_to_read: int = 8  # from a write command to a read command
    refresh_interval: int = 586  # tREFI
    refresh_cycles: int = 25  # from the last bank's coming to rest to the next command: tRP, tRFC, and three
    size: int = 1 << 29  # bytes

    @property
    def port_bytes(self) -> int:
        """See :attr:`Memory.port_bytes`."""
        return PORT_BYTES

    def peak_bytes(self, beat_bytes: int, ports: int = 1) -> float:
        """See :meth:`Memory.peak_bytes`."""
        _require_port(beat_bytes, ports)
        return self.sequential


@dataclass(frozen=True, kw_only=True)
class ControllerModel:
    """The LiteDRAM core of a recipe, Verilated, with a DDR3 chip behind its DFI.

    The chip's times are nanoseconds of its data sheet (Micron MT41K256M16, DDR3-1600, 2 KiB pages), or clocks of the
    DRAM where ``_clocks`` says so, whichever is longer; a command that comes too early is a fault.
    """

    recipe: str = "ecpix5-ddr3"
    sequential: float = Ddr3Model.sequential
    trcd: float = 13.75
    trp: float = 13.75
    tras: float = 35
    trc: float = 48.75
    trrd: float = 7.5
    trrd_clocks: int = 4
    tfaw: float = 40
    tccd_clocks: int = 4
    trtp: float = 7.5
    trtp_clocks: int = 4
    twr: float = 15
    twtr: float = 7.5
    twtr_clocks: int = 4
    trfc: float = 260
    trefi: float = 7800
    size: int = 1 << 29  # bytes

    @property
    def port_bytes(self) -> int:
        """See :attr:`Memory.port_bytes`."""
        return PORT_BYTES

    def peak_bytes(self, beat_bytes: int, ports: int = 1) -> float:
        """See :meth:`Memory.peak_bytes`."""
        _require_port(beat_bytes, ports)
        return self.sequential


def _require_port(beat_bytes: int, ports: int) -> None:
    if ports != 1:
        raise SternaError(f"the DDR3 memory has one port, the accelerator {ports}: choose hbm32 or ideal")
    if beat_bytes != PORT_BYTES:
        raise SternaError(
            f"the DDR3 memory has a port of {PORT_BYTES} bytes, the accelerator one of {beat_bytes}: choose a "
            "configuration with beats of 16 bytes, such as ecpix5"
        )


def _check(model: object, checks: Mapping[str, bool]) -> None:
    for text, holds in checks.items():
        if not holds:
            raise SternaError(f"memory model: {text} ({model})")


MODELS: dict[str, Memory] = {
    "ideal": MemoryModel(),
    "ecp5-ddr3": Ddr3Model(),
    "ecp5-ddr3-litedram": ControllerModel(),
    "zynq-ddr4": ZYNQ_DDR4,
    "hbm": HBM2,
    "hbm32": HBM32,
}


def memory_model(name: str) -> Memory:
    """The model called ``name``.

    Raises:
        SternaError: there is none of this name.
    """
    try:
        return MODELS[name]
    except KeyError:
        raise SternaError(f"there is no memory model {name!r}; choose one of {', '.join(MODELS)}") from None
