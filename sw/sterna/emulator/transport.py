"""The emulator as a transport: the driver cannot tell it from a board, except that it counts no cycles."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from sterna.emulator.interpreter import Interpreter, ProgramError, TokenResult
from sterna.engines.transport import Transport, register_offset
from sterna.errors import DeviceError
from sterna.spec.config import HardwareConfig, preset
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

_LOGIT_DTYPE = "<i4"
_CONSTANTS = ("MAGIC", "VERSION", "CONFIG_HASH")
_REPORTS = tuple(r.name for r in REGISTERS if r.access is Access.RO and r.name not in _CONSTANTS)


class EmulatorTransport(Transport):
    """A software accelerator. A token runs, whole, inside the write of START; CYCLES stays 0.

    Args:
        config: The configuration to stand for, or the name of a preset.
        size: Bytes of memory.
    """

    def __init__(self, config: HardwareConfig | str = "sim-small", *, size: int = 1 << 30) -> None:
        self._config = preset(config) if isinstance(config, str) else config
        self._memory: npt.NDArray[np.uint8] | None = np.zeros(size, np.uint8)  # pages are taken when touched
        self._traces: dict[int, npt.NDArray[np.int32]] = {}
        self.reset()

    @property
    def config(self) -> HardwareConfig:
        """The configuration it stands for."""
        return self._config

    def read_memory(self, address: int, size: int) -> bytes:
        """See :meth:`Transport.read_memory`."""
        return self._range(address, size).tobytes()

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """See :meth:`Transport.write_memory`."""
        self._range(address, len(data))[:] = np.frombuffer(data, np.uint8)

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
        self._slots = [Interpreter(self._config) for _ in range(self._config.slots)]
        self._registers |= {name: 0 for name in _REPORTS if name in self._registers}

    def _start(self, control: Control) -> None:
        """A token of each slot that is not idle, one after the other: a chained one goes on from the one before."""
        self._registers["STATUS"] = 0
        modes = {slot: self._mode(slot, control) for slot in range(self._config.slots)}
        modes = {slot: mode for slot, mode in modes.items() if not mode & SlotMode.IDLE}
        before = [interpreter.state.copy() for interpreter in self._slots]
        results = {}
        try:
            for slot in modes:
                if self._registers[token_register(slot)] >= self._registers["VOCABULARY"]:
                    raise ProgramError(ErrorCause.BAD_TOKEN)
            for slot, mode in modes.items():
                interpreter = self._slots[slot]
                if mode & SlotMode.CHAINED:
                    interpreter.state = self._slots[slot - 1].state.copy()
                elif mode & SlotMode.MOVED:
                    interpreter.state = before[self._source(slot)].copy()
                fresh, prefix = bool(mode & SlotMode.FRESH), bool(control & Control.PREFIX)
                results[slot] = interpreter.run(self._stream(slot), fresh=fresh, prefix=prefix)
            self._report(results, [slot for slot, mode in modes.items() if mode & SlotMode.LOGITS])
        except ProgramError as error:
            self._registers["ERROR_CAUSE"] = error.cause
            self._registers["STATUS"] = Status.ERROR

    def _mode(self, slot: int, control: Control) -> SlotMode:
        """What SLOT_n and CONTROL say of a slot."""
        mode = SlotMode(self._registers.get(slot_register(slot), 0) & sum(SlotMode))
        if control & Control.FRESH:
            mode |= SlotMode.FRESH
        return mode | SlotMode.LOGITS if control & Control.LOGITS else mode

    def _source(self, slot: int) -> int:
        return (self._registers[slot_register(slot)] >> SOURCE_OFFSET) % self._config.slots

    def _stream(self, slot: int) -> npt.NDArray[np.uint8]:
        """Embedding row of a slot and program, as the read DMA would bring them."""
        r, beat = self._registers, self._config.beat_bytes
        row = self._address("EMBED_ADDRESS") + r[token_register(slot)] * r["EMBED_BEATS"] * beat
        parts = [(row, r["EMBED_BEATS"] * beat), (self._address("PROGRAM_ADDRESS"), r["PROGRAM_BEATS"] * beat)]
        try:
            return np.concatenate([self._range(*part) for part in parts])
        except DeviceError as error:
            raise ProgramError(ErrorCause.BUS_READ) from error

    def _report(self, results: dict[int, TokenResult], wanted: list[int]) -> None:
        r = self._registers
        if wanted:
            logits = np.stack([results[slot].logits for slot in wanted], axis=-1).astype(_LOGIT_DTYPE)
            try:
                self.write_memory(self._address("LOGITS_ADDRESS"), logits.tobytes())
            except DeviceError as error:
                raise ProgramError(ErrorCause.BUS_WRITE) from error
        self._traces = {slot: np.concatenate(result.trace).astype(np.int32) for slot, result in results.items()}
        for slot, result in results.items():
            if len(result.logits):
                r[sampled_register(slot)] = int(np.argmax(result.logits))
        r["READ_BEATS"] = len(results) * r["EMBED_BEATS"] + r["PROGRAM_BEATS"]
        r["SATURATIONS"] = sum(result.saturations for result in results.values())
        r["TOKENS"] += 1
        r["STATUS"] = Status.DONE

    def _address(self, name: str) -> int:
        return self._registers[name] | self._registers[f"{name}_HIGH"] << 32

    def _range(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        memory = self._require_open()
        if not 0 <= address <= address + size <= len(memory):
            raise DeviceError(f"bytes {address}..{address + size} are not inside the memory of {len(memory)} bytes")
        return memory[address : address + size]

    def _require_register(self, name: str) -> None:
        self._require_open()
        register_offset(name)
        if name not in self._registers:
            raise DeviceError(
                f"configuration {self._config.name} has no register {name}: it has {self._config.slots} slots"
            )

    def _require_open(self) -> npt.NDArray[np.uint8]:
        if self._memory is None:
            raise DeviceError("the emulator is closed")
        return self._memory
