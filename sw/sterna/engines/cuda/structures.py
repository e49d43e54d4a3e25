"""Structures that the host writes and the kernels read: one definition, as NumPy types and as C++."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_NUMPY_TYPES = {"int": "i4", "unsigned": "u4", "long long": "i8", "unsigned long long": "u8"}


@dataclass(frozen=True)
class Structure:
    """A C structure; a field's type is a C type, where all pointers are alike to NumPy, or another structure."""

    name: str
    fields: tuple[tuple[str, str | Structure], ...]

    @property
    def dtype(self) -> np.dtype[np.void]:
        """The NumPy type, with the padding of C."""
        fields: list[Any] = []
        for name, kind in self.fields:
            if isinstance(kind, Structure):
                fields.append((name, kind.dtype))
            else:
                fields.append((name, "u8" if kind.endswith("*") else _NUMPY_TYPES[kind]))
        return np.dtype(fields, align=True)

    @property
    def source(self) -> str:
        """The C++ definition, and a check that it has the size of the NumPy type."""
        lines = [f"    {kind.name if isinstance(kind, Structure) else kind} {name};" for name, kind in self.fields]
        check = f"static_assert(sizeof({self.name}) == {self.dtype.itemsize});"
        return "\n".join([f"struct {self.name} {{", *lines, "};", check])


PROJECTION = Structure(
    "Projection",
    (
        ("weight_norm", "const short*"),  # [columns]
        ("eps_const", "long long"),
        ("eps_mantissa", "int"),
        ("eps_shift", "int"),
        ("mantissa", "int"),
        ("exponent", "int"),
    ),
)
LAYER = Structure(
    "Layer",
    (
        ("f", PROJECTION),  # f, i and g are also an array of three
        ("i", PROJECTION),
        ("g", PROJECTION),
        ("o", PROJECTION),
        ("gate", PROJECTION),
        ("down", PROJECTION),
        ("attn_norm", "const short*"),
        ("g_norm", "const short*"),
        ("mlp_norm", "const short*"),
        ("lower_bound", "const unsigned short*"),
        ("gate_weights", "const uint4*"),  # quads of f, i and g in turn
        ("out_weights", "const uint4*"),
        ("glu_weights", "const uint4*"),
        ("down_weights", "const uint4*"),
        ("state", "int*"),  # [hidden], the first of two halves (kernel decode)
        ("product_shift", "int"),
        ("glu_shift", "int"),
        ("has_glu", "int"),
    ),
)
RESULT = Structure("Result", (("sampled", "int"), ("clamped", "int")))
CONTROL = Structure(
    "Control",  # all zero between launches, but for what prefill has clamped and for `sampled`
    (
        ("best", "unsigned long long"),
        ("clamped", "int"),
        ("finished", "unsigned"),
        ("sampled", "int"),  # by the latest launch
    ),
)
MODEL = Structure(
    "Model",
    (
        ("layers", "const Layer*"),
        ("embedding", "const short*"),  # [vocab, hidden]
        ("norm", "const short*"),
        ("head", PROJECTION),
        ("head_weights", "const uint4*"),
        ("embed_shift", "int"),
        ("tokens", "int*"),  # [chunk]
        ("x", "int*"),  # [chunk, hidden]; a single token has row 0, here and below
        ("gates", "int*"),  # [3, chunk, hidden]: f, i (then the states) and g
        ("w", "int*"),  # [hidden]
        ("y", "int*"),  # [hidden]: y of the output gate
        ("a", "int*"),  # [chunk, inner]; takes the place of the gates
        ("q", "unsigned*"),  # [3, chunk, columns], or [chunk, inner], bytes
        ("scales", "int4*"),  # [3, chunk]: scale mantissa and shift, sum of the activations
        ("logits", "int*"),  # [vocab]
        ("measures", "unsigned long long*"),  # [2, 5, blocks]: of the input of the next phase (kernel decode)
        ("arrivals", "unsigned*"),  # [1], zero between launches
        ("control", "Control*"),
        ("results", "Result*"),  # [2], in the memory of the host
    ),
)
STRUCTURES = (PROJECTION, LAYER, RESULT, CONTROL, MODEL)
