"""A processor in the place of the GPU: the same kernels, compiled as C++ (cuda_emulation.hpp)."""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

COMPILER = shutil.which("c++")
HEADER = Path(__file__).with_name("cuda_emulation.hpp")
MOST_ARGUMENTS = 6


class EmulatedDevice:
    """See :class:`sterna.engines.cuda.device.Device`; machine code is kept in ``folder``."""

    name, processors = "a processor", 3

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        self._folder, self._seed = folder, seed
        self._memory: list[Any] = []
        self.memory_bytes = 0
        self.launches: list[str] = []

    def allocate(self, size: int) -> int:
        self.memory_bytes += size
        return self._block(size)[0]

    def host_memory(self, size: int) -> tuple[int, Any]:
        return self._block(size)

    def write(self, address: int, data: Any) -> None:
        source = np.ascontiguousarray(data)
        ctypes.memmove(address, source.ctypes.data, source.nbytes)

    def read(self, address: int, target: Any) -> None:
        ctypes.memmove(target.ctypes.data, address, target.nbytes)

    def compile(self, source: str) -> ctypes.CDLL:
        source = HEADER.read_text() + source
        name = hashlib.sha256(source.encode()).hexdigest()[:16]
        library, file = self._folder / f"{name}.so", self._folder / f"{name}.cpp"
        if not library.exists():
            file.write_text(source)
            command = [COMPILER, "-std=c++17", "-O0", "-shared", "-fPIC", "-Wno-unknown-pragmas", "-o", library, file]
            subprocess.run(command, check=True)
        self._library = ctypes.CDLL(str(library))
        return self._library

    def launch(
        self,
        kernel: str,
        grid: tuple[int, ...],
        block: int,
        *args: int,
        shared: int = 0,
        cooperative: bool = False,
    ) -> None:
        self.launches.append(kernel)
        values = (ctypes.c_longlong * MOST_ARGUMENTS)(*args)
        grid_x, grid_y = (*grid, 1)[:2]
        self._seed += 1
        function = ctypes.cast(self._library[kernel], ctypes.c_void_p)
        passed = self._library.emulate(function, grid_x, grid_y, block, shared, cooperative, values, self._seed)
        assert passed, f"{kernel} hangs"

    def mark(self) -> object:
        return len(self.launches)

    def wait(self, mark: object) -> None:
        assert mark is not None

    def close(self) -> None:
        self._memory.clear()

    def _block(self, size: int) -> tuple[int, Any]:
        memory = np.zeros(size + 256, np.uint8)
        self._memory.append(memory)
        start = -memory.ctypes.data % 256
        return memory.ctypes.data + start, memory[start : start + size]
