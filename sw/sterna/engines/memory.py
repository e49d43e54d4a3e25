"""A memory image on its way into a device and back: does it fit, is it whole, is it what the device holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sterna.engines.image import Image
from sterna.engines.transport import Transport
from sterna.errors import DeviceError, SternaError
from sterna.spec import numerics
from sterna.spec.image import ImageTensor, checksum

CHUNK = 1 << 20  # bytes moved between two calls of the progress function

Count = Callable[[int], object]


def check_size(transport: Transport, image: Image) -> None:
    """Compare what the image takes with the memory that the device has.

    Raises:
        DeviceError: it is too small.
    """
    there, config = transport.memory_bytes, transport.config
    ends = [address % config.channel_bytes + len(contents) for address, contents in image.segments]
    needed = max(*ends, image.logits_address + image.vocabulary // config.clusters * numerics.LOGIT_BYTES)
    if there is not None and needed > there:
        behind = f" behind each of {config.clusters} ports" if config.clusters > 1 else ""
        raise DeviceError(
            f"the model takes {needed} bytes of memory{behind} and the device has {there}: choose a smaller model or a "
            "board with more memory"
        )


def check_image(image: Image) -> None:
    """Compare each tensor of the image with its checksum.

    Raises:
        SternaError: the image is truncated or was changed; the sentence names the tensor.
    """
    for tensor in image.tensors:
        if checksum([_contents(image, tensor)]) != tensor.checksum:
            raise SternaError(
                f"{tensor} of the memory image does not match its checksum: it was changed after it was made; "
                "compile the model again"
            )


def load_image(transport: Transport, image: Image, *, progress: Count | None = None) -> None:
    """Check the image and write it into the device's memory.

    Args:
        transport: The device, with no token under way.
        image: A compiled model.
        progress: Called with the number of bytes after each piece that was written.

    Raises:
        SternaError: as :func:`check_image`; nothing was written.
        DeviceError: the link failed or the memory is too small.
    """
    check_image(image)
    for address, contents in image.segments:
        view = memoryview(contents)
        for start in range(0, len(view), CHUNK):
            piece = view[start : start + CHUNK]
            transport.write_memory(address + start, piece)
            if progress:
                progress(len(piece))


def check_memory(transport: Transport, image: Image, *, progress: Count | None = None) -> None:
    """Read the image back and compare each tensor with its checksum.

    Args:
        transport: The device, with no token under way.
        image: What was loaded.
        progress: Called with the number of bytes after each piece that was read.

    Raises:
        DeviceError: a tensor differs, the sentence names the first one; or the link failed.
    """

    def pieces(tensor: ImageTensor) -> Iterator[bytes]:
        for address in range(tensor.address, tensor.end, CHUNK):
            piece = transport.read_memory(address, min(CHUNK, tensor.end - address))
            yield piece
            if progress:
                progress(len(piece))

    for tensor in image.tensors:
        if checksum(pieces(tensor)) != tensor.checksum:
            raise DeviceError(
                f"{tensor} in the device's memory does not match its checksum: load the model again, and where that "
                "does not help test the memory"
            )


def _contents(image: Image, tensor: ImageTensor) -> memoryview:
    """The bytes of a tensor in the image."""
    for address, contents in image.segments:
        if address <= tensor.address and tensor.end <= address + len(contents):
            return memoryview(contents)[tensor.address - address : tensor.end - address]
    raise SternaError(f"the memory image is truncated: {tensor} is not whole in it; compile the model again")
