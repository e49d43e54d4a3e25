"""Measures memory models with traffic of their own, without an accelerator: ``python -m sterna_sim.traffic``.

The manager behaves as the accelerator's ports do (``traffic.cpp``): reads with up to eight bursts in flight, an address
every second cycle at most, data taken at once; writes one burst after the other.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.errors import DeviceError, SternaError
from sterna_sim.build import controller, traffic_library
from sterna_sim.compile import Progress
from sterna_sim.memory import MODELS, PORT_BYTES, Memory, memory_model
from sterna_sim.native import MemoryConfig, memory_config

OUTSTANDING = 8  # read bursts in flight, as in the configuration ecpix5
SETTLE_CYCLES = 8  # from the opening of the port to the first burst
LIMIT_CYCLES = 100_000_000  # of one run
DRAM_MODELS = ("ecp5-ddr3", "ecp5-ddr3-litedram", "zynq-ddr4", "hbm", "hbm32")
BOUNDARY_BYTES = 4096  # that no burst of AXI4 crosses


class _BurstList(ctypes.Structure):
    _fields_ = (
        ("addresses", ctypes.c_void_p),
        ("beats", ctypes.c_void_p),
        ("count", ctypes.c_uint64),
        ("arrivals", ctypes.c_void_p),
        ("data", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Bursts:
    """Bursts in the order in which they are asked for: byte addresses and numbers of beats, both [bursts]."""

    addresses: npt.NDArray[np.uint32]
    beats: npt.NDArray[np.uint16]

    @classmethod
    def sequential(cls, beats: int, *, burst: int, start: int = 0, port_bytes: int = PORT_BYTES) -> Bursts:
        """``beats`` beats from ``start`` on, ``burst`` in each burst, of a port of ``port_bytes``."""
        count = beats // burst
        addresses = start + np.arange(count, dtype=np.uint32) * np.uint32(burst * port_bytes)
        return cls(addresses.astype(np.uint32), np.full(count, burst, np.uint16))

    @classmethod
    def random(
        cls, beats: int, *, burst: int, span: int = 1 << 22, seed: int = 1, port_bytes: int = PORT_BYTES
    ) -> Bursts:
        """``beats`` beats in bursts of ``burst`` at multiples of their size in the first ``span`` bytes."""
        places = np.random.default_rng(seed).integers(0, span // (burst * port_bytes), beats // burst)
        return cls((places * burst * port_bytes).astype(np.uint32), np.full(len(places), burst, np.uint16))

    @classmethod
    def none(cls) -> Bursts:
        """No burst."""
        return cls(np.empty(0, np.uint32), np.empty(0, np.uint16))


@dataclass(frozen=True)
class Run:
    """What a run took: all cycles, and the cycle of each beat, counted from the first request; and what was read."""

    cycles: int
    reads: npt.NDArray[np.uint64]  # [beats read], on R
    writes: npt.NDArray[np.uint64]  # [beats written], on W
    data: npt.NDArray[np.uint8]  # [beats read, bytes of a beat]

    @property
    def bytes_per_cycle(self) -> float:
        """Of both directions together."""
        return float((len(self.reads) + len(self.writes)) * self.data.shape[1] / self.cycles)


class Traffic:
    """A memory model with a manager at its port.

    Args:
        memory: The model, or its name.
        outstanding: Read bursts in flight at most.
        port: Which of the model's ports, where it has several.
        progress: Called with a few words at each step of a build.

    Raises:
        SternaError: no such model, or the library cannot be built.
    """

    def __init__(
        self,
        memory: Memory | str,
        *,
        outstanding: int = OUTSTANDING,
        port: int = 0,
        progress: Progress | None = None,
    ) -> None:
        model = memory_model(memory) if isinstance(memory, str) else memory
        dram = controller(model, progress=progress)
        self._outstanding, self._size = outstanding, model.size
        self._port_bytes = model.port_bytes
        self._library = _load(traffic_library(beat_bytes=model.port_bytes, dram=dram, progress=progress))
        handle = self._library.sterna_traffic_create(ctypes.byref(memory_config(model, dram, port=port)))
        if not handle:
            raise DeviceError(f"the host has no room for a simulated memory of {model.size} bytes")
        self._handle = ctypes.c_void_p(handle)
        weakref.finalize(self, self._library.sterna_traffic_destroy, self._handle)
        self.idle(SETTLE_CYCLES)

    @property
    def port_bytes(self) -> int:
        """Bytes of a beat."""
        return self._port_bytes

    @property
    def contents(self) -> npt.NDArray[np.uint8]:
        """The memory's bytes, [size], to be read and written behind the port; not valid without this object."""
        pointer = ctypes.cast(self._library.sterna_traffic_memory(self._handle), ctypes.POINTER(ctypes.c_uint8))
        return np.ctypeslib.as_array(pointer, (self._size,))

    def idle(self, cycles: int) -> None:
        """Clock the memory with nothing to do; raises as :meth:`run` does."""
        self._library.sterna_traffic_idle(self._handle, cycles)
        self._check()

    def run(
        self,
        reads: Bursts | None = None,
        writes: Bursts | None = None,
        *,
        data: npt.NDArray[np.uint8] | None = None,
    ) -> Run:
        """Run both lists side by side until everything is answered.

        Args:
            reads: What to read.
            writes: What to write.
            data: Contents of the writes, [beats written, bytes of a beat]; zeros when None.

        Raises:
            DeviceError: a rule of the protocol or of the DRAM was broken, or data did not come.
        """
        read, read_arrivals, read_data = _list(reads or Bursts.none(), self._port_bytes)
        write, write_arrivals, write_data = _list(writes or Bursts.none(), self._port_bytes)
        if data is not None:
            write_data[:] = data
        cycles = self._library.sterna_traffic_run(
            self._handle, ctypes.byref(read), ctypes.byref(write), self._outstanding, LIMIT_CYCLES
        )
        self._check()
        if not cycles:
            raise DeviceError(f"simulated memory: no answer within {LIMIT_CYCLES} cycles")
        return Run(cycles, read_arrivals, write_arrivals, read_data)

    def _check(self) -> None:
        text = self._library.sterna_traffic_fault(self._handle).decode()
        if text:
            raise DeviceError(f"simulated memory: {text}")


