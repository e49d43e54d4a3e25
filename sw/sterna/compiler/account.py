"""What the stream of a token consists of: trits, padding, parameters, descriptors."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.compiler.image import MemoryImage
from sterna.compiler.layout import ColumnBlocks
from sterna.spec.config import HardwareConfig
from sterna.spec.isa import Opcode, decode


@dataclass(frozen=True)
class StreamAccount:
    """Bytes that a token reads, by purpose, and those that it need not read.

    ``bound`` is the roofline efficiency of an accelerator that never lets the memory wait: weights over all bytes.
    """

    trits: int  # five a byte, unpadded; without those that the generator makes
    padding: int  # columns and rows that fill words
    parameters: int  # norm weights and lower bounds
    descriptors: int
    embedding: int  # one row of the table with its descriptor
    generated: int = 0  # bytes of trits that are made on the way instead of read

    @property
    def total(self) -> int:
        """All bytes of a token."""
        return self.trits + self.padding + self.parameters + self.descriptors + self.embedding

    @property
    def bound(self) -> float:
        """Largest roofline efficiency with these bytes, 0..1."""
        return self.trits / self.total


def account(image: MemoryImage, config: HardwareConfig) -> StreamAccount:
    """Walk the program of ``image``, which was compiled for ``config``; clusters have as many that are as long."""
    program = memoryview(dict(image.segments)[image.program_address])
    size, position = config.word_bytes, 0
    words = dict.fromkeys(("parameters", "descriptors", "trits"), 0)
    while position < len(program):
        d = decode(bytes(program[position : position + config.descriptor_words * size]))
        payload = 0
        if d["opcode"] == Opcode.LOAD:
            payload = d["count"]
            words["parameters"] += payload
        elif d["opcode"] == Opcode.MATMUL:
            payload = ColumnBlocks(d["blocks"] - d["generated"], d["tails"]).words(d["count"])
            words["trits"] += payload
        words["descriptors"] += config.descriptor_words
        position += (config.descriptor_words + payload) * size
    read, all_of = image.weight_bytes - image.generated_bytes, config.clusters * size
    return StreamAccount(
        trits=read,
        padding=words["trits"] * all_of - read,
        parameters=words["parameters"] * all_of,
        descriptors=words["descriptors"] * all_of,
        embedding=config.clusters * image.embed_beats * config.beat_bytes,
        generated=image.generated_bytes,
    )
