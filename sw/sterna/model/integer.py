"""Integer constants of a model: what docs/numerics.md derives from float norm weights and scales, once, at load."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sterna.errors import SternaError
from sterna.model.geometry import Geometry
from sterna.model.store import GLU, Embedding, Layer, Model, Projection
from sterna.spec import numerics
from sterna.spec.numerics import IntArray, ScaleConstants
from sterna.spec.packing import trit_bytes

BITLINEAR_EPS = 1e-6  # inside BitLinear, whatever the block norm uses
_MANTISSA_FRAC = numerics.PARAM_WIDTH - 1


@dataclass(frozen=True)
class NormVector:
    """Norm weights as ``mantissa * 2**(exponent - 15)``; mantissa int64 [n], at most 32767 in magnitude."""

    mantissa: IntArray
    exponent: int

    @classmethod
    def from_floats(cls, weights: npt.NDArray[np.float64]) -> NormVector:
        """Nearest mantissas under the smallest exponent that holds the largest weight."""
        largest = float(np.max(np.abs(weights)))
        limit = (1 << _MANTISSA_FRAC) - 1
        exponent = math.frexp(largest)[1] if largest else 0
        if round(math.ldexp(largest, _MANTISSA_FRAC - exponent)) > limit:
            exponent += 1
        return cls(np.rint(np.ldexp(weights, _MANTISSA_FRAC - exponent)).astype(np.int64), exponent)


@dataclass(frozen=True)
class IntegerProjection:
    """One BitLinear layer: packed trits and everything its quantiser needs.

    ``weight_norm`` is the mantissa of c = (block norm) * (projection norm), int64 [columns].
    """

    packed: npt.NDArray[np.uint8]
    rows: int
    columns: int
    weight_norm: IntArray
    constants: ScaleConstants
    generated: bool = False  # its trits can be computed instead of read

    @property
    def weight_bytes(self) -> int:
        """Bytes of the trits at five a byte, without any padding: the floor of what a token must read."""
        return trit_bytes(self.rows * self.columns)


@dataclass(frozen=True)
class IntegerGLU:
    """All integer constants of the gated linear unit of a layer."""

    mlp_norm: NormVector
    gate: IntegerProjection
    glu_shift: int
    down: IntegerProjection


@dataclass(frozen=True)
class IntegerLayer:
    """All integer constants of one layer; vectors are int64."""

    attn_norm: NormVector
    f: IntegerProjection
    i: IntegerProjection
    g: IntegerProjection
    lower_bound: IntArray
    product_shift: int
    g_norm: NormVector
    o: IntegerProjection
    glu: IntegerGLU | None  # None: a mixer-only layer of a reservoir model

    @property
    def projections(self) -> dict[str, IntegerProjection]:
        """Those that the layer has, by the names of ``layout.LAYER_PROJECTIONS``, in the order of a token."""
        own = {"f": self.f, "i": self.i, "g": self.g, "o": self.o}
        return own | ({"gate": self.glu.gate, "down": self.glu.down} if self.glu else {})


@dataclass(frozen=True)
class IntegerModel:
    """A model as the accelerator sees it."""

    geometry: Geometry
    embedding: Embedding
    embed_shift: int
    residual_frac: int
    layers: tuple[IntegerLayer, ...]
    norm: NormVector
    head: IntegerProjection

    @classmethod
    def from_model(cls, model: Model) -> IntegerModel:
        """Derive every constant; float64 throughout, each operation correctly rounded, so the same on every machine."""
        eps, frac = model.geometry.rms_eps, model.residual_frac
        embed_shift = numerics.EMBED_MANTISSA_BITS - (frac - model.embedding.frac)
        if not 0 <= embed_shift <= numerics.MAX_SHIFT:
            raise SternaError(
                f"embedding binary point {model.embedding.frac} and residual binary point {frac} are too far apart"
            )
        norm = NormVector.from_floats(_f64(model.norm))
        return cls(
            geometry=model.geometry,
            embedding=model.embedding,
            embed_shift=embed_shift,
            residual_frac=frac,
            layers=tuple(_integer_layer(layer, eps, frac) for layer in model.layers),
            norm=norm,
            head=_projection(model.head, _f64(model.norm), norm, frac, frac, eps, numerics.LOGIT_FRAC),
        )

    @property
    def weight_bytes(self) -> int:
        """Bytes of all trits that one token uses, unpadded: what it reads where nothing generates trits."""
        return sum(p.weight_bytes for p in self._projections)

    @property
    def stored_weight_bytes(self) -> int:
        """Those of the ``weight_bytes`` that a token reads where fixed projections are generated on the way."""
        return sum(p.weight_bytes for p in self._projections if not p.generated)

    @property
    def _projections(self) -> list[IntegerProjection]:
        return [*(p for layer in self.layers for p in layer.projections.values()), self.head]


def _f64(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return values.astype(np.float64)


def _integer_layer(layer: Layer, eps: float, frac: int) -> IntegerLayer:
    attn, out = _f64(layer.attn_norm), _f64(layer.g_norm)
    attn_norm, g_norm = NormVector.from_floats(attn), NormVector.from_floats(out)
    gate_in = numerics.GATE_IN_FRAC
    return IntegerLayer(
        attn_norm=attn_norm,
        f=_projection(layer.f, attn, attn_norm, frac, frac, eps, gate_in),
        i=_projection(layer.i, attn, attn_norm, frac, frac, eps, gate_in),
        g=_projection(layer.g, attn, attn_norm, frac, frac, eps, gate_in),
        lower_bound=layer.lower_bound.astype(np.int64),
        product_shift=gate_in + numerics.STATE_FRAC - layer.product_frac,
        g_norm=g_norm,
        # The block norm of v is over the gate projection y_g; its root cancels, its epsilon does not.
        o=_projection(layer.o, out, g_norm, layer.product_frac, gate_in, eps, frac),
        glu=_integer_glu(layer.glu, eps, frac) if layer.glu else None,
    )


def _integer_glu(glu: GLU, eps: float, frac: int) -> IntegerGLU:
    norm = _f64(glu.mlp_norm)
    mlp_norm, gate_in = NormVector.from_floats(norm), numerics.GATE_IN_FRAC
    return IntegerGLU(
        mlp_norm=mlp_norm,
        gate=_projection(glu.gate, norm, mlp_norm, frac, frac, eps, gate_in),
        glu_shift=2 * gate_in - glu.glu_frac,
        down=_projection(glu.down, None, None, glu.glu_frac, None, None, frac),
    )


def _projection(
    projection: Projection,
    block_norm: npt.NDArray[np.float64] | None,
    norm: NormVector | None,
    input_frac: int,
    normed_frac: int | None,
    norm_eps: float | None,
    output_frac: int,
) -> IntegerProjection:
    """Constants of one BitLinear whose input vector has ``input_frac`` fractional bits.

    ``norm`` is the block norm before it (None: none), over a vector of ``normed_frac`` fractional bits.
    """
    weights = _f64(projection.norm) if block_norm is None else _f64(projection.norm) * block_norm
    combined = NormVector.from_floats(weights)
    norm_exponent = norm.exponent if norm else 0
    count = float(projection.columns)
    factor = float(projection.beta) * math.sqrt(count) / numerics.Q_MAX
    fraction, exponent = math.frexp(factor)
    mantissa = round(math.ldexp(fraction, numerics.CONSTANT_BITS))
    if mantissa == 1 << numerics.CONSTANT_BITS:
        mantissa, exponent = mantissa >> 1, exponent + 1
    share = 0.0
    constant = count * BITLINEAR_EPS
    if norm_eps is not None and normed_frac is not None:
        share = math.ldexp(BITLINEAR_EPS, 2 * (input_frac - normed_frac - norm_exponent))
        constant *= norm_eps
    eps_mantissa, eps_shift = _share(share)
    return IntegerProjection(
        packed=projection.packed,
        rows=projection.rows,
        columns=projection.columns,
        weight_norm=combined.mantissa,
        generated=projection.generated,
        constants=ScaleConstants(
            eps_mantissa=eps_mantissa,
            eps_shift=eps_shift,
            eps_const=min(
                round(math.ldexp(constant, 2 * (input_frac - norm_exponent))), (1 << numerics.EPS_CONST_BITS) - 1
            ),
            mantissa=mantissa,
            exponent=exponent
            - numerics.CONSTANT_BITS
            + combined.exponent
            - _MANTISSA_FRAC
            - norm_exponent
            + output_frac,
        ),
    )


def _share(share: float) -> tuple[int, int]:
    """``share`` as 16-bit mantissa and right shift 0..127; clamped at both ends."""
    if share <= 0.0:
        return 0, 0
    fraction, exponent = math.frexp(share)
    mantissa, shift = round(math.ldexp(fraction, numerics.EPS_BITS)), numerics.EPS_BITS - exponent
    if mantissa == 1 << numerics.EPS_BITS:
        mantissa, shift = mantissa >> 1, shift - 1
    if shift > 127:
        return 0, 0
    return (mantissa, shift) if shift >= 0 else ((1 << numerics.EPS_BITS) - 1, 0)
