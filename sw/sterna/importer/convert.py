"""From a Hugging Face ``hgrn_bit`` or ``hgrn_bit_reservoir`` checkpoint to a stored model, tensor by tensor.

The model is written into a temporary directory beside the target and renamed when complete, so that the target is
either the whole model or not there. Every tensor is checked by name and shape before the first one is read.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.importer import checkpoint, quantise
from sterna.importer.checkpoint import SourceTensor
from sterna.importer.publish import disk_errors, publish, temporary
from sterna.model import layout
from sterna.model.dtypes import FLOATS, LONG_NAMES, FloatArray, float_blocks
from sterna.model.geometry import Geometry, token_id, uses_lower_bounds
from sterna.model.manifest import GLU_FRAC, MANIFEST_FILE, PRODUCT_FRAC, RESIDUAL_FRAC, WEIGHTS_FILE, Manifest
from sterna.model.store import Model
from sterna.model.tensorfile import TensorWriter
from sterna.progress import Progress, ProgressBar
from sterna.spec.packing import pack

_UNSUPPORTED_TENSORS = {"conv": "short convolutions", "bias": "biases"}


@dataclass(frozen=True)
class ImportReport:
    """What an import did, for the caller to show."""

    path: Path
    geometry: Geometry
    tokenizer: str | None  # None: the checkpoint has none, the model runs on token ids only
    ignored: tuple[str, ...]  # tensors of the checkpoint that no part of the model uses


def import_checkpoint(
    source: Path,
    target: Path,
    *,
    allow_pickle: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    calibrate: bool = True,
) -> ImportReport:
    """Import the checkpoint directory ``source`` as the stored model ``target``.

    Args:
        allow_pickle: read ``pytorch_model.bin`` if there are no safetensors; ``checkpoint.PICKLE_RISK`` says the risk.
        overwrite: replace a Sterna model (never anything else) at ``target``.
        progress: makes a progress bar that counts bytes of the checkpoint, then one of the layers of calibration.
        calibrate: choose binary points from data, else the defaults of ``manifest`` stay.

    Raises:
        SternaError: anything is wrong with the checkpoint, the target or the disk; ``target`` is as it was before.
    """
    source, target = Path(source), Path(target)
    config = checkpoint.read_config(source)
    geometry = Geometry.from_config(config)
    bos_id, eos_id = (token_id(config, f"{name}_token_id", geometry.vocab) for name in ("bos", "eos"))
    _check_target(source, target, overwrite=overwrite)
    tensors = checkpoint.open_tensors(source, allow_pickle=allow_pickle)
    lower_bounds = uses_lower_bounds(config)
    for name in sorted(layout.absent_sources(geometry) & tensors.keys()):
        raise SternaError(
            f"tensor {name} has no place: by the reservoir of config.json its weights are generated, or its layer has "
            "no GLU; use the config.json that belongs to these weights"
        )
    ignored = _check_tensors(tensors, layout.source_shapes(geometry, lower_bounds=lower_bounds))
    tokenizer, copies = checkpoint.tokenizer_files(source)
    manifest = Manifest(
        source=source.resolve().name,
        geometry=geometry,
        bos_id=bos_id,
        eos_id=eos_id,
        embedding_dtype=LONG_NAMES[tensors[layout.EMBEDDING_SOURCE].dtype],
        embedding_frac=0,
        residual_frac=RESIDUAL_FRAC,
        product_frac=(PRODUCT_FRAC,) * geometry.layers,
        glu_frac=tuple(GLU_FRAC if layer in geometry.glu_layers else None for layer in range(geometry.layers)),
        tokenizer=tokenizer,
    )
    with disk_errors(target), temporary(target) as directory:
        manifest = _write(directory, manifest, tensors, lower_bounds=lower_bounds, progress=progress)
        digests = {name: _copy(source / name, directory / name) for name in copies}
        manifest = replace(manifest, files=digests)
        manifest.write(directory)
        if calibrate:
            _calibrated(manifest, directory, progress).write(directory)
        _check_target(source, target, overwrite=overwrite)
        publish(directory, target)
    return ImportReport(target, geometry, tokenizer, ignored)


def _check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    if target.resolve() == source.resolve():
        raise SternaError(f"the model cannot take the place of its checkpoint {source}; choose another directory")
    if not (target.exists() or target.is_symlink()):
        return
    if not overwrite:
        raise SternaError(f"{target} exists already; choose another name or import with --overwrite")
    if not (target / MANIFEST_FILE).is_file() or target.is_symlink():
        raise SternaError(f"{target} is not a Sterna model, so it is not overwritten; choose another name")


def _check_tensors(tensors: Mapping[str, SourceTensor], shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Names, shapes and types against what the geometry asks for; returns the names that nothing uses."""
    ignored = tuple(sorted(tensors.keys() - shapes.keys()))
    for name in ignored:
        for sign, what in _UNSUPPORTED_TENSORS.items():
            if any(sign in part for part in name.split(".")):
                raise SternaError(f"tensor {name} means that the checkpoint has {what}, which are not supported")
    for name, shape in shapes.items():
        if name not in tensors:
            also = f" (there is an unknown tensor {ignored[0]})" if ignored else ""
            raise SternaError(f"tensor {name} is missing in the checkpoint{also}; save the whole model again")
        tensor = tensors[name]
        if tensor.shape != shape:
            raise SternaError(
                f"tensor {name} in {tensor.file} has the shape {list(tensor.shape)}, "
                f"config.json asks for {list(shape)}; use the config.json that belongs to these weights"
            )
        if tensor.dtype not in FLOATS:
            raise SternaError(
                f"tensor {name} in {tensor.file} is {tensor.dtype}; save it as one of {', '.join(FLOATS)}"
            )
    return ignored


