"""Figures about a stored model: sizes, trit statistics, binary points."""

from __future__ import annotations

from typing import Any

import numpy as np

from sterna.model.store import Model, Projection
from sterna.spec.packing import CODES, TRITS_PER_BYTE, code_table, trit_bytes, unpack

_ROWS = 4096  # rows counted at a time, so that little of a mapped file is in memory


def trit_counts(projection: Projection) -> tuple[int, int, int]:
    """How many weights are -1, 0 and 1; the filling of the last byte of a row is not counted.

    Raises:
        SternaError: a byte is no trit code.
    """
    codes = np.zeros(256, np.int64)
    for start in range(0, projection.rows, _ROWS):
        codes += np.bincount(projection.packed[start : start + _ROWS].reshape(-1), minlength=256)
    present = np.flatnonzero(codes).astype(np.uint8)
    unpack(present, TRITS_PER_BYTE * present.size)  # refuses invalid codes
    table = code_table()
    minus, zero, plus = (int(codes[:CODES] @ (table == trit).sum(axis=1)) for trit in (-1, 0, 1))
    filling = projection.packed.shape[1] * TRITS_PER_BYTE - projection.columns
    return minus, zero - projection.rows * filling, plus


def summarise(model: Model) -> dict[str, Any]:
    """What `sterna info` shows, as plain JSON values.

    ``trits`` gives for each projection type the share of -1, 0 and 1 over all layers; ``weight_bytes`` the bytes
    of all trits at five a byte, unpadded, which is what one token reads at least, and ``stored_weight_bytes`` what is
    left of that where fixed projections are generated on the way (the properties of these names of IntegerModel).
    """
    manifest = model.manifest()
    groups: dict[str, list[Projection]] = {}
    for layer in model.layers:
        for name, projection in layer.projections.items():
            groups.setdefault(name, []).append(projection)
    groups["head"] = [model.head]
    every = [projection for group in groups.values() for projection in group]
    trits = {}
    for name, projections in groups.items():
        counts = np.sum([trit_counts(projection) for projection in projections], axis=0)
        total = int(counts.sum())
        shares = {str(trit): float(count) / total for trit, count in zip((-1, 0, 1), counts, strict=True)}
        trits[name] = {**shares, "weights": total}
    return {
        "source": manifest.source,
        "geometry": model.geometry.to_dict(),
        "parameters": model.geometry.parameters,
        "ternary_weights": model.geometry.ternary_weights,
        "generated_weights": model.geometry.generated_weights,
        "bytes": sum(file.stat().st_size for file in model.path.iterdir()),
        "weight_bytes": sum(trit_bytes(p.rows * p.columns) for p in every),
        "stored_weight_bytes": sum(trit_bytes(p.rows * p.columns) for p in every if not p.generated),
        "embedding": {"dtype": model.embedding.dtype, "frac": model.embedding.frac},
        "binary_points": {
            "residual_frac": model.residual_frac,
            "product_frac": [layer.product_frac for layer in model.layers],
            "glu_frac": [layer.glu.glu_frac if layer.glu else None for layer in model.layers],
        },
        "bos_id": model.bos_id,
        "eos_id": model.eos_id,
        "tokenizer": manifest.tokenizer,
        "trits": trits,
    }
