"""The accelerator under Verilator as a transport: the same contract as a board (``sterna.engines.transport``)."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sterna.engines.transport import Transport, register_offset
from sterna.errors import DeviceError, SternaError
from sterna.spec.config import HardwareConfig, preset
from sterna.spec.registers import Control, Status
from sterna_sim import build
from sterna_sim.compile import Progress
from sterna_sim.device import Device, Outcome, Traffic
from sterna_sim.memory import Memory, MemoryModel, memory_model
from sterna_sim.native import memory_config

CHUNK_CYCLES = 50_000  # between two looks at the wall clock; a fraction of a second


class VerilatorTransport(Transport):
    """A simulated accelerator with its memory; of clusters, each has a memory, at ``channel_bytes`` a cluster.

    The first use of a configuration compiles it, which may take a minute.

    Memory is reached behind the model's back; registers go through the model's pins and take cycles.

    Args:
        config: The configuration, or the name of a preset.
        memory: How the memory behaves, or the name of a model (``sterna_sim.memory.MODELS``).
        waves: File for the waves (FST); needs a slower build of its own.
        wave_cycles: Cycles to record, counted from the making of the device; all when None.
        verilog: Verilog of the top module instead of the generated one.
        timeout: Seconds of wall time that :meth:`wait` allows when its caller names none.
        cycle_limit: Cycles that one wait may take.
        quiet_limit: Cycles without a transfer on any memory port after which the accelerator counts as hung.
        progress: Called with a few words at each step of a build.

    Raises:
        SternaError: an unknown preset or memory model, a memory that does not fit the port, or a failed build.
        DeviceError: no host memory, or the library does not fit the configuration.
    """

    def __init__(
        self,
        config: HardwareConfig | str = "sim-small",
        *,
        memory: Memory | str | None = None,
        waves: Path | str | None = None,
        wave_cycles: range | None = None,
        verilog: str | None = None,
        timeout: float = 3600.0,
        cycle_limit: int = 1_000_000_000,
        quiet_limit: int = 500_000,
        progress: Progress | None = None,
    ):
        self._config = preset(config) if isinstance(config, str) else config
        self._memory: Memory = memory_model(memory) if isinstance(memory, str) else memory or MemoryModel()
        self._memory.peak_bytes(self._config.beat_bytes, self._config.clusters)  # refuses other ports
        self._timeout, self._cycle_limit, self._quiet_limit = timeout, cycle_limit, quiet_limit
        target = Path(waves).resolve() if waves is not None else None
        if target is not None:
            _require_writable(target)
        text = verilog if verilog is not None else build.verilog(self._config, progress=progress)
        dram = build.controller(self._memory, progress=progress)
        ports = self._config.clusters
        library = build.library(text, ports=ports, dram=dram, waves=target is not None, progress=progress)
        window = self._config.channel_bytes
        memories = [memory_config(self._memory, dram, port=port, reach=window) for port in range(ports)]
        self._device = Device(library, memories, window=window, waves=target, wave_cycles=wave_cycles)
        if self._device.beat_bytes != self._config.beat_bytes:
            width = self._device.beat_bytes
            self.close()
            raise DeviceError(
                f"the simulated memory port has {width} bytes, {self._config.name} has {self._config.beat_bytes}"
            )

    @property
    def config(self) -> HardwareConfig:
        """The configuration that the model was generated with."""
        return self._config

    @property
    def memory(self) -> Memory:
        """The memory behind the accelerator, with its peak rate."""
        return self._memory

    @property
    def cycle(self) -> int:
        """Clock cycles since the device was made."""
        return self._device.cycle

    @property
    def traffic(self) -> Traffic:
        """What passed the memory ports since the device was made."""
        return self._device.traffic

    @property
    def memory_bytes(self) -> int:
        """See :attr:`Transport.memory_bytes`."""
        return self._memory.size

    @property
    def fast_memory(self) -> bool:
        """See :attr:`Transport.fast_memory`."""
        return True

    def read_memory(self, address: int, size: int) -> bytes:
        """See :meth:`Transport.read_memory`; takes no cycles."""
        return self._device.read_memory(address, size)

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """See :meth:`Transport.write_memory`; takes no cycles."""
        self._device.write_memory(address, data)

    def read_register(self, name: str) -> int:
        """See :meth:`Transport.read_register`; takes a few cycles."""
        return self._device.read_register(register_offset(name))

    def write_register(self, name: str, value: int) -> None:
        """See :meth:`Transport.write_register`; takes a few cycles. START clears the trace."""
        offset = register_offset(name, value=value)
        if name == "CONTROL" and value & Control.START:
            self._device.clear_trace()
        self._device.write_register(offset, value)

    def wait(self, mask: Status, timeout: float | None = None) -> Status:
        """See :meth:`Transport.wait`; limited in cycles too, and by a memory port that has gone quiet."""
        limit = self._timeout if timeout is None else timeout
        started, first = time.monotonic(), self._device.cycle
        offset = register_offset("STATUS")
        self._device.wait_begin()
        while True:
            left = self._cycle_limit - (self._device.cycle - first)
            outcome, value = self._device.wait(
                offset, mask, cycles=min(CHUNK_CYCLES, max(left, 0)), quiet=self._quiet_limit
            )
            status = Status(value)
            if outcome is Outcome.MET:
                return status
            cycles, seconds = self._device.cycle - first, time.monotonic() - started
            reason = ""
            if outcome is Outcome.QUIET:
                reason = f"nothing passed the memory port for {self._quiet_limit} cycles"
            elif cycles >= self._cycle_limit:
                reason = f"the limit is {self._cycle_limit} cycles"
            elif seconds >= limit:
                reason = f"the limit is {limit:g} s"
            if reason:
                raise DeviceError(
                    f"time-out: the simulated accelerator did not reach {mask!r} in {cycles} cycles, {seconds:.1f} s "
                    f"({reason}); STATUS is {status!r}"
                )

    def reset(self) -> None:
        """Pulse the reset pin; memory contents stay, errors noted by the harness are forgotten."""
        self._device.reset()

    def close(self) -> None:
        """Free the model and finish its waves."""
        self._device.close()

    def take_trace(self, slot: int = 0) -> npt.NDArray[np.int32]:
        """Row results of a slot, or of a cluster, since the last START or call, in the order of their making."""
        return self._device.take_trace(slot)

    def run(self, cycles: int) -> None:
        """Clock the model with the register port idle."""
        self._device.run(cycles)

    def fail_reads(self, addresses: range | None) -> None:
        """Answer reads of these byte addresses with an error response (SLVERR); None ends it."""
        self._device.fail_reads(addresses)

    def fail_writes(self, addresses: range | None) -> None:
        """Answer writes to these byte addresses with an error response and store nothing; None ends it."""
        self._device.fail_writes(addresses)


def _require_writable(path: Path) -> None:
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise SternaError(f"the waves cannot be written to {path}: {error.strerror}") from error