class _Target:
    """The tensor file being written, with the checksum of each tensor and the progress."""

    def __init__(self, writer: TensorWriter) -> None:
        self._writer = writer
        self._digests: dict[str, Any] = {}

    def write(self, name: str, piece: npt.NDArray[Any]) -> None:
        self._digests.setdefault(name, hashlib.sha256()).update(self._writer.write(name, piece))

    def digests(self) -> dict[str, str]:
        return {name: digest.hexdigest() for name, digest in sorted(self._digests.items())}


class _Source:
    """Reads tensors as finite float32 blocks and counts their bytes."""

    def __init__(self, tensors: Mapping[str, SourceTensor], bar: ProgressBar | None) -> None:
        self._tensors = tensors
        self._bar = bar

    def bits(self, name: str) -> npt.NDArray[Any]:
        return self._tensors[name].read()

    def blocks(self, name: str, bits: npt.NDArray[Any]) -> Iterator[FloatArray]:
        return float_blocks(bits, self._tensors[name].dtype, name)

    def whole(self, name: str) -> FloatArray:
        bits = self.bits(name)
        values = np.concatenate(list(self.blocks(name, bits)))
        self.count(bits.nbytes)
        return values

    def count(self, nbytes: int) -> None:
        if self._bar is not None:
            self._bar.update(nbytes)


def _write(
    directory: Path,
    manifest: Manifest,
    tensors: Mapping[str, SourceTensor],
    *,
    lower_bounds: bool,
    progress: Progress | None,
) -> Manifest:
    """Write all tensors; returns the manifest with their checksums and the embedding's binary point.

    Without ``lower_bounds`` they are stored as zero, whatever the checkpoint holds.
    """
    geometry = manifest.geometry
    specs = layout.stored_specs(geometry, embedding_dtype=tensors[layout.EMBEDDING_SOURCE].dtype)
    total = sum(tensors[name].nbytes for name in layout.source_shapes(geometry, lower_bounds=lower_bounds))
    bar = progress(total=total, label="importing", unit="B") if progress else None
    try:
        source = _Source(tensors, bar)
        with TensorWriter(directory / WEIGHTS_FILE, specs) as writer:
            target = _Target(writer)
            frac = _write_embedding(source, target)
            bounds = np.zeros((geometry.layers, geometry.hidden), np.uint16)
            if lower_bounds:
                bounds = quantise.lower_bounds(source.whole(layout.LOWER_BOUNDS_SOURCE))
            for layer, row in enumerate(bounds):
                target.write(f"layers.{layer}.lower_bound", row)
            for stored, name in layout.block_norms(geometry).items():
                target.write(stored, source.whole(name))
            for plan in layout.projections(geometry):
                _write_projection(plan, source, target)
        return replace(manifest, embedding_frac=frac, tensors=target.digests())
    finally:
        if bar is not None:
            bar.close()


def _write_embedding(source: _Source, target: _Target) -> int:
    """Store the embedding's bits as they are; returns its binary point."""
    bits = source.bits(layout.EMBEDDING_SOURCE)
    smallest = largest = 0.0
    start = 0
    for block in source.blocks(layout.EMBEDDING_SOURCE, bits):
        smallest, largest = min(smallest, float(block.min())), max(largest, float(block.max()))
        piece = bits[start : start + len(block)]
        target.write(layout.EMBEDDING, piece if piece.dtype == np.float32 else piece.view(np.uint16))
        source.count(piece.nbytes)
        start += len(block)
    return quantise.embedding_frac(smallest, largest)


def _write_projection(plan: layout.ProjectionPlan, source: _Source, target: _Target) -> None:
    target.write(f"{plan.stored}.norm", source.whole(f"{plan.source}.norm.weight"))
    if plan.stream is not None:
        return
    name = f"{plan.source}.weight"
    bits = source.bits(name)
    beta = quantise.absolute_mean(source.blocks(name, bits))
    target.write(f"{plan.stored}.beta", np.asarray(beta))
    for block in source.blocks(name, bits):
        target.write(f"{plan.stored}.trits", pack(quantise.ternarise(block, beta)))
        source.count(block.size * bits.itemsize)


def _calibrated(manifest: Manifest, directory: Path, progress: Progress | None) -> Manifest:
    """The manifest with binary points chosen from data."""
    from sterna.golden.calibrate import calibrate  # the golden model itself reads stored models

    points: dict[str, Any] = dict(calibrate(Model.open(directory), progress=progress))
    return replace(
        manifest,
        residual_frac=points["residual_frac"],
        product_frac=tuple(points["product_frac"]),
        glu_frac=tuple(points["glu_frac"]),
    )


def _copy(source: Path, target: Path) -> str:
    shutil.copyfile(source, target)
    return hashlib.sha256(target.read_bytes()).hexdigest()