@dataclass(frozen=True)
class Rates:
    """Rates of a port of a model in bytes a cycle, and its latency in cycles from a request to its first beat."""

    model: str
    port: int  # bytes of a beat
    first_beat: int  # of a read in a closed row, nothing else under way
    sequential: float  # long read, bursts of 64 beats or 4 KiB
    random_64: float  # reads of 64 bytes, or of one beat, at random places of 4 MiB
    random_1024: float  # of 1024 bytes
    sequential_write: float  # bursts of 16 beats, one at a time


def rates(name: str, *, beats: int = 1 << 18, progress: Progress | None = None) -> Rates:
    """Measure the model ``name`` with about ``beats`` beats for each rate."""

    width = memory_model(name).port_bytes

    def rate(reads: Bursts | None = None, writes: Bursts | None = None) -> float:
        return Traffic(name, progress=progress).run(reads, writes).bytes_per_cycle

    def sequential(burst: int, count: int = beats) -> Bursts:
        return Bursts.sequential(count, burst=burst, port_bytes=width)

    def random(size: int) -> Bursts:
        return Bursts.random(beats, burst=max(1, size // width), port_bytes=width)

    longest = min(64, BOUNDARY_BYTES // width)
    return Rates(
        model=name,
        port=width,
        first_beat=int(Traffic(name, progress=progress).run(sequential(1, 1)).reads[0]),
        sequential=rate(sequential(longest)),
        random_64=rate(random(64)),
        random_1024=rate(random(1024)),
        sequential_write=rate(writes=sequential(16)),
    )


def table(measured: list[Rates]) -> str:
    """The rates in Markdown."""
    lines = [
        "| memory model | port, B | first beat, cycles | sequential, B/cycle | random 64 B | random 1 KiB | write |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {m.model} | {m.port} | {m.first_beat} | {m.sequential:.3f} | {m.random_64:.3f} | {m.random_1024:.3f} "
        f"| {m.sequential_write:.3f} |"
        for m in measured
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure the models and print the table."""
    parser = argparse.ArgumentParser(prog="python -m sterna_sim.traffic", description=__doc__)
    parser.add_argument("models", nargs="*", default=DRAM_MODELS, help=f"of {', '.join(MODELS)}")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    try:
        measured = [rates(name, progress=_note) for name in arguments.models]
    except SternaError as error:
        print(f"traffic: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps([asdict(m) for m in measured], indent=2) if arguments.json else table(measured))
    return 0


def _list(bursts: Bursts, port_bytes: int) -> tuple[_BurstList, npt.NDArray[np.uint64], npt.NDArray[np.uint8]]:
    """The C structure, and the arrays of cycles and of data that it points to."""
    addresses, beats = np.ascontiguousarray(bursts.addresses), np.ascontiguousarray(bursts.beats)
    arrivals = np.zeros(int(beats.sum()), np.uint64)
    data = np.zeros((len(arrivals), port_bytes), np.uint8)
    structure = _BurstList(addresses.ctypes.data, beats.ctypes.data, len(beats), arrivals.ctypes.data, data.ctypes.data)
    structure.arrays = (addresses, beats, arrivals, data)  # as long as the structure lives
    return structure, arrivals, data


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    u32, u64, handle = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
    bursts = ctypes.POINTER(_BurstList)
    table: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
        ("create", handle, (ctypes.POINTER(MemoryConfig),)),
        ("destroy", None, (handle,)),
        ("fault", ctypes.c_char_p, (handle,)),
        ("memory", handle, (handle,)),
        ("idle", None, (handle, u64)),
        ("run", u64, (handle, bursts, bursts, u32, u64)),
    )
    for name, result, arguments in table:
        function = getattr(library, f"sterna_traffic_{name}")
        function.restype, function.argtypes = result, arguments
    return library


def _note(words: str) -> None:
    print(f"traffic: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
