"""The emulator as a transport: the driver cannot tell it from a board, except that it counts no cycles."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from sterna.emulator.interpreter import Interpreter, ProgramError, TokenResult
from sterna.engines.transport import Transport, register_offset
from sterna.errors import DeviceError
from sterna.spec.config import HardwareConfig, preset
from sterna.spec.registers import MAGIC, REGISTERS, VERSION, Access, Control, ErrorCause, Status

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
        self._trace = np.zeros(0, np.int32)
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
        register_offset(name)
        self._require_open()
        return self._registers[name]

    def write_register(self, name: str, value: int) -> None:
        """See :meth:`Transport.write_register`."""
        register_offset(name, value=value)
        self._require_open()
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
        self._registers = {register.name: 0 for register in REGISTERS}
        self._registers |= {"MAGIC": MAGIC, "VERSION": VERSION, "CONFIG_HASH": self._config.hash}
        self._core_reset()

    def close(self) -> None:
        """See :meth:`Transport.close`."""
        self._memory = None

    def take_trace(self) -> npt.NDArray[np.int32]:
        """See :meth:`Transport.take_trace`."""
        trace, self._trace = self._trace, np.zeros(0, np.int32)
        return trace

    def _core_reset(self) -> None:
        self._interpreter = Interpreter(self._config)
        self._registers |= dict.fromkeys(_REPORTS, 0)

    def _start(self, control: Control) -> None:
        r = self._registers
        r["STATUS"] = 0
        try:
            if r["TOKEN"] >= r["VOCABULARY"]:
                raise ProgramError(ErrorCause.BAD_TOKEN)
            result = self._interpreter.run(self._stream(), fresh=bool(control & Control.FRESH))
        except ProgramError as error:
            r["ERROR_CAUSE"] = error.cause
            r["STATUS"] = Status.ERROR
            return
        self._report(result, write_logits=bool(control & Control.LOGITS))

    def _stream(self) -> npt.NDArray[np.uint8]:
        """Embedding row and program, as the read DMA would bring them."""
        r, beat = self._registers, self._config.beat_bytes
        row = self._address("EMBED_ADDRESS") + r["TOKEN"] * r["EMBED_BEATS"] * beat
        parts = [(row, r["EMBED_BEATS"] * beat), (self._address("PROGRAM_ADDRESS"), r["PROGRAM_BEATS"] * beat)]
        try:
            return np.concatenate([self._range(*part) for part in parts])
        except DeviceError as error:
            raise ProgramError(ErrorCause.BUS_READ) from error

    def _report(self, result: TokenResult, *, write_logits: bool) -> None:
        r = self._registers
        if write_logits:
            try:
                self.write_memory(self._address("LOGITS_ADDRESS"), result.logits.astype(_LOGIT_DTYPE).tobytes())
            except DeviceError:
                r["ERROR_CAUSE"] = ErrorCause.BUS_WRITE
                r["STATUS"] = Status.ERROR
                return
        self._trace = np.concatenate(result.trace).astype(np.int32)
        words = r["EMBED_BEATS"] + r["PROGRAM_BEATS"]
        r |= {"SAMPLED": int(np.argmax(result.logits)), "SATURATIONS": result.saturations, "READ_BEATS": words}
        r["TOKENS"] += 1
        r["STATUS"] = Status.DONE

    def _address(self, name: str) -> int:
        return self._registers[name] | self._registers[f"{name}_HIGH"] << 32

    def _range(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        memory = self._require_open()
        if not 0 <= address <= address + size <= len(memory):
            raise DeviceError(f"bytes {address}..{address + size} are not inside the memory of {len(memory)} bytes")
        return memory[address : address + size]

    def _require_open(self) -> npt.NDArray[np.uint8]:
        if self._memory is None:
            raise DeviceError("the emulator is closed")
        return self._memory
