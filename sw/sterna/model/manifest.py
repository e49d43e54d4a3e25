"""``sterna.json``: everything about a stored model that is not a tensor (docs/model-format.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from sterna.errors import SternaError
from sterna.model.dtypes import SHORT_NAMES
from sterna.model.geometry import Geometry
from sterna.spec.numerics import GATE_IN_FRAC, MAX_SHIFT, STATE_FRAC

MANIFEST_FILE = "sterna.json"
WEIGHTS_FILE = "model.safetensors"
FORMAT = "sterna-model"
FORMAT_VERSION = 1

RESIDUAL_FRAC = 12  # binary points of a model that was not calibrated
PRODUCT_FRAC = 14
GLU_FRAC = 12

# A product leaves its row operation by a right shift of 0..MAX_SHIFT bits, which bounds its binary point.
_PRODUCT_MAX = GATE_IN_FRAC + STATE_FRAC
_GLU_MAX = 2 * GATE_IN_FRAC
_RANGES = {
    "residual_frac": (-32, 32),
    "product_frac": (_PRODUCT_MAX - MAX_SHIFT, _PRODUCT_MAX),
    "glu_frac": (_GLU_MAX - MAX_SHIFT, _GLU_MAX),
}


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of ``sterna.json``; binary points are fractional bits."""

    source: str  # name of the checkpoint that was imported
    geometry: Geometry
    bos_id: int | None
    eos_id: int | None
    embedding_dtype: str  # "bfloat16", "float16" or "float32"
    embedding_frac: int
    residual_frac: int = RESIDUAL_FRAC
    product_frac: tuple[int, ...]  # one a layer
    glu_frac: tuple[int | None, ...]  # one a layer, None where it has no GLU
    tokenizer: str | None  # file name, None if the checkpoint had none
    tensors: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of the bytes of each tensor
    files: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of each file copied beside

    def __post_init__(self) -> None:
        layers = self.geometry.layers
        _check_frac("residual_frac", self.residual_frac)
        present = {"product_frac": range(layers), "glu_frac": self.geometry.glu_layers}
        for name, having in present.items():
            values = getattr(self, name)
            if len(values) != layers:
                raise SternaError(
                    f"{MANIFEST_FILE}: {name} has {len(values)} entries for {layers} layers; import again"
                )
            for layer, value in enumerate(values):
                if layer in having:
                    _check_frac(name, value)
                elif value is not None:
                    raise SternaError(
                        f"{MANIFEST_FILE}: {name} must be null in the mixer-only layer {layer}; import again"
                    )

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, with the checksum of the rest under ``checksum``."""
        content = {"format": FORMAT, "version": FORMAT_VERSION, **asdict(self), "geometry": self.geometry.to_dict()}
        content["product_frac"], content["glu_frac"] = list(self.product_frac), list(self.glu_frac)
        return {**content, "checksum": checksum(content)}

    def write(self, directory: Path) -> None:
        """Write ``sterna.json`` into ``directory``."""
        (directory / MANIFEST_FILE).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Manifest:
        """Check and take over a parsed ``sterna.json``.

        Raises:
            SternaError: another format or version, or a key that is missing or makes no sense.
        """
        if content.get("format") != FORMAT:
            raise SternaError(f"{MANIFEST_FILE} is not a description of a Sterna model; import the checkpoint again")
        if content.get("version") != FORMAT_VERSION:
            raise SternaError(
                f"{MANIFEST_FILE} has the format version {content.get('version')!r}, this Sterna reads "
                f"{FORMAT_VERSION}; import the checkpoint again with this Sterna"
            )
        names = {entry.name for entry in fields(cls)}
        missing = sorted(names - content.keys())
        if missing:
            raise SternaError(f"{MANIFEST_FILE}: the key {missing[0]} is missing; import the checkpoint again")
        values = {name: content[name] for name in names}
        for name, (holds, what) in _CHECKS.items():
            if not holds(values[name]):
                raise SternaError(f"{MANIFEST_FILE}: {name} must be {what}; import the checkpoint again")
        try:
            values["geometry"] = Geometry.from_dict(values["geometry"])
        except SternaError as error:
            raise SternaError(f"{MANIFEST_FILE}: {error}; import the checkpoint again") from error
        values["product_frac"], values["glu_frac"] = tuple(values["product_frac"]), tuple(values["glu_frac"])
        return cls(**values)

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read ``sterna.json`` of the model in ``directory``; its own checksum is left to :func:`verify_manifest`."""
        return cls.from_dict(read_json(directory / MANIFEST_FILE, f"{directory.name} is no Sterna model"))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_plain_name(value: object) -> bool:
    return isinstance(value, str) and Path(value).name == value


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "source": (lambda value: isinstance(value, str), "a text"),
    "geometry": (lambda value: isinstance(value, dict), "an object"),
    "bos_id": (lambda value: value is None or (_is_int(value) and value >= 0), "a token id or null"),
    "eos_id": (lambda value: value is None or (_is_int(value) and value >= 0), "a token id or null"),
    "embedding_dtype": (lambda value: value in tuple(SHORT_NAMES), f"one of {', '.join(SHORT_NAMES)}"),
    "embedding_frac": (lambda value: _is_int(value) and -150 <= value <= 24, "an integer up to 24"),
    "product_frac": (lambda value: isinstance(value, list), "a list"),
    "glu_frac": (lambda value: isinstance(value, list), "a list"),
    "tokenizer": (lambda value: value is None or _is_plain_name(value), "a file name or null"),
    "tensors": (_is_text_map, "an object of checksums"),
    "files": (lambda value: _is_text_map(value) and all(map(_is_plain_name, value)), "an object of checksums"),
}


def _check_frac(name: str, value: object) -> None:
    low, high = _RANGES[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SternaError(f"{MANIFEST_FILE}: {name} must be an integer in {low}..{high}, not {value!r}; import again")


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object in canonical form, its own ``checksum`` left out."""
    rest = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def verify_manifest(directory: Path) -> None:
    """Compare ``sterna.json`` with its own checksum.

    Raises:
        SternaError: they differ.
    """
    content = read_json(directory / MANIFEST_FILE, f"{directory.name} is no Sterna model")
    if content.get("checksum") != checksum(content):
        raise SternaError(f"{MANIFEST_FILE} does not match its checksum: it was changed; import the checkpoint again")


def read_json(path: Path, consequence: str = "") -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        SternaError: there is no such file (the sentence begins with ``consequence``), or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SternaError(
            f"{consequence + ': ' if consequence else ''}{path.name} is missing in {path.parent}"
        ) from None
    except OSError as error:
        raise SternaError(f"{path.name} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SternaError(f"{path.name} is not valid JSON ({error}); fetch or write the file again") from error
    if not isinstance(content, dict):
        raise SternaError(f"{path.name} must hold a JSON object, not {type(content).__name__}")
    return content
