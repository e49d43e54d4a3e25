"""The CUDA source of the kernels for one geometry: constants of the specification, structures, kernel files."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from sterna.engines.cuda.structures import LAYER, MODEL, STRUCTURES
from sterna.model.geometry import Geometry
from sterna.spec import numerics, packing

FILES = ("integers.cuh", "quantise.cuh", "quads.cuh", "block.cuh", "decode.cuh", "prefill.cuh")
QUAD = 4  # rows whose trits share words
SEGMENT = 16  # columns of a quad that are one load
PADDING = 4 * SEGMENT  # vectors and rows of weights are padded to a multiple of this
WARP_QUADS, WARP_TOKENS = 8, 64  # what a warp of a matrix product makes; four warps, two by two, are a block
GEMM_THREADS, RECUR_THREADS = 128, 64  # of a block

_SPEC = (
    "VALUE_MIN",
    "VALUE_MAX",
    "PARAM_WIDTH",
    "GATE_IN_FRAC",
    "GATE_FRAC",
    "GATE_ONE",
    "STATE_FRAC",
    "EMBED_MANTISSA_BITS",
    "MAX_SHIFT",
    "Q_MAX",
    "NORMALISED_BITS",
    "RECIPROCAL_FRAC",
    "SCALE_MANTISSA_BITS",
    "ROOT_BITS",
    "QUOTIENT_EXTRA",
    "SIGMA_SEGMENT_BITS",
    "SIGMA_SEGMENTS",
    "SIGMA_TABLE_FRAC",
    "SIGMA_SLOPE_WIDTH",
)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the kernels are compiled for.

    Attributes:
        geometry: Sizes of the model.
        blocks: Blocks of the launch that decodes a token; all must run at once.
        threads: Threads of a block of it, and of the kernels with a block a token.
        chunk: Tokens that are read at once at most.
        ahead: Tiles that a warp fetches before a barrier.
    """

    geometry: Geometry
    blocks: int
    threads: int
    chunk: int
    ahead: int = 3

    @property
    def decode_shared_bytes(self) -> int:
        """Shared memory of a block that decodes: at least what the kernel uses, which its compilation checks."""
        sizes = self.geometry
        q = max(3 * padded(sizes.hidden), padded(sizes.inner))
        quads = (3 * self._most(sizes.hidden, QUAD), self._most(sizes.inner, 2), self._most(sizes.vocab, QUAD))
        sums = max(quads) * QUAD * 4
        layers = sizes.layers * LAYER.dtype.itemsize + MODEL.dtype.itemsize
        return q + sums + layers + 4 * numerics.SIGMA_SEGMENTS + self.quantiser_bytes + 16 * self.threads // 32 + 256

    @property
    def quantise_shared_bytes(self) -> int:
        """Shared memory of a block that quantises the vector of a token."""
        return max(3 * padded(self.geometry.hidden), padded(self.geometry.inner)) + self.quantiser_bytes

    def _most(self, rows: int, a_quad: int) -> int:
        """Quads of a matrix that a block has at most, with so many of these rows in a quad."""
        quads = -(-rows // a_quad)
        return -(-quads // self.blocks)

    @property
    def quantiser_bytes(self) -> int:
        """Shared memory of the quantiser itself."""
        return 5 * 8 * (self.threads // 32) + 3 * 20 + 4


def padded(columns: int) -> int:
    """Length of a vector on the device."""
    return -(-columns // PADDING) * PADDING


def segments(columns: int) -> int:
    """Loads that a quad of rows takes."""
    return padded(columns) // SEGMENT


def module_source(shape: Shape) -> str:
    """All kernels; before them a device puts what its threads can do (device.cuh)."""
    sizes = shape.geometry
    constants = {name: getattr(numerics, name) for name in _SPEC} | {
        "TRITS_PER_BYTE": packing.TRITS_PER_BYTE,
        "QUAD": QUAD,
        "SEGMENT": SEGMENT,
        "PADDING": PADDING,
        "WARP_QUADS": WARP_QUADS,
        "WARP_TOKENS": WARP_TOKENS,
        "GEMM_THREADS": GEMM_THREADS,
        "RECUR_THREADS": RECUR_THREADS,
        "HIDDEN": sizes.hidden,
        "INNER": sizes.inner,
        "VOCAB": sizes.vocab,
        "LAYERS": sizes.layers,
        "BLOCKS": shape.blocks,
        "THREADS": shape.threads,
        "CHUNK": shape.chunk,
        "AHEAD": shape.ahead,
        "SHARED_BYTES": shape.decode_shared_bytes,
    }
    base, slope = numerics.sigma_tables()
    entries = ", ".join(str(entry) for entry in (base << numerics.SIGMA_SLOPE_WIDTH | slope).tolist())
    return "\n".join(
        [
            *(f"constexpr int {name} = {value};" for name, value in constants.items()),
            f"__device__ const unsigned SIGMA_TABLE[SIGMA_SEGMENTS] = {{{entries}}};",
            *(structure.source for structure in STRUCTURES),
            *(kernel_file(name) for name in FILES),
        ]
    )


def kernel_file(name: str) -> str:
    """The text of a file of the folder ``kernels``."""
    return resources.files("sterna.engines.cuda").joinpath("kernels", name).read_text()
