"""The memory image: program, embedding table, and the numbers that the driver writes into registers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import itemgetter

from sterna.compiler.program import ProgramWriter
from sterna.errors import SternaError
from sterna.model.integer import IntegerModel
from sterna.model.layout import EMBEDDING
from sterna.model.store import Model
from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.image import ImageTensor, checksum
from sterna.spec.numerics import IntArray

SEGMENT_ALIGNMENT = 4096


@dataclass(frozen=True)
class MemoryImage:
    """What goes into the accelerator's memory. Addresses and sizes in bytes, beats of ``beat_bytes``."""

    segments: list[tuple[int, bytes]]
    tensors: list[ImageTensor]  # what stands where in the segments, every byte of them, with its checksum
    program_address: int
    program_beats: int
    prefix_beats: int  # of the program without its head: for tokens of which nothing is sampled
    embed_address: int
    embed_beats: int
    logits_address: int
    vocabulary: int
    weight_bytes: int  # trits of one token at five a byte, unpadded
    generated_bytes: int  # those of them that the generator makes and no memory holds
    size: int
    residual_order: IntArray | None = field(compare=False)  # which element of the residual stands where; None: as ever


def compile_model(
    model: Model | IntegerModel, config: HardwareConfig, *, progress: Callable[[int], None] | None = None
) -> MemoryImage:
    """Compile a model for one configuration.

    Args:
        model: A stored model, or its integer constants.
        config: The build that will run it.
        progress: Called with the bytes of each piece as it is made.

    Raises:
        SternaError: the model does not fit the configuration.
    """
    integers = model if isinstance(model, IntegerModel) else IntegerModel.from_model(model)
    writer = ProgramWriter(integers, config)
    program = bytearray()
    ends = []
    tensors: list[ImageTensor] = []
    for parts in (writer.body(), writer.head()):
        for name, group in groupby(parts, key=itemgetter(0)):
            start = len(program)
            for chunk in chain.from_iterable(part for _, part in group):
                program += chunk
                if progress:
                    progress(len(chunk))
            tensors.append(_tensor(name, start, program[start:]))
        ends.append(len(program) // config.beat_bytes)
    vocabulary = integers.geometry.vocab
    embedding = b"".join(writer.embedding_row(token) for token in range(vocabulary))
    embed_address = _align(len(program))
    tensors.append(_tensor(EMBEDDING, embed_address, embedding))
    logits_address = _align(embed_address + len(embedding))
    size = _align(logits_address + vocabulary * numerics.LOGIT_BYTES)
    if size > 1 << config.address_width:
        raise SternaError(
            f"the image of {size} bytes exceeds the {config.address_width}-bit memory port of {config.name}"
        )
    return MemoryImage(
        segments=[(0, bytes(program)), (embed_address, embedding)],
        tensors=tensors,
        program_address=0,
        program_beats=ends[1],
        prefix_beats=ends[0],
        embed_address=embed_address,
        embed_beats=len(embedding) // vocabulary // config.beat_bytes,
        logits_address=logits_address,
        vocabulary=vocabulary,
        weight_bytes=integers.weight_bytes,
        generated_bytes=writer.generated_bytes,
        size=size,
        residual_order=writer.order,
    )


def _tensor(name: str, address: int, contents: bytes | bytearray) -> ImageTensor:
    return ImageTensor(name, address, len(contents), checksum([contents]))


def _align(address: int) -> int:
    return -(-address // SEGMENT_ALIGNMENT) * SEGMENT_ALIGNMENT
