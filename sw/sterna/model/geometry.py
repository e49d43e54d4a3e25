"""The sizes of a model, and the reading of them from the ``config.json`` of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sterna.errors import SternaError
from sterna.model.reservoir import RESERVOIR_MODEL_TYPE, Reservoir

MODEL_TYPE = "hgrn_bit"
INNER_MULTIPLE = 256  # the default GLU width is rounded up to this
MAX_COLUMNS = 65535  # longest row whose sum fits numerics.ACC_WIDTH

_LARGEST_NUMBER = 1_000_000  # no ratio or epsilon is near it; keeps products finite

# Keys that change what is computed, with the values that are supported; an absent key counts as the first one.
_FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("swish", "silu"),
    "expand_ratio": (1,),
    "use_short_conv": (False,),
    "tie_word_embeddings": (False,),
    "bias": (False, None),
    "use_bias": (False, None),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "quantization_config": (None,),
}


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Sizes of a model; every one a positive integer, none needs to be a multiple of anything.

    Three counts belong to it: ``ternary_weights`` work in a token, ``generated_weights`` of them are computed from
    their address, and ``parameters`` are stored, every one of which is trained.

    Raises:
        SternaError: a size is not positive, a row would be longer than the row sum can hold, or the reservoir names a
            layer that does not exist.
    """

    hidden: int  # d: width of the residual and of the recurrent state
    layers: int
    inner: int  # width of the GLU
    vocab: int
    rms_eps: float  # of the block norms; the norms inside the projections have their own constant
    reservoir: Reservoir | None = None  # which weights are generated, which layers lack a GLU (docs/reservoir.md)

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "inner", "vocab"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SternaError(f"geometry: {name} must be a positive integer, not {value!r}")
        for name in ("hidden", "inner"):
            if getattr(self, name) > MAX_COLUMNS:
                raise SternaError(
                    f"geometry: {name} is {getattr(self, name)}, more than the {MAX_COLUMNS} of a row sum"
                )
        eps = self.rms_eps
        if not isinstance(eps, int | float) or isinstance(eps, bool) or not 0 < eps < 1:
            raise SternaError(f"geometry: rms_eps must be a number between 0 and 1, not {eps!r}")
        if self.reservoir is not None:
            self.reservoir.check(self.layers)

    @property
    def glu_layers(self) -> tuple[int, ...]:
        """The layers that have a GLU."""
        without = self.reservoir.mixer_only if self.reservoir else ()
        return tuple(layer for layer in range(self.layers) if layer not in without)

    def stream(self, kind: str, layer: int) -> int | None:
        """The generator's stream for a projection (a name of ``generator.KINDS``), None if its trits are stored."""
        return self.reservoir.stream(kind, layer) if self.reservoir else None

    @property
    def ternary_weights(self) -> int:
        """Trits that a token uses, stored and generated: all projections and the head."""
        square = self.hidden * self.hidden
        return 4 * self.layers * square + 3 * len(self.glu_layers) * self.hidden * self.inner + self.vocab * self.hidden

    @property
    def generated_weights(self) -> int:
        """Those of the ``ternary_weights`` that are neither trained nor stored; layers that share them count each."""
        square, product = self.hidden * self.hidden, self.hidden * self.inner
        sizes = {"f": square, "i": square, "g": square, "o": square, "gate": 2 * product, "down": product}
        fixed = self.reservoir.fixed if self.reservoir else {}
        return sum(len(layers) * sizes[kind] for kind, layers in fixed.items())

    @property
    def parameters(self) -> int:
        """All that is stored, which is all that is trained: trits, embedding, norm weights and lower bounds."""
        norms = self.layers * 6 * self.hidden + len(self.glu_layers) * (2 * self.hidden + self.inner) + 2 * self.hidden
        stored = self.ternary_weights - self.generated_weights
        return stored + self.vocab * self.hidden + norms + self.layers * self.hidden

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as ``sterna.json`` holds them: JSON values, ``reservoir`` only where there is one."""
        sizes = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "reservoir"}
        return sizes | ({"reservoir": self.reservoir.to_dict()} if self.reservoir else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Geometry:
        """The inverse of :meth:`to_dict`.

        Raises:
            SternaError: a key is missing, unknown, or has an impossible value.
        """
        names = {field.name for field in fields(cls)}
        wrong = names - values.keys() - {"reservoir"} | values.keys() - names
        if wrong:
            raise SternaError(f"geometry lacks or should not have the key {min(wrong)}")
        reservoir = values.get("reservoir")
        return cls(**{**values, "reservoir": None if reservoir is None else Reservoir.from_dict(reservoir)})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Geometry:
        """Read the sizes from a parsed ``config.json``.

        ``intermediate_size`` null or absent gives int(hidden * hidden_ratio * 2/3) rounded up to 256. ``num_heads`` is
        not read: with ``expand_ratio`` 1 the recurrence is element by element and its norm spans all heads.

        Raises:
            SternaError: a key is missing, has an impossible value, or asks for what Sterna does not compute.
        """
        check_supported(config)
        hidden = _size(config, "hidden_size")
        inner = config.get("intermediate_size")
        if inner is None:
            inner = default_inner(hidden, _number(config, "hidden_ratio", 4))
        else:
            inner = _size(config, "intermediate_size")
        for key, size in (("hidden_size", hidden), ("intermediate_size", inner)):
            if size > MAX_COLUMNS:
                raise SternaError(f"config.json: {key} is {size}; at most {MAX_COLUMNS} is supported")
        eps = _number(config, "rms_norm_eps", 1e-6)
        if eps >= 1:
            raise SternaError(f"config.json: rms_norm_eps must be below 1, not {eps!r}")
        return cls(
            hidden=hidden,
            layers=_size(config, "num_hidden_layers"),
            inner=inner,
            vocab=_size(config, "vocab_size"),
            rms_eps=float(eps),
            reservoir=Reservoir.from_dict(config["reservoir"]) if "reservoir" in config else None,
        )


def check_supported(config: Mapping[str, Any], *, source: str = "config.json") -> None:
    """Refuse a ``config.json`` that asks for what Sterna does not compute; ``source`` names it in the error."""
    model_type, reservoir = config.get("model_type"), "reservoir" in config
    if model_type not in (MODEL_TYPE, RESERVOIR_MODEL_TYPE):
        raise SternaError(
            f"{source}: model_type is {model_type!r}; only {MODEL_TYPE!r} and {RESERVOIR_MODEL_TYPE!r} are supported"
        )
    if reservoir != (model_type == RESERVOIR_MODEL_TYPE):
        has = "has" if reservoir else "lacks"
        raise SternaError(f"{source}: the model_type is {model_type!r}, but the file {has} the table reservoir")
    for key, supported in _FIXED.items():
        if config.get(key, supported[0]) not in supported:
            raise SternaError(f"{source}: {key} is {config[key]!r}; only {supported[0]!r} is supported")


def default_inner(hidden: int, ratio: float) -> int:
    """Width of the GLU where ``intermediate_size`` is null: int(hidden * ratio * 2/3) rounded up to 256."""
    return -(-int(hidden * ratio * 2 / 3) // INNER_MULTIPLE) * INNER_MULTIPLE


def uses_lower_bounds(config: Mapping[str, Any]) -> bool:
    """Whether the forget gates have learnt lower bounds (``use_lower_bound``, true when absent)."""
    value = config.get("use_lower_bound", True)
    if not isinstance(value, bool):
        raise SternaError(f"config.json: use_lower_bound must be true or false, not {value!r}")
    return value


def token_id(config: Mapping[str, Any], key: str, vocab: int) -> int | None:
    """The special token id under ``key``, None when null or absent.

    Raises:
        SternaError: it is not one id, or not inside the vocabulary.
    """
    value = config.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise SternaError(f"config.json: {key} is {value!r}; it must be one token id or null")
    if not 0 <= value < vocab:
        raise SternaError(f"config.json: {key} is {value}, outside the vocabulary of {vocab}")
    return value


def _size(config: Mapping[str, Any], key: str) -> int:
    if key not in config:
        raise SternaError(f"config.json: the key {key} is missing")
    value = config[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SternaError(f"config.json: {key} must be a positive integer, not {value!r}")
    return value


def _number(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < _LARGEST_NUMBER:
        raise SternaError(f"config.json: {key} must be a positive number below {_LARGEST_NUMBER}, not {value!r}")
    return value
