"""The geometry of one build of the accelerator: a frozen dataclass and its named presets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from sterna.errors import SternaError
from sterna.spec.isa import DESCRIPTOR_BYTES, FIELDS_BY_NAME, ISA_VERSION
from sterna.spec.packing import TRITS_PER_BYTE
from sterna.spec.registers import MAX_SLOTS


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class HardwareConfig:
    """What is fixed when the gateware is generated. Model geometry is not: it comes with the program.

    One *word* is what the lanes take in a cycle: ``word_bytes`` bytes of five trits. One *beat* is what the memory
    port gives in a cycle. A word of more than one beat leaves the lanes time to catch up after a vector phase.
    """

    name: str
    beat_bytes: int  # memory data width; a power of two
    word_bytes: int  # lane groups; a power of two, a multiple of beat_bytes
    vector_width: int  # elements a cycle in vector passes; a power of two, at most word_bytes // 2
    slots: int = 1  # sequences that share a pass over the weights
    tile_rows: int  # rows whose partial sums are held at once
    max_rows_per_word: int = 4  # most rows that share a word in a tail block; a power of two, 1 for no tail blocks
    activation_depth: int  # elements of the quantised activation memory
    vector_depth: int  # elements of vector memory (residual, gates, products)
    param_depth: int  # elements of parameter memory (norm weights)
    state_depth: int  # elements of recurrent state, all layers
    prefetch_words: int  # words buffered between memory and lanes
    burst_beats: int = 64  # longest AXI burst
    outstanding: int = 8  # AXI read bursts in flight
    address_width: int = 32  # byte address of the memory port
    generator: bool = False  # makes the words of fixed projections (docs/reservoir.md), which then are not stored
    sum_tables: bool = True  # lanes look sums of five up in block RAM; else they select and add (docs/gateware.md)
    clusters: int = 1  # accelerators that share every token, a memory channel and an equal part of all rows each

    def __post_init__(self) -> None:
        for field in ("beat_bytes", "word_bytes", "vector_width", "max_rows_per_word"):
            if not _power_of_two(getattr(self, field)):
                value = getattr(self, field)
                raise SternaError(f"configuration {self.name}: {field} must be a power of two, not {value}")
        checks = {
            "beat_bytes must be 4..128": 4 <= self.beat_bytes <= 128,
            "word_bytes must be a multiple of beat_bytes": self.word_bytes % self.beat_bytes == 0,
            "word_bytes must be at least 8": self.word_bytes >= 8,
            "vector_width must be at most word_bytes / 2": self.vector_width <= self.word_bytes // 2,
            "max_rows_per_word must be at most word_bytes": self.max_rows_per_word <= self.word_bytes,
            f"slots must be 1..{MAX_SLOTS}": 1 <= self.slots <= MAX_SLOTS,
            "max_rows_per_word must be at most 16": self.max_rows_per_word <= 1 << FIELDS_BY_NAME["tails"].width,
            "tile_rows must be 2..65535": 2 <= self.tile_rows < 1 << FIELDS_BY_NAME["count"].width,
            "depths must be positive": min(self.vector_depth, self.param_depth, self.state_depth, self.activation_depth)
            > 0,
            "vector_depth must be at most 65536": self.vector_depth <= 1 << FIELDS_BY_NAME["source"].width,
            "param_depth must be at most 65536": self.param_depth <= 1 << FIELDS_BY_NAME["param"].width,
            "state_depth must be at most 2**24": self.state_depth <= 1 << FIELDS_BY_NAME["state"].width,
            "vector_depth must be a multiple of vector_width": self.vector_depth % self.vector_width == 0,
            "param_depth must be a multiple of word_bytes / 2": self.param_depth % self.params_per_word == 0,
            "activation_depth must be a multiple of word_bytes": self.activation_depth % self.word_bytes == 0,
            "outstanding must be at least 1": self.outstanding >= 1,
            "clusters must be 1 or word_bytes / vector_width": (
                self.clusters in (1, self.word_bytes // self.vector_width)
            ),
            "clusters and slots do not combine": self.clusters == 1 or self.slots == 1,
            "clusters and the generator do not combine": self.clusters == 1 or not self.generator,
            "burst_beats must be 1..256": 1 <= self.burst_beats <= 256,
            "burst_beats must fit 4096 bytes": self.burst_beats * self.beat_bytes <= 4096,
            "prefetch_words must hold a burst and the rest of a word": (
                self.prefetch_words * self.beats_per_word >= self.burst_beats + self.beats_per_word - 1
            ),
        }
        for text, holds in checks.items():
            if not holds:
                raise SternaError(f"configuration {self.name}: {text}")

    @property
    def lanes(self) -> int:
        """Trits accumulated a cycle."""
        return self.word_bytes * TRITS_PER_BYTE

    @property
    def beats_per_word(self) -> int:
        """Memory beats that make a word."""
        return self.word_bytes // self.beat_bytes

    @property
    def descriptor_words(self) -> int:
        """Words that a descriptor takes in the stream (zero-filled to whole words)."""
        return -(-DESCRIPTOR_BYTES // self.word_bytes)

    @property
    def params_per_word(self) -> int:
        """16-bit parameters (or embedding elements) in a word."""
        return self.word_bytes // 2

    @property
    def channel_bytes(self) -> int:
        """Bytes of the memory behind one port: with clusters, that of cluster c begins at c times as much."""
        return 1 << self.address_width

    def canonical(self) -> str:
        """The configuration and the interface version as JSON, the input of :attr:`hash`."""
        return json.dumps({"isa": ISA_VERSION, **asdict(self)}, sort_keys=True)

    @property
    def hash(self) -> int:
        """32 bits that the CONFIG_HASH register shows; host and gateware must agree."""
        return int.from_bytes(hashlib.sha256(self.canonical().encode()).digest()[:4], "big")


PRESETS = {
    preset.name: preset
    for preset in (
        HardwareConfig(
            name="sim-tiny",
            beat_bytes=8,
            word_bytes=8,
            vector_width=2,
            tile_rows=64,
            max_rows_per_word=4,
            activation_depth=1024,
            vector_depth=1024,
            param_depth=1024,
            state_depth=512,
            prefetch_words=128,
            burst_beats=16,
            outstanding=4,
            generator=True,
        ),
        HardwareConfig(
            name="sim-small",
            beat_bytes=16,
            word_bytes=32,
            vector_width=4,
            tile_rows=2048,
            activation_depth=4096,
            vector_depth=8192,
            param_depth=8192,
            state_depth=8192,
            prefetch_words=1024,
            burst_beats=64,
            outstanding=8,
            generator=True,
        ),
        HardwareConfig(
            name="sim-large",
            beat_bytes=32,
            word_bytes=64,
            vector_width=8,
            tile_rows=4096,
            max_rows_per_word=16,
            activation_depth=16384,
            vector_depth=16384,
            param_depth=16384,
            state_depth=131072,
            prefetch_words=1024,
            burst_beats=64,
            outstanding=8,
            generator=True,
        ),
        HardwareConfig(
            name="ecpix5",
            beat_bytes=16,
            word_bytes=16,
            vector_width=4,
            tile_rows=2048,
            max_rows_per_word=8,
            activation_depth=8192,
            vector_depth=8192,
            param_depth=8192,
            state_depth=49152,
            prefetch_words=2048,
            burst_beats=64,
            outstanding=8,
        ),
        HardwareConfig(
            name="butterstick",  # as ecpix5, with memories for a model of 2.7B
            beat_bytes=16,
            word_bytes=16,
            vector_width=4,
            tile_rows=2048,
            max_rows_per_word=8,
            activation_depth=8192,
            vector_depth=9472,
            param_depth=9472,
            state_depth=81920,
            prefetch_words=1024,  # what block RAM is left
            burst_beats=64,
            outstanding=8,
        ),
        HardwareConfig(
            name="ulx3s",
            beat_bytes=4,
            word_bytes=8,
            vector_width=2,
            tile_rows=1024,
            max_rows_per_word=4,
            activation_depth=2048,
            vector_depth=4096,
            param_depth=4096,
            state_depth=8192,
            prefetch_words=512,
            burst_beats=64,
            outstanding=8,
        ),
        HardwareConfig(
            name="kv260",
            beat_bytes=64,
            word_bytes=128,
            vector_width=16,
            tile_rows=4096,
            max_rows_per_word=16,
            activation_depth=8192,
            vector_depth=16384,
            param_depth=16384,
            state_depth=81920,
            prefetch_words=512,
            burst_beats=64,
            outstanding=8,
            address_width=30,
        ),
        HardwareConfig(
            name="sim-tiny-c4",  # four clusters, as small as they get
            beat_bytes=8,
            word_bytes=8,
            vector_width=2,
            tile_rows=64,
            max_rows_per_word=2,
            activation_depth=1024,
            vector_depth=256,
            param_depth=256,
            state_depth=256,
            prefetch_words=64,
            burst_beats=16,
            outstanding=4,
            address_width=24,
            sum_tables=False,
            clusters=4,
        ),
        HardwareConfig(
            name="u280",  # a cluster for each of the 32 channels of its HBM, memories for a model of 2.7B
            beat_bytes=64,
            word_bytes=128,
            vector_width=4,
            tile_rows=1024,
            max_rows_per_word=8,
            activation_depth=8320,
            vector_depth=1024,
            param_depth=1024,
            state_depth=4096,
            prefetch_words=1024,
            burst_beats=64,
            outstanding=8,
            address_width=28,
            sum_tables=False,
            clusters=32,
        ),
        HardwareConfig(
            name="u55c",
            beat_bytes=128,
            word_bytes=256,
            vector_width=16,
            tile_rows=4096,
            max_rows_per_word=16,
            activation_depth=8192,
            vector_depth=16384,
            param_depth=16384,
            state_depth=81920,
            prefetch_words=512,
            burst_beats=32,
            outstanding=16,
            address_width=31,
        ),
    )
}
_WITH_SLOTS = (("sim-tiny-b4", "sim-tiny", 4), ("sim-small-b4", "sim-small", 4))
PRESETS |= {name: replace(PRESETS[base], name=name, slots=slots) for name, base, slots in _WITH_SLOTS}


def preset(name: str) -> HardwareConfig:
    """The preset called ``name``; a clear error lists those there are."""
    try:
        return PRESETS[name]
    except KeyError:
        raise SternaError(f"there is no configuration {name!r}; choose one of {', '.join(PRESETS)}") from None
