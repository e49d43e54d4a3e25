"""A GPU as the engine sees it: memory, kernels compiled from source, launches in order. CuPy does the work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sterna.engines.cuda.source import kernel_file
from sterna.errors import SternaError

MIN_CAPABILITY = 80  # compute capability 8.0: warp reductions of integers


class Device(Protocol):
    """Memory is addressed by integers; everything that is asked for happens in order."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def processors(self) -> int:
        """Multiprocessors; so many blocks of one kernel can run at once."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Device memory that is allocated; it is never given back before :meth:`close`."""
        ...

    def allocate(self, size: int) -> int:
        """Address of so many bytes of device memory, all zero."""
        ...

    def host_memory(self, size: int) -> tuple[int, npt.NDArray[np.uint8]]:
        """Memory of the host that kernels can write: its address, and the bytes as the host sees them."""
        ...

    def write(self, address: int, data: npt.NDArray[Any]) -> None:
        """Copy an array to the device."""
        ...

    def read(self, address: int, target: npt.NDArray[Any]) -> None:
        """Fill an array from the device."""
        ...

    def compile(self, source: str) -> None:
        """Make the kernels of a source that uses the names of device.cuh."""
        ...

    def launch(
        self,
        kernel: str,
        grid: tuple[int, ...],
        block: int,
        *args: int,
        shared: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Run a kernel whose arguments are pointers and ``int``.

        Args:
            kernel: Its name.
            grid: Blocks, in up to two directions.
            block: Threads of a block.
            args: What the kernel takes; addresses have the type :class:`Address`.
            shared: Dynamic shared memory in bytes.
            cooperative: All blocks run at once.
        """
        ...

    def mark(self) -> object:
        """A mark after everything so far."""
        ...

    def wait(self, mark: object) -> None:
        """Return when everything before the mark is done."""
        ...

    def close(self) -> None:
        """Free all memory."""
        ...


class Address(int):
    """An argument of a kernel that is a pointer."""


class CudaDevice:
    """A GPU of this machine.

    Args:
        gpu: Its index among those that CUDA shows.

    Raises:
        SternaError: CuPy or the GPU is missing, or the GPU is too old.
    """

    def __init__(self, gpu: int = 0) -> None:
        try:
            import cupy
        except ImportError as error:
            raise SternaError(f"device 'cuda' needs CuPy ({error}): pip install 'sterna[cuda]'") from error
        self._cuda: Any = cupy.cuda
        self._raw_module: Any = cupy.RawModule
        try:
            count = int(self._cuda.runtime.getDeviceCount())
        except self._cuda.runtime.CUDARuntimeError as error:
            raise SternaError(f"device 'cuda' needs an NVIDIA GPU and its driver: {error}") from error
        if isinstance(gpu, bool) or not isinstance(gpu, int) or not 0 <= gpu < count:
            raise SternaError(f"there is no GPU {gpu!r}; choose one of 0 to {count - 1}")
        self._device = self._cuda.Device(gpu)
        capability = int(self._device.compute_capability)
        if capability < MIN_CAPABILITY:
            raise SternaError(f"GPU {gpu} has compute capability {capability / 10}; at least 8.0 is needed")
        with self._device:
            self._stream = self._cuda.Stream(non_blocking=True)
            self._pool = self._cuda.MemoryPool()
        self._blocks: list[Any] = []  # what was allocated
        self._module: Any = None
        self._kernels: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """See :class:`Device`."""
        return str(self._cuda.runtime.getDeviceProperties(self._device.id)["name"].decode())

    @property
    def processors(self) -> int:
        """See :class:`Device`."""
        return int(self._device.attributes["MultiProcessorCount"])

    @property
    def memory_bytes(self) -> int:
        """See :class:`Device`."""
        return int(self._pool.total_bytes())

    def allocate(self, size: int) -> int:
        """See :class:`Device`.

        Raises:
            SternaError: the GPU has too little memory.
        """
        with self._failures():
            block = self._pool.malloc(size)
            block.memset_async(0, size, self._stream)
        self._blocks.append(block)
        return int(block.ptr)

    def host_memory(self, size: int) -> tuple[int, npt.NDArray[np.uint8]]:
        """See :class:`Device`."""
        with self._failures():
            block = self._cuda.alloc_pinned_memory(size)
        self._blocks.append(block)
        return int(block.ptr), np.frombuffer(block, np.uint8, size)

    def write(self, address: int, data: npt.NDArray[Any]) -> None:
        """See :class:`Device`."""
        source, runtime = np.ascontiguousarray(data), self._cuda.runtime
        with self._failures():
            runtime.memcpyAsync(
                address, source.ctypes.data, source.nbytes, runtime.memcpyHostToDevice, self._stream.ptr
            )
            self._stream.synchronize()  # the source must outlive the copy

    def read(self, address: int, target: npt.NDArray[Any]) -> None:
        """See :class:`Device`; ``target`` is contiguous."""
        runtime = self._cuda.runtime
        with self._failures():
            runtime.memcpyAsync(
                target.ctypes.data, address, target.nbytes, runtime.memcpyDeviceToHost, self._stream.ptr
            )
            self._stream.synchronize()

    def compile(self, source: str) -> None:
        """See :class:`Device`; the first use of a source on a machine takes some seconds, then CuPy has it on disk."""
        with self._failures():
            code = kernel_file("device.cuh") + source
            self._module = self._raw_module(code=code, options=("--std=c++17",))
            self._module.compile()

    def launch(
        self,
        kernel: str,
        grid: tuple[int, ...],
        block: int,
        *args: int,
        shared: int = 0,
        cooperative: bool = False,
    ) -> None:
        """See :class:`Device`."""
        with self._failures():
            if kernel not in self._kernels:
                function = self._module.get_function(kernel)
                function.max_dynamic_shared_size_bytes = max(shared, function.max_dynamic_shared_size_bytes)
                self._kernels[kernel] = function.kernel
            values = tuple(np.uint64(n) if isinstance(n, Address) else np.int32(n) for n in args)
            self._kernels[kernel](grid, (block,), values, shared, self._stream, enable_cooperative_groups=cooperative)

    def mark(self) -> Any:
        """See :class:`Device`."""
        with self._failures():
            event = self._cuda.Event(disable_timing=True)
            event.record(self._stream)
        return event

    def wait(self, mark: Any) -> None:
        """See :class:`Device`."""
        with self._failures():
            mark.synchronize()

    def close(self) -> None:
        """See :class:`Device`; what still runs may need the memory, so it is waited for."""
        with self._device, suppress(self._cuda.runtime.CUDARuntimeError):
            self._stream.synchronize()
        self._blocks.clear()
        self._kernels.clear()
        self._module = None
        with self._device:
            self._pool.free_all_blocks()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Makes this GPU the current one, and its errors sentences."""
        try:
            with self._device:
                yield
        except self._cuda.memory.OutOfMemoryError as error:
            raise SternaError(f"the GPU has too little memory: {error}") from error
        except (
            self._cuda.runtime.CUDARuntimeError,
            self._cuda.driver.CUDADriverError,
            self._cuda.compiler.CompileException,
        ) as error:
            raise SternaError(f"the GPU failed: {error}") from error
