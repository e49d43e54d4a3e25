"""Writes checkpoints of any size with random weights, to measure geometries for which no trained model is at hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sterna.model import layout
from sterna.model.dtypes import FloatArray
from sterna.model.geometry import MODEL_TYPE, Geometry
from sterna.model.reservoir import RESERVOIR_MODEL_TYPE, Reservoir
from sterna.model.tensorfile import TensorSpec, TensorWriter

# The published sizes (arXiv 2406.02528), a small one for quick runs, and that with a reservoir.
GEOMETRIES = {
    "8m": Geometry(hidden=256, layers=6, inner=768, vocab=4096, rms_eps=1e-6),
    "8m-reservoir": Geometry(
        hidden=256,
        layers=6,
        inner=768,
        vocab=4096,
        rms_eps=1e-6,
        reservoir=Reservoir(fixed={"f": (1, 2, 4, 5), "i": (1, 2, 4, 5), "gate": (2, 5)}, mixer_only=(1, 4)),
    ),
    "370m": Geometry(hidden=1024, layers=24, inner=2816, vocab=32000, rms_eps=1e-6),
    "1.3b": Geometry(hidden=2048, layers=24, inner=5632, vocab=32000, rms_eps=1e-6),
    "2.7b": Geometry(hidden=2560, layers=32, inner=6912, vocab=32000, rms_eps=1e-6),
}
OUTLIERS = 1 / 512  # share of norm weights and embedding columns that are large, as in trained models
OUTLIER_SIZE = 12.0
_BLOCK_ROWS = 1024


def write_synthetic(
    path: Path, geometry: Geometry, *, seed: int = 0, progress: Callable[[int], object] | None = None
) -> Path:
    """Write a checkpoint directory (config.json, a bfloat16 shard a layer, the index), in blocks of rows.

    Trits come out in thirds, norm weights near one and some embedding columns with outliers, so that residuals and
    gates have the spread of a trained model; the text it would make is noise.

    Args:
        path: Directory to make; must not exist.
        geometry: Sizes.
        seed: Of the weights.
        progress: Called with the bytes of each piece.

    Returns:
        ``path``.
    """
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(_config(geometry), indent=2))
    shapes = layout.source_shapes(geometry, lower_bounds=True)
    shards: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        part = name.split(".")[2] if name.startswith("model.layers.") else "rest"
        shards.setdefault(f"model-{part}.safetensors", {})[name] = shape
    rng = np.random.default_rng(seed)
    for file, tensors in shards.items():
        with TensorWriter(path / file, {name: TensorSpec("BF16", shape) for name, shape in tensors.items()}) as writer:
            for name, shape in tensors.items():
                for block in _blocks(name, shape, rng):
                    data = writer.write(name, _bfloat16(block))
                    if progress:
                        progress(len(data))
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return path


def source_bytes(geometry: Geometry) -> int:
    """Bytes that :func:`write_synthetic` writes for tensors."""
    return sum(2 * int(np.prod(shape)) for shape in layout.source_shapes(geometry, lower_bounds=True).values())


def _config(geometry: Geometry) -> dict[str, object]:
    reservoir = geometry.reservoir
    extra = {"reservoir": reservoir.to_dict()} if reservoir else {}
    return extra | {
        "architectures": ["HGRNBitForCausalLM"],
        "model_type": RESERVOIR_MODEL_TYPE if reservoir else MODEL_TYPE,
        "hidden_size": geometry.hidden,
        "intermediate_size": geometry.inner,
        "num_hidden_layers": geometry.layers,
        "vocab_size": geometry.vocab,
        "rms_norm_eps": geometry.rms_eps,
        "hidden_act": "swish",
        "expand_ratio": 1,
        "num_heads": 1,
        "use_short_conv": False,
        "use_lower_bound": True,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _blocks(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[FloatArray]:
    """The values of a tensor in blocks of rows."""
    if len(shape) == 1:
        weights = 1 + 0.1 * rng.standard_normal(shape, np.float32)
        yield np.where(rng.random(shape) < OUTLIERS, weights * np.float32(OUTLIER_SIZE), weights)
        return
    scale = np.full(shape[1], shape[1] ** -0.5, np.float32)
    if name == layout.EMBEDDING_SOURCE:
        scale = np.where(rng.random(shape[1]) < OUTLIERS, OUTLIER_SIZE, 1.0).astype(np.float32)
    elif name == layout.LOWER_BOUNDS_SOURCE:
        scale[:] = 1.0
    for start in range(0, shape[0], _BLOCK_ROWS):
        yield rng.standard_normal((min(_BLOCK_ROWS, shape[0] - start), shape[1]), np.float32) * scale


def _bfloat16(values: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """Truncate to bfloat16 bits."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype("<u2")
