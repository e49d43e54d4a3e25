"""Stored models: trits, scales and norm weights as ``sterna import`` wrote them, mapped from disk when touched."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.model import layout
from sterna.model.dtypes import SHORT_NAMES, FloatArray, to_float32
from sterna.model.geometry import Geometry
from sterna.model.manifest import WEIGHTS_FILE, Manifest, verify_manifest
from sterna.model.tensorfile import TensorFile
from sterna.progress import Progress, counting
from sterna.spec.generator import fixed_beta, fixed_rows
from sterna.spec.packing import unpack

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Projection:
    """A BitLinear: ternary weights, their scale and the weights of the norm before them."""

    rows: int  # outputs
    columns: int
    beta: float  # exactly a float32
    norm: FloatArray  # [columns]
    source: Callable[[], Bytes]  # maps or generates the packed trits
    generated: bool = False  # a fixed projection of a reservoir model: no file holds its trits

    @cached_property
    def packed(self) -> Bytes:
        """Trits, uint8 [rows, ceil(columns/5)], spec.packing; read-only, made at the first use if generated."""
        return self.source()

    def trits(self) -> npt.NDArray[np.int8]:
        """The weights as int8 [rows, columns] in -1..1.

        Raises:
            SternaError: a byte is no trit code.
        """
        return unpack(self.packed, self.columns)


@dataclass(frozen=True, eq=False)
class GLU:
    """The gated linear unit of a layer; ``mlp_norm`` float32 [hidden]."""

    mlp_norm: FloatArray
    gate: Projection  # 2 * inner rows: gate, then up
    down: Projection
    glu_frac: int


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer; norms float32 [hidden], ``lower_bound`` uint16 [hidden] with 16 fractional bits."""

    attn_norm: FloatArray
    lower_bound: npt.NDArray[np.uint16]
    f: Projection
    i: Projection
    g: Projection
    o: Projection
    g_norm: FloatArray
    product_frac: int
    glu: GLU | None  # None: a mixer-only layer of a reservoir model

    @property
    def projections(self) -> dict[str, Projection]:
        """Those that the layer has, by the names of ``layout.LAYER_PROJECTIONS``, in the order of a token."""
        own = {"f": self.f, "i": self.i, "g": self.g, "o": self.o}
        return own | ({"gate": self.glu.gate, "down": self.glu.down} if self.glu else {})


@dataclass(frozen=True, eq=False)
class Embedding:
    """The embedding table in the type of its source: ``bits`` [vocab, hidden], uint16 patterns or float32."""

    bits: npt.NDArray[Any]
    dtype: str  # "bfloat16", "float16" or "float32"
    frac: int  # the most fractional bits, at most 24, with which every entry fits int16

    def floats(self, ids: npt.ArrayLike) -> FloatArray:
        """Rows ``ids`` [...] as float32 [..., hidden], exact.

        Raises:
            SternaError: an id is not an integer inside the vocabulary.
        """
        index = np.asarray(ids)
        if not index.size:
            index = index.astype(np.int64)
        if index.dtype.kind not in "iu":
            raise SternaError(f"token ids must be integers, not {index.dtype}")
        vocab = self.bits.shape[0]
        if index.size and not 0 <= int(index.min()) <= int(index.max()) < vocab:
            wrong = index.min() if index.min() < 0 else index.max()
            raise SternaError(f"token id {int(wrong)} is outside the vocabulary of {vocab}")
        rows = self.bits[index]
        return to_float32(rows.view(np.float16) if self.dtype == "float16" else rows, SHORT_NAMES[self.dtype])

    def integers(self, ids: npt.ArrayLike) -> npt.NDArray[np.int16]:
        """Rows ``ids`` [...] as int16 [..., hidden] with ``frac`` fractional bits, rounded half to even."""
        return np.rint(np.ldexp(self.floats(ids).astype(np.float64), self.frac)).astype(np.int16)


