"""The driver: loads a memory image into an accelerator and runs tokens on it through a transport."""

from __future__ import annotations

import operator
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sterna.engines.engine import Origin, Pass, SlotToken, Step
from sterna.engines.image import Image
from sterna.engines.memory import check_memory, check_size, load_image
from sterna.engines.slots import check_slots, slot_mode
from sterna.engines.transport import Transport
from sterna.errors import DeviceError, SternaError
from sterna.model.geometry import Geometry
from sterna.spec import numerics
from sterna.spec.registers import (
    ERROR_TEXT,
    MAGIC,
    VERSION,
    Control,
    ErrorCause,
    SlotMode,
    Stall,
    Status,
    sampled_register,
    slot_register,
    stall_register,
    token_register,
)

RECOVERY_SECONDS = 10.0  # in which an abandoned token must leave the memory port


class AcceleratorEngine:
    """A model on an accelerator; a :class:`~sterna.engines.engine.SlotEngine`, of one slot on most builds.

    Takes over ``transport``: closing the engine closes it, and so does an error in this constructor.

    Args:
        transport: The open connection.
        image: The compiled model.
        geometry: Its sizes.
        timeout: Seconds that one token may take; None for the transport's own limit.
        progress: Called with the number of bytes after each piece of the image that was written.

    Raises:
        DeviceError: the device is no accelerator of ours, has another interface version or another configuration,
            or does not take the image.
    """

    def __init__(
        self,
        transport: Transport,
        image: Image,
        geometry: Geometry,
        *,
        timeout: float | None = None,
        progress: Callable[[int], object] | None = None,
    ):
        self._transport, self._image, self._geometry, self._timeout = transport, image, geometry, timeout
        self._origin: Origin | int = Origin.FRESH  # of the next token of step and prefill
        self._failed = False
        self._written: dict[str, int] = {}  # registers that keep their value from pass to pass
        try:
            self._check_identity()
            check_size(transport, image)
            self._recover()
            self.load(progress=progress)
        except BaseException:
            transport.close()
            raise

    @property
    def geometry(self) -> Geometry:
        """Sizes of the model."""
        return self._geometry

    @property
    def slots(self) -> int:
        """Slots of the build."""
        return self._transport.config.slots

    @property
    def transport(self) -> Transport:
        """The connection, for traces and for what a device offers beyond the contract."""
        return self._transport

    def load(self, *, progress: Callable[[int], object] | None = None) -> None:
        """Write the image into memory again and forget the recurrent state: the mend for a corrupt memory.

        Raises:
            SternaError: the image is truncated or was changed after it was made; nothing was written.
            DeviceError: the link failed or the memory is too small.
        """
        load_image(self._transport, self._image, progress=progress)
        self._origin = Origin.FRESH

    def verify(self, *, progress: Callable[[int], object] | None = None) -> None:
        """Read the image back from the device's memory and compare each tensor with its checksum.

        Raises:
            DeviceError: a tensor differs, the sentence names it, and :meth:`load` mends it; or the link failed.
        """
        check_memory(self._transport, self._image, progress=progress)

    def reset(self) -> None:
        """Forget the recurrent state. After an error, also abandon the token and clear the error.

        Raises:
            DeviceError: the accelerator does not come to rest.
        """
        if self._failed:
            self._recover()
        self._origin = Origin.FRESH

    def step(self, token: int, *, logits: bool = False) -> Step:
        """Run one token.

        ``counters`` has ``cycles``, ``read_beats`` and ``saturations`` of the token.

        Raises:
            SternaError: the id is outside the vocabulary; nothing was started.
            DeviceError: the accelerator reported an error or did not answer in time; :meth:`reset` before the next
                token, which then starts from an empty state.
        """
        return self._one({0: SlotToken(operator.index(token), self._origin, logits)})

    def prefill(
        self, tokens: Sequence[int], *, logits: bool = False, progress: Callable[[int], object] | None = None
    ) -> Step:
        """Run a token in each slot, a chain, in each pass; see :class:`~sterna.engines.engine.BatchedEngine`.

        Raises:
            SternaError: there are no tokens, or an id is outside the vocabulary; nothing was started.
            DeviceError: as :meth:`step`.
        """
        ids = [operator.index(token) for token in tokens]
        if not ids:
            raise SternaError("there are no tokens to read: give at least one")
        for token in ids:
            self._check_token(token)
        total: Counter[str] = Counter()
        for start in range(0, len(ids), self.slots):
            part = ids[start : start + self.slots]
            last = start + len(part) == len(ids)
            chain = {slot: SlotToken(token, Origin.CHAIN if slot else self._origin) for slot, token in enumerate(part)}
            chain[len(part) - 1] = replace(chain[len(part) - 1], logits=logits and last)
            step = self._one(chain, head=last)
            total.update(step.counters)
            if progress:
                progress(len(part))
        return Step(step.sampled, step.logits, total)

    def run(self, tokens: Mapping[int, SlotToken], *, head: bool = True) -> Pass:
        """One pass over the weights; see :class:`~sterna.engines.engine.SlotEngine`.

        ``counters`` are those of :meth:`step`, ``read_beats`` with a row of the embedding for each slot.
        """
        for entry in tokens.values():
            self._check_token(entry.token)
        check_slots(tokens, self.slots)
        if self._failed:
            raise DeviceError("the accelerator stopped with an error: call reset(), then start the text again")
        wanted = [slot for slot in sorted(tokens) if tokens[slot].logits and head]
        self._failed = True  # until the pass is known to have ended well
        for slot, entry in tokens.items():
            self._transport.write_register(token_register(slot), entry.token)
        self._keep("PROGRAM_BEATS", self._image.program_beats if head else self._image.prefix_beats)
        control = Control.START if head else Control.START | Control.PREFIX
        if self.slots == 1:
            mode = slot_mode(0, tokens[0], head=head)
            control |= Control.FRESH if mode & SlotMode.FRESH else Control(0)
            control |= Control.LOGITS if mode & SlotMode.LOGITS else Control(0)
        else:
            for slot in range(self.slots):
                self._keep(slot_register(slot), slot_mode(slot, tokens.get(slot), head=head))
        self._transport.write_register("CONTROL", control)
        status = self._transport.wait(Status.DONE | Status.ERROR, self._timeout)
        if status & Status.ERROR:
            raise DeviceError(self._error(tokens.values()))
        found = Pass(
            {slot: self._transport.read_register(sampled_register(slot)) for slot in tokens} if head else {},
            self._read_logits(wanted),
            {
                "cycles": self._read_wide("CYCLES"),
                "read_beats": self._transport.read_register("READ_BEATS"),
                "saturations": self._transport.read_register("SATURATIONS"),
            },
        )
        self._failed = False
        return found

    def _one(self, chain: dict[int, SlotToken], *, head: bool = True) -> Step:
        """Run tokens of the engine's own sequence: a chain from slot 0 on."""
        last = len(chain) - 1
        found = self.run(chain, head=head)
        self._origin = last
        return Step(found.sampled.get(last, 0), found.logits.get(last), found.counters)

    def _keep(self, name: str, value: int) -> None:
        """Write a register unless it has the value."""
        if self._written.get(name) != value:
            self._transport.write_register(name, value)
            self._written[name] = value

    def _check_token(self, token: int) -> None:
        if not 0 <= token < self._image.vocabulary:
            raise SternaError(f"token id {token} is outside the vocabulary of {self._image.vocabulary}")

    def stalls(self) -> dict[Stall, int]:
        """Why the last token's cycles without a beat had none; with ``read_beats`` they add up to ``cycles``.

        Raises:
            DeviceError: the link failed.
        """
        return {stall: self._transport.read_register(stall_register(stall)) for stall in Stall}

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    def _check_identity(self) -> None:
        magic = self._transport.read_register("MAGIC")
        if magic != MAGIC:
            raise DeviceError(f"no Sterna accelerator answers: MAGIC is 0x{magic:08X}, expected 0x{MAGIC:08X}")
        version = self._transport.read_register("VERSION")
        if version >> 16 != VERSION >> 16:
            raise DeviceError(
                f"the accelerator has interface version {_version(version)}, this driver {_version(VERSION)}: "
                "use a bitstream and a driver of one release"
            )
        config = self._transport.config
        found = self._transport.read_register("CONFIG_HASH")
        if found != config.hash:
            raise DeviceError(
                f"the accelerator has configuration hash 0x{found:08X}, the host expects 0x{config.hash:08X} "
                f"({config.name}): build the gateware with that configuration or name the one that is on the device"
            )

    def _recover(self) -> None:
        """Abandon what runs, clear the error, and write the addresses of the image."""
        try:
            self._transport.write_register("CONTROL", Control.RESET)
            self._wait_idle()
        except DeviceError:
            # The accelerator does not obey; whatever harder reset the link has is the last resort.
            self._transport.reset()
            self._transport.write_register("CONTROL", Control.RESET)
            self._wait_idle()
        image = self._image
        for name in ("program_address", "embed_address", "logits_address"):
            address: int = getattr(image, name)
            self._transport.write_register(name.upper(), address & 0xFFFF_FFFF)
            self._transport.write_register(f"{name.upper()}_HIGH", address >> 32)
        for name in ("program_beats", "embed_beats", "vocabulary"):
            self._transport.write_register(name.upper(), getattr(image, name))
        self._written = {"PROGRAM_BEATS": image.program_beats}
        self._failed = False

    def _wait_idle(self) -> None:
        deadline = time.monotonic() + RECOVERY_SECONDS
        while self._transport.read_register("STATUS") & (Status.BUSY | Status.ERROR):
            if time.monotonic() > deadline:
                raise DeviceError(f"the accelerator did not come to rest within {RECOVERY_SECONDS:g} s of a reset")

    def _error(self, tokens: Iterable[SlotToken]) -> str:
        number = self._transport.read_register("ERROR_CAUSE")
        token = ", ".join(str(slot.token) for slot in tokens)
        try:
            cause = ErrorCause(number)
        except ValueError:
            return f"the accelerator stopped at token {token} with the unknown error cause {number}"
        return f"the accelerator stopped at token {token}: {ERROR_TEXT[cause]} ({cause.name})"

    def _read_wide(self, name: str) -> int:
        high = self._transport.read_register(f"{name}_HIGH")
        return high << 32 | self._transport.read_register(name)

    def _read_logits(self, slots: list[int]) -> dict[int, npt.NDArray[np.int32]]:
        """Those of ``slots``, which the accelerator has written side by side, or each cluster its own."""
        if not slots:
            return {}
        config, image = self._transport.config, self._image
        size = image.vocabulary // config.clusters * len(slots) * numerics.LOGIT_BYTES
        places = (cluster * config.channel_bytes + image.logits_address for cluster in range(config.clusters))
        data = b"".join(self._transport.read_memory(place, size) for place in places)
        columns = np.frombuffer(data, "<i4").reshape(-1, len(slots)).T.astype(np.int32)
        return dict(zip(slots, columns, strict=True))


def _version(value: int) -> str:
    return f"{value >> 16}.{value & 0xFFFF}"
