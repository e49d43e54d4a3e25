"""The memory of an emulated accelerator: one behind each cluster's port."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sterna.errors import DeviceError
from sterna.spec.config import HardwareConfig


class ChannelMemory:
    """Bytes at the host's addresses, where the memory of cluster c begins at c times ``channel_bytes``.

    Args:
        config: Says how many there are, and how far apart.
        size: Bytes of each. The system gives them when they are touched.
    """

    def __init__(self, config: HardwareConfig, *, size: int) -> None:
        self.size, self._distance = size, config.channel_bytes
        self._channels = [np.zeros(size, np.uint8) for _ in range(config.clusters)]

    def range(self, address: int, size: int) -> npt.NDArray[np.uint8]:
        """The bytes from ``address`` of the host on, uint8 [size]; what is written there is in memory.

        Raises:
            DeviceError: they are not inside one of the memories.
        """
        return self.window(*divmod(address, self._distance), size)

    def window(self, cluster: int, address: int, size: int) -> npt.NDArray[np.uint8]:
        """The same, ``address`` being that of a cluster in its own memory."""
        count = len(self._channels)
        if not (0 <= cluster < count and 0 <= address <= address + size <= self.size):
            first = cluster * self._distance + address
            place = "the memory" if count == 1 else f"one of the {count} memories"
            raise DeviceError(f"bytes {first}..{first + size} are not inside {place} of {self.size} bytes")
        return self._channels[cluster][address : address + size]
