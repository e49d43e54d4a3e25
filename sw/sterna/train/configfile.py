"""Training configurations as TOML: presets, files and single settings laid over each other, and back to text."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sterna.errors import SternaError
from sterna.model.geometry import MODEL_TYPE
from sterna.model.reservoir import RESERVOIR_MODEL_TYPE
from sterna.reference.config import HGRNBitConfig
from sterna.train.config import TrainConfig

__all__ = ["PRESETS", "build", "preset", "preset_table", "read_file", "read_setting", "to_toml"]

PRESETS = ("tiny", "30m", "30m-reservoir", "125m", "370m", "1.3b", "2.7b")

_HINTS = get_type_hints(TrainConfig)
_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}

Table = dict[str, Any]


def preset(name: str, **changes: Any) -> TrainConfig:
    """The preset `name` with `changes` to its fields; None means no change."""
    return build(preset_table(name), {key: value for key, value in changes.items() if value is not None})


def preset_table(name: str) -> Table:
    """The parsed file of the preset `name`."""
    if name not in PRESETS:
        raise SternaError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    text = resources.files("sterna.train").joinpath(f"presets/{name}.toml").read_text(encoding="utf-8")
    return _checked(tomllib.loads(text), source=f"preset {name}")


def read_file(path: str | Path) -> Table:
    """Read a TOML file; every key is known and has a value of its type.

    Raises:
        SternaError: no such file, no TOML, an unknown key or a value of the wrong type; names the file and the key.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SternaError(f"the config {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SternaError(f"the config {path} is not TOML: {error}") from error
    return _checked(values, source=str(path))


def read_setting(text: str) -> Table:
    """Parse `KEY=VALUE`, for example `lr=1e-3` or `model.hidden_size=512`; a value without quotes may be a string."""
    key, equals, value = (part.strip() for part in text.partition("="))
    for candidate in (value, json.dumps(value)):
        try:
            return _checked(tomllib.loads(f"{key} = {candidate}"), source=f"--set {text}")
        except tomllib.TOMLDecodeError:
            if not equals:
                break
    raise SternaError(f"--set {text}: write KEY=VALUE, for example --set lr=1e-3")


def build(*tables: Mapping[str, Any], source: str | None = None) -> TrainConfig:
    """The run that `tables` describe, later ones over earlier ones; what none names has the value of `TrainConfig`."""
    merged: Table = {}
    for table in tables:
        merged = _merge(merged, table)
    model = merged.pop("model", {})
    try:
        if not isinstance(model, HGRNBitConfig):
            kind = RESERVOIR_MODEL_TYPE if "reservoir" in model else MODEL_TYPE
            model = HGRNBitConfig.from_dict(HGRNBitConfig().to_dict() | {"model_type": kind} | model, source="[model]")
        return TrainConfig(model=model, **merged)
    except SternaError as error:
        raise SternaError(f"{source}: {error}" if source else str(error)) from error


def _merge(below: Table, above: Mapping[str, Any]) -> Table:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _checked(values: Table, *, source: str) -> Table:
    """`values` with all keys known and all types right; the values of [model] are left to `HGRNBitConfig`."""
    _known(values, TrainConfig.__dataclass_fields__, source=source)
    checked: Table = {key: _typed(value, _HINTS[key], f"{source}: {key}") for key, value in values.items()}
    if "model" in checked:
        _known(checked["model"], HGRNBitConfig.__dataclass_fields__, source=f"{source} [model]")
    return checked


def _known(values: Iterable[str], known: Iterable[str], *, source: str) -> None:
    known = list(known)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            hint = f"; near it are {', '.join(near)}" if near else f"; there are {', '.join(known)}"
            raise SternaError(f"{source}: there is no key {key!r}{hint}")


def _typed(value: Any, hint: Any, what: str) -> Any:
    """`value` in the type `hint` of a field; numbers without a fraction are taken as floats where those are asked."""
    alternatives = [part for part in get_args(hint) if part is not NoneType]
    if get_origin(hint) is Literal:
        if value not in alternatives:
            raise SternaError(f"{what} must be one of {', '.join(alternatives)}, not {value!r}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list) or len(value) != len(alternatives):
            raise SternaError(f"{what} must be a list of {len(alternatives)} values, not {value!r}")
        return tuple(_typed(item, part, what) for item, part in zip(value, alternatives, strict=True))
    if alternatives:  # X | None; TOML has no None, an absent key means it
        return _typed(value, alternatives[0], what)
    if hint is HGRNBitConfig:
        if not isinstance(value, dict):
            raise SternaError(f"{what} must be a table, not {value!r}")
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise SternaError(f"{what} must be {_WORDS[hint]}, not {value!r}")
    return value


def to_toml(config: TrainConfig) -> str:
    """The text of a file that `read_file` reads back as the same run."""
    return "\n".join(_lines(config.to_dict(), ""))


def _lines(table: Mapping[str, Any], name: str) -> list[str]:
    present = {key: value for key, value in table.items() if value is not None}
    lines = [f"[{name}]"] if name else []
    lines += [f"{key} = {_value(value)}" for key, value in present.items() if not isinstance(value, Mapping)]
    for key, value in present.items():
        if isinstance(value, Mapping):
            lines += ["", *_lines(value, f"{name}.{key}" if name else key)]
    return lines if name else [*lines, ""]


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)  # integers, booleans and strings look alike in both
