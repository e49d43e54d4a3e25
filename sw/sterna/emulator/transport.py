"""The emulator as a transport: the driver cannot tell it from a board, except that it counts no cycles."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from sterna.emulator.exchange import run_in_step
from sterna.emulator.interpreter import Interpreter, ProgramError, TokenResult
from sterna.emulator.memory import ChannelMemory
from sterna.engines.transport import Transport, register_offset
from sterna.errors import DeviceError
from sterna.spec.config import HardwareConfig, preset
from sterna.spec.numerics import IntArray
from sterna.spec.registers import (
    MAGIC,
    REGISTERS,
    SOURCE_OFFSET,
    VERSION,
    Access,
    Control,
    ErrorCause,
    SlotMode,
    Status,
    registers_of,
    sampled_register,
    slot_register,
    token_register,
)

_MEMORY_BYTES = 1 << 30
_LOGIT_DTYPE = "<i4"
_CONSTANTS = ("MAGIC", "VERSION", "CONFIG_HASH")
_REPORTS = tuple(r.name for r in REGISTERS if r.access is Access.RO and r.name not in _CONSTANTS)


class EmulatorTransport(Transport):
    """A software accelerator. A token runs, whole, inside the write of START; CYCLES stays 0.

    Args:
        config: The configuration to stand for, or the name of a preset.
        size: Bytes of memory; with clusters of each one's, by default all that its port can address.
    """

    def __init__(self, config: HardwareConfig | str = "sim-small", *, size: int | None = None) -> None:
        self._config = preset(config) if isinstance(config, str) else config
        size = size or min(_MEMORY_BYTES, self._config.channel_bytes)
        self._memory: ChannelMemory | None = ChannelMemory(self._config, size=size)
        self._traces: dict[int, npt.NDArray[np.int32]] = {}  # by slot or cluster
        self.reset()

    @property
    def config(self) -> HardwareConfig:
        """The configuration it stands for."""
        return self._config

    @property
    def memory_bytes(self) -> int:
        """See :attr:`Transport.memory_bytes`."""
        return self._require_open().size

    @property
    def fast_memory(self) -> bool:
        """See :attr:`Transport.fast_memory`."""
        return True

    def read_memory(self, address: int, size: int) -> bytes:
        """See :meth:`Transport.read_memory`."""
        return self._require_open().range(address, size).tobytes()

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """See :meth:`Transport.write_memory`."""
        self._require_open().range(address, len(data))[:] = np.frombuffer(data, np.uint8)

    def read_register(self, name: str) -> int:
        """See :meth:`Transport.read_register`."""
        self._require_register(name)
        return self._registers[name]

    def write_register(self, name: str, value: int) -> None:
        """See :meth:`Transport.write_register`."""
        register_offset(name, value=value)
        self._require_register(name)
        if name != "CONTROL":
            self._registers[name] = value
            return
        if value & Control.RESET:
            self._core_reset()
        elif value & Control.START and not self._registers["STATUS"] & Status.ERROR:
            self._start(Control(value))

    def wait(self, mask: Status, timeout: float | None = None) -> Status:
        """See :meth:`Transport.wait`; what is not there now never comes."""
        self._require_open()
        status = Status(self._registers["STATUS"])
        if not status & mask:
            time.sleep(min(timeout or 0.0, 0.01))
            raise DeviceError(f"time-out: the emulator did not reach {mask!r}; STATUS is {status!r}")
        return status

    def reset(self) -> None:
        """See :meth:`Transport.reset`."""
        self._require_open()
        self._registers = {register.name: 0 for register in registers_of(self._config.slots)}
        self._registers |= {"MAGIC": MAGIC, "VERSION": VERSION, "CONFIG_HASH": self._config.hash}
        self._core_reset()

    def close(self) -> None:
        """See :meth:`Transport.close`."""
        self._memory = None

    def take_trace(self, slot: int = 0) -> npt.NDArray[np.int32]:
        """See :meth:`Transport.take_trace`."""
        return self._traces.pop(slot, np.zeros(0, np.int32))

    def _core_reset(self) -> None:
        clusters = range(self._config.clusters)
        self._slots = [[Interpreter(self._config) for _ in clusters] for _ in range(self._config.slots)]
        self._registers |= {name: 0 for name in _REPORTS if name in self._registers}

    def _start(self, control: Control) -> None:
        """A token of each slot that is not idle, one after the other: a chained one goes on from the one before."""
        self._registers["STATUS"] = 0
        modes = {slot: self._mode(slot, control) for slot in range(self._config.slots)}
        modes = {slot: mode for slot, mode in modes.items() if not mode & SlotMode.IDLE}
        before = [self._states(slot) for slot in range(self._config.slots)]
        results = {}
        try:
            for slot in modes:
                if self._registers[token_register(slot)] >= self._registers["VOCABULARY"]:
                    raise ProgramError(ErrorCause.BAD_TOKEN)
            for slot, mode in modes.items():
                if mode & SlotMode.CHAINED:
                    self._take_states(slot, self._states(slot - 1))
                elif mode & SlotMode.MOVED:
                    self._take_states(slot, before[self._source(slot)])
                fresh, prefix = bool(mode & SlotMode.FRESH), bool(control & Control.PREFIX)
                clusters = enumerate(self._slots[slot])
                tokens = [unit.token(self._stream(slot, c), fresh=fresh, prefix=prefix) for c, unit in clusters]
                results[slot] = run_in_step(tokens, vector_width=self._config.vector_width)
            self._report(results, [slot for slot, mode in modes.items() if mode & SlotMode.LOGITS])
        except ProgramError as error:
            self._registers["ERROR_CAUSE"] = error.cause
            self._registers["STATUS"] = Status.ERROR

    def _states(self, slot: int) -> list[IntArray]:
        """Copies of the recurrent state of a slot, that of each cluster."""
        return [cluster.state.copy() for cluster in self._slots[slot]]

    def _take_states(self, slot: int, states: list[IntArray]) -> None:
        for cluster, state in zip(self._slots[slot], states, strict=True):
            cluster.state = state.copy()

    def _mode(self, slot: int, control: Control) -> SlotMode:
        """What SLOT_n and CONTROL say of a slot."""
        mode = SlotMode(self._registers.get(slot_register(slot), 0) & sum(SlotMode))
        if control & Control.FRESH:
            mode |= SlotMode.FRESH
        return mode | SlotMode.LOGITS if control & Control.LOGITS else mode

    def _source(self, slot: int) -> int:
        return (self._registers[slot_register(slot)] >> SOURCE_OFFSET) % self._config.slots

    def _stream(self, slot: int, cluster: int) -> npt.NDArray[np.uint8]:
        """Embedding row of a slot and program, as the read DMA of a cluster would bring them."""
        r, beat, memory = self._registers, self._config.beat_bytes, self._require_open()
        row = self._address("EMBED_ADDRESS") + r[token_register(slot)] * r["EMBED_BEATS"] * beat
        parts = [(row, r["EMBED_BEATS"] * beat), (self._address("PROGRAM_ADDRESS"), r["PROGRAM_BEATS"] * beat)]
        try:
            return np.concatenate([memory.window(cluster, *part) for part in parts])
        except DeviceError as error:
            raise ProgramError(ErrorCause.BUS_READ) from error

    def _report(self, results: dict[int, list[TokenResult]], wanted: list[int]) -> None:
        """Leave behind what a pass made: ``results`` of each slot and cluster, logits of the slots ``wanted``."""
        r, clusters, memory = self._registers, range(self._config.clusters), self._require_open()
        for cluster in clusters if wanted else ():
            logits = np.stack([results[slot][cluster].logits for slot in wanted], axis=-1).astype(_LOGIT_DTYPE)
            data = np.frombuffer(logits.tobytes(), np.uint8)
            try:
                memory.window(cluster, self._address("LOGITS_ADDRESS"), len(data))[:] = data
            except DeviceError as error:
                raise ProgramError(ErrorCause.BUS_WRITE) from error
        self._traces = {
            slot + cluster: np.concatenate(result.trace).astype(np.int32)  # only one of the two is ever above 0
            for slot, parts in results.items()
            for cluster, result in enumerate(parts)
        }
        for slot, parts in results.items():
            logits = np.concatenate([part.logits for part in parts])
            if len(logits):
                r[sampled_register(slot)] = int(np.argmax(logits))
        r["READ_BEATS"] = len(results) * r["EMBED_BEATS"] + r["PROGRAM_BEATS"]
        r["SATURATIONS"] = sum(part.saturations for parts in results.values() for part in parts)
        r["TOKENS"] += 1
        r["STATUS"] = Status.DONE

    def _address(self, name: str) -> int:
        return self._registers[name] | self._registers[f"{name}_HIGH"] << 32

    def _require_register(self, name: str) -> None:
        self._require_open()
        register_offset(name)
        if name not in self._registers:
            raise DeviceError(
                f"configuration {self._config.name} has no register {name}: it has {self._config.slots} slots"
            )

    def _require_open(self) -> ChannelMemory:
        if self._memory is None:
            raise DeviceError("the emulator is closed")
        return self._memory