@dataclass(frozen=True, eq=False)
class Model:
    """A stored model; arrays are read-only views of the mapped file."""

    geometry: Geometry
    embedding: Embedding
    layers: tuple[Layer, ...]
    norm: FloatArray  # [hidden], before the head
    head: Projection
    residual_frac: int
    bos_id: int | None
    eos_id: int | None
    path: Path

    @classmethod
    def open(cls, path: str | Path) -> Model:
        """Map the model in directory ``path``; tensors are read when touched, checksums only by :meth:`verify`.

        Raises:
            SternaError: the directory is no model, or a file in it is missing, truncated or does not fit the rest.
        """
        path = Path(path)
        if not path.is_dir():
            raise SternaError(f"there is no model directory {path}; make one with 'sterna import CHECKPOINT MODEL'")
        manifest = Manifest.read(path)
        file = _open_tensors(path, manifest)
        projections = _projections(file, manifest.geometry)
        return cls(
            geometry=manifest.geometry,
            embedding=Embedding(file.array(layout.EMBEDDING), manifest.embedding_dtype, manifest.embedding_frac),
            layers=tuple(_layer(index, manifest, file, projections) for index in range(manifest.geometry.layers)),
            norm=file.array("norm"),
            head=projections["head"],
            residual_frac=manifest.residual_frac,
            bos_id=manifest.bos_id,
            eos_id=manifest.eos_id,
            path=path,
        )

    def manifest(self) -> Manifest:
        """Read ``sterna.json`` again, for what is not needed to run the model."""
        return Manifest.read(self.path)

    def verify(self, *, progress: Progress | None = None) -> None:
        """Read every byte of the model and compare it with its checksum.

        Args:
            progress: Called once to make a progress bar that counts bytes of tensors.

        Raises:
            SternaError: a tensor or file differs; the sentence names it.
        """
        verify_manifest(self.path)
        manifest = self.manifest()
        file = _open_tensors(self.path, manifest)
        total = sum(spec.nbytes for spec in file.specs.values())
        with counting(progress, total=total, label="checking", unit="B") as count:
            for name, spec in file.specs.items():
                if _digest(file.pieces(name)) != manifest.tensors.get(name):
                    raise SternaError(
                        f"tensor {name} in {WEIGHTS_FILE} does not match its checksum; import the checkpoint again"
                    )
                count(spec.nbytes)
        for name, expected in manifest.files.items():
            try:
                found = hashlib.sha256((self.path / name).read_bytes()).hexdigest()
            except OSError as error:
                raise SternaError(
                    f"{name} of the model cannot be read: {error.strerror or error}; import again"
                ) from error
            if found != expected:
                raise SternaError(f"{name} does not match its checksum; import the checkpoint again")


def _open_tensors(path: Path, manifest: Manifest) -> TensorFile:
    file = TensorFile(path / WEIGHTS_FILE)
    expected = layout.stored_specs(manifest.geometry, embedding_dtype=SHORT_NAMES[manifest.embedding_dtype])
    found = file.specs
    for name, spec in expected.items():
        if name not in found:
            raise SternaError(f"{WEIGHTS_FILE} lacks the tensor {name}; import the checkpoint again")
        if found[name] != spec:
            raise SternaError(
                f"tensor {name} in {WEIGHTS_FILE} is {found[name].dtype} {list(found[name].shape)}, "
                f"the model needs {spec.dtype} {list(spec.shape)}; import the checkpoint again"
            )
    surplus = found.keys() - expected.keys()
    if surplus:
        raise SternaError(f"{WEIGHTS_FILE} has the unknown tensor {min(surplus)}; import the checkpoint again")
    return file


def _projections(file: TensorFile, geometry: Geometry) -> dict[str, Projection]:
    """All projections by their stored names; those that share generated trits share one array."""
    reservoir = geometry.reservoir

    @cache
    def generated(stream: int, rows: int, columns: int) -> Bytes:
        assert reservoir is not None  # else no plan has a stream
        packed = fixed_rows(reservoir.seed, stream, range(rows), columns)
        packed.flags.writeable = False
        return packed

    return {
        plan.stored: Projection(
            rows=plan.rows,
            columns=plan.columns,
            beta=_beta(file, plan.stored) if plan.stream is None else fixed_beta(plan.columns),
            norm=file.array(f"{plan.stored}.norm"),
            source=partial(file.array, f"{plan.stored}.trits")
            if plan.stream is None
            else partial(generated, plan.stream, plan.rows, plan.columns),
            generated=plan.stream is not None,
        )
        for plan in layout.projections(geometry)
    }


def _beta(file: TensorFile, stored: str) -> float:
    beta = float(file.array(f"{stored}.beta"))
    if not 0 < beta < float("inf"):
        raise SternaError(f"{stored}.beta is {beta}, not a positive number: the model is corrupt; import again")
    return beta


def _layer(index: int, manifest: Manifest, file: TensorFile, projections: dict[str, Projection]) -> Layer:
    prefix = f"layers.{index}"
    return Layer(
        attn_norm=file.array(f"{prefix}.attn_norm"),
        lower_bound=file.array(f"{prefix}.lower_bound"),
        f=projections[f"{prefix}.f"],
        i=projections[f"{prefix}.i"],
        g=projections[f"{prefix}.g"],
        o=projections[f"{prefix}.o"],
        g_norm=file.array(f"{prefix}.g_norm"),
        product_frac=manifest.product_frac[index],
        glu=_glu(prefix, manifest.glu_frac[index], file, projections),
    )


def _glu(prefix: str, frac: int | None, file: TensorFile, projections: dict[str, Projection]) -> GLU | None:
    if frac is None:  # the manifest has it exactly for the layers with a GLU
        return None
    return GLU(
        mlp_norm=file.array(f"{prefix}.mlp_norm"),
        gate=projections[f"{prefix}.gate"],
        down=projections[f"{prefix}.down"],
        glu_frac=frac,
    )


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
