"""Which tensors a checkpoint must have, what they become, and under which names they are stored.

One table serves the importer, the reader of stored models and docs/model-format.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sterna.model.geometry import Geometry
from sterna.model.tensorfile import TensorSpec
from sterna.spec.packing import TRITS_PER_BYTE

EMBEDDING = "embedding"
EMBEDDING_SOURCE = "model.embeddings.weight"
LOWER_BOUNDS_SOURCE = "model.lower_bounds"
LAYER_PROJECTIONS = {  # stored name in a layer: (source name in a layer, rows, columns)
    "f": ("attn.f_proj", "hidden", "hidden"),
    "i": ("attn.i_proj", "hidden", "hidden"),
    "g": ("attn.g_proj", "hidden", "hidden"),
    "o": ("attn.o_proj", "hidden", "hidden"),
    "gate": ("mlp.gate_proj", "2*inner", "hidden"),
    "down": ("mlp.down_proj", "hidden", "inner"),
}
GLU_PROJECTIONS = ("gate", "down")
LAYER_NORMS = {"attn_norm": "attn_norm.weight", "g_norm": "attn.g_norm.weight", "mlp_norm": "mlp_norm.weight"}
GLU_NORMS = ("mlp_norm",)


@dataclass(frozen=True)
class ProjectionPlan:
    """A BitLinear: ``source``.weight [rows, columns] and ``source``.norm.weight [columns] in the checkpoint."""

    stored: str
    source: str
    rows: int
    columns: int
    stream: int | None = None  # of a fixed projection, which has no weight, trits or scale: where its trits come from

    @property
    def packed_columns(self) -> int:
        """Bytes of a row of trits."""
        return -(-self.columns // TRITS_PER_BYTE)


def projections(geometry: Geometry) -> list[ProjectionPlan]:
    """All projections in the order of a token; the head is the last."""
    sizes = {"hidden": geometry.hidden, "inner": geometry.inner, "2*inner": 2 * geometry.inner}
    plans = [
        ProjectionPlan(
            f"layers.{layer}.{name}",
            f"model.layers.{layer}.{source}",
            sizes[rows],
            sizes[columns],
            geometry.stream(name, layer),
        )
        for layer in range(geometry.layers)
        for name, (source, rows, columns) in LAYER_PROJECTIONS.items()
        if name not in GLU_PROJECTIONS or layer in geometry.glu_layers
    ]
    return [*plans, ProjectionPlan("head", "lm_head", geometry.vocab, geometry.hidden)]


def block_norms(geometry: Geometry) -> dict[str, str]:
    """Stored name to source name of the norm weights outside projections, each [hidden]."""
    norms = {
        f"layers.{layer}.{name}": f"model.layers.{layer}.{source}"
        for layer in range(geometry.layers)
        for name, source in LAYER_NORMS.items()
        if name not in GLU_NORMS or layer in geometry.glu_layers
    }
    return {**norms, "norm": "model.norm.weight"}


def source_shapes(geometry: Geometry, *, lower_bounds: bool) -> dict[str, tuple[int, ...]]:
    """Every tensor that the checkpoint must have, with its shape."""
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING_SOURCE: (geometry.vocab, geometry.hidden)}
    if lower_bounds:
        shapes[LOWER_BOUNDS_SOURCE] = (geometry.layers, geometry.hidden)
    shapes.update(dict.fromkeys(block_norms(geometry).values(), (geometry.hidden,)))
    for plan in projections(geometry):
        if plan.stream is None:
            shapes[f"{plan.source}.weight"] = (plan.rows, plan.columns)
        shapes[f"{plan.source}.norm.weight"] = (plan.columns,)
    return shapes


def absent_sources(geometry: Geometry) -> set[str]:
    """Tensors that the checkpoint would have without a reservoir, and must not have with it."""
    ordinary = source_shapes(replace(geometry, reservoir=None), lower_bounds=False)
    return ordinary.keys() - source_shapes(geometry, lower_bounds=False).keys()


def stored_specs(geometry: Geometry, *, embedding_dtype: str) -> dict[str, TensorSpec]:
    """Every tensor of a stored model; ``embedding_dtype`` "F32" keeps float32, others are stored as raw 16 bits."""
    container = "F32" if embedding_dtype == "F32" else "U16"
    specs = {EMBEDDING: TensorSpec(container, (geometry.vocab, geometry.hidden))}
    specs.update(dict.fromkeys(block_norms(geometry), TensorSpec("F32", (geometry.hidden,))))
    for layer in range(geometry.layers):
        specs[f"layers.{layer}.lower_bound"] = TensorSpec("U16", (geometry.hidden,))
    for plan in projections(geometry):
        if plan.stream is None:
            specs[f"{plan.stored}.trits"] = TensorSpec("U8", (plan.rows, plan.packed_columns))
            specs[f"{plan.stored}.beta"] = TensorSpec("F32", ())
        specs[f"{plan.stored}.norm"] = TensorSpec("F32", (plan.columns,))
    return specs
