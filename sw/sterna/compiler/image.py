"""The memory image: program, embedding table, and the numbers that the driver writes into registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter

import numpy as np

from sterna.compiler.program import ProgramWriter
from sterna.errors import SternaError
from sterna.model.integer import IntegerModel
from sterna.model.layout import EMBEDDING
from sterna.model.store import Model
from sterna.progress import Progress, counting
from sterna.spec import numerics
from sterna.spec.config import HardwareConfig
from sterna.spec.image import ImageTensor, checksum
from sterna.spec.numerics import IntArray

SEGMENT_ALIGNMENT = 4096
_TOKENS = 1024  # rows of the embedding table that are made at a time


@dataclass(frozen=True)
class MemoryImage:
    """What goes into the accelerator's memory. Addresses and sizes in bytes, beats of ``beat_bytes``.

    With clusters, ``segments`` and ``tensors`` are those of all, at the host's addresses. All other addresses and
    sizes are in the memory of each, where they are the same.
    """

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
    model: Model | IntegerModel, config: HardwareConfig, *, progress: Progress | None = None
) -> MemoryImage:
    """Compile a model for one configuration.

    Args:
        model: A stored model, or its integer constants.
        config: The build that will run it.
        progress: Called once to make a progress bar that counts parts of programs and tables.

    Raises:
        SternaError: the model does not fit the configuration.
    """
    integers = model if isinstance(model, IntegerModel) else IntegerModel.from_model(model)
    vocabulary = integers.geometry.vocab
    writers = [ProgramWriter(integers, config, cluster=cluster) for cluster in range(config.clusters)]
    parts = writers[0].parts + -(-vocabulary // _TOKENS)
    with counting(progress, total=parts * config.clusters, label="compiling", unit="parts") as count:
        programs = [_Program.write(writer, count) for writer in writers]
        tables = _embedding(writers, integers, count)
    embed_address = _align(len(programs[0].contents))
    logits_address = _align(embed_address + len(tables[0]))
    size = _align(logits_address + vocabulary // config.clusters * numerics.LOGIT_BYTES)
    if size > config.channel_bytes:
        raise SternaError(
            f"the image of {size} bytes exceeds the {config.address_width}-bit memory port of {config.name}"
        )
    segments: list[tuple[int, bytes]] = []
    tensors: list[ImageTensor] = []
    for cluster, (program, table) in enumerate(zip(programs, tables, strict=True)):
        first, of_cluster = cluster * config.channel_bytes, f" of cluster {cluster}" if cluster else ""
        segments += [(first, program.contents), (first + embed_address, table)]
        own = [*program.tensors, _tensor(EMBEDDING, embed_address, table)]
        tensors += [replace(t, name=t.name + of_cluster, address=first + t.address) for t in own]
    return MemoryImage(
        segments=segments,
        tensors=tensors,
        program_address=0,
        program_beats=len(programs[0].contents) // config.beat_bytes,
        prefix_beats=programs[0].prefix_bytes // config.beat_bytes,
        embed_address=embed_address,
        embed_beats=len(tables[0]) // vocabulary // config.beat_bytes,
        logits_address=logits_address,
        vocabulary=vocabulary,
        weight_bytes=integers.weight_bytes,
        generated_bytes=writers[0].generated_bytes,
        size=size,
        residual_order=writers[0].order,
    )


@dataclass(frozen=True)
class _Program:
    """That of a cluster, at the beginning of its memory."""

    contents: bytes
    prefix_bytes: int  # without the head
    tensors: list[ImageTensor]

    @classmethod
    def write(cls, writer: ProgramWriter, count: Callable[[int], object]) -> _Program:
        contents = bytearray()
        tensors, ends = [], []
        for parts in (writer.body(), writer.head()):
            for name, group in groupby(parts, key=itemgetter(0)):
                start = len(contents)
                for _, part in group:
                    for chunk in part:
                        contents += chunk
                    count(1)
                tensors.append(_tensor(name, start, contents[start:]))
            ends.append(len(contents))
        return cls(bytes(contents), ends[0], tensors)


def _embedding(writers: Sequence[ProgramWriter], model: IntegerModel, count: Callable[[int], object]) -> list[bytes]:
    """The embedding table of each cluster; a row of the model's is made integers once for all."""
    tables = [bytearray() for _ in writers]
    vocabulary = range(model.geometry.vocab)
    for start in range(0, len(vocabulary), _TOKENS):
        elements = model.embedding.integers(np.array(vocabulary[start : start + _TOKENS]))
        for writer, table in zip(writers, tables, strict=True):
            table += writer.embedding_rows(elements).data
            count(1)
    return [bytes(tables.pop(0)) for _ in writers]  # one by one, so that hardly more than all is held at once


def _tensor(name: str, address: int, contents: bytes | bytearray) -> ImageTensor:
    return ImageTensor(name, address, len(contents), checksum([contents]))


def _align(address: int) -> int:
    return -(-address // SEGMENT_ALIGNMENT) * SEGMENT_ALIGNMENT
