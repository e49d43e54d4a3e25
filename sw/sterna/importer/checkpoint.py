"""Hugging Face checkpoint directories: which tensors there are, in which file, and their bits when asked for."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sterna.errors import SternaError
from sterna.model.dtypes import CONTAINERS, SHORT_NAMES
from sterna.model.manifest import read_json
from sterna.model.tensorfile import TensorFile, TensorSpec

CONFIG_FILE = "config.json"
SAFETENSORS_FILE = "model.safetensors"
PICKLE_FILE = "pytorch_model.bin"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model")  # by preference
TOKENIZER_EXTRAS = ("tokenizer_config.json", "special_tokens_map.json")

PICKLE_RISK = (
    "a pickled file is a program that runs when it is read; torch's weights_only loader allows only tensors, but take "
    "files only from people you trust"
)


@dataclass(frozen=True)
class SourceTensor:
    """A tensor of the checkpoint; ``read()`` gives its bits (BF16 as uint16), from disk when possible."""

    name: str
    dtype: str  # safetensors name of the type: "BF16", "F16", "F32" or one that cannot be imported
    shape: tuple[int, ...]
    file: str
    read: Callable[[], npt.NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor, 0 if its type cannot be imported."""
        return TensorSpec(self.dtype, self.shape).nbytes if self.dtype in CONTAINERS else 0


def read_config(source: Path) -> dict[str, Any]:
    """The parsed ``config.json`` of the checkpoint in ``source``.

    Raises:
        SternaError: ``source`` is no directory, or the file is missing or no JSON object.
    """
    if not source.exists():
        raise SternaError(f"there is no checkpoint directory {source}")
    if not source.is_dir():
        raise SternaError(f"{source} is not a directory; give the folder that holds {CONFIG_FILE} and the weights")
    return read_json(source / CONFIG_FILE, f"{source.name} is no checkpoint")


def open_tensors(source: Path, *, allow_pickle: bool = False) -> dict[str, SourceTensor]:
    """Every tensor of the checkpoint by name; nothing is read but headers (pickles are mapped by torch).

    Looked for in this order: model.safetensors, its shards, pytorch_model.bin, its shards.

    Raises:
        SternaError: no weights, a shard or a tensor that the index names is missing, a file is corrupt, or only
            pickled weights are there and ``allow_pickle`` is false.
    """
    for name, reader in ((SAFETENSORS_FILE, _safetensors), (PICKLE_FILE, _pickled)):
        index = source / f"{name}.index.json"
        single = (source / name).exists()
        if not single and not index.exists():
            continue
        if reader is _pickled and not allow_pickle:
            raise SternaError(
                f"{source.name} has only pickled weights ({name}), which are refused: {PICKLE_RISK}; "
                "convert them to safetensors, or import with --allow-pickle"
            )
        return reader(source / name) if single else _sharded(index, reader)
    raise SternaError(f"no weights in {source}: neither {SAFETENSORS_FILE} nor {SAFETENSORS_FILE}.index.json is there")


def tokenizer_files(source: Path) -> tuple[str | None, tuple[str, ...]]:
    """(name of the tokenizer or None, names of all files to copy)."""
    found = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not found:
        return None, ()
    extras = [name for name in TOKENIZER_EXTRAS if (source / name).is_file()]
    if found[0].endswith(".json"):
        read_json(source / found[0])  # refuses a damaged one
    return found[0], (*found, *extras)


def _safetensors(path: Path) -> dict[str, SourceTensor]:
    specs = TensorFile(path).specs

    def reader(name: str) -> Callable[[], npt.NDArray[Any]]:
        # Each with a mapping of its own, whose pages leave memory when the tensor is done with.
        return lambda: TensorFile(path).array(name)

    return {name: SourceTensor(name, spec.dtype, spec.shape, path.name, reader(name)) for name, spec in specs.items()}


def _pickled(path: Path) -> dict[str, SourceTensor]:
    try:
        import torch
    except ImportError:
        raise SternaError("pickled weights need torch to read; install it with 'pip install sterna[train]'") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except FileNotFoundError:
        raise SternaError(f"{path.name} is missing in {path.parent}") from None
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SternaError(f"{path.name} is corrupt or holds more than tensors ({first}); fetch it again") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SternaError(f"{path.name} is not a dictionary of tensors; save the model's state_dict")

    def reader(tensor: torch.Tensor) -> Callable[[], npt.NDArray[Any]]:
        def read() -> npt.NDArray[Any]:
            plain = tensor.detach().contiguous()
            return plain.view(torch.uint16).numpy() if tensor.dtype == torch.bfloat16 else plain.numpy()

        return read

    return {
        name: SourceTensor(name, _short_name(str(tensor.dtype)), tuple(tensor.shape), path.name, reader(tensor))
        for name, tensor in state.items()
    }


def _short_name(torch_dtype: str) -> str:
    name = torch_dtype.removeprefix("torch.")
    return SHORT_NAMES.get(name, name)


def _is_zip(path: Path) -> bool:
    """Whether torch can map the file: the format since 1.6 is a zip archive."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\x03\x04"
    except OSError:
        return False


def _sharded(index: Path, reader: Callable[[Path], dict[str, SourceTensor]]) -> dict[str, SourceTensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise SternaError(f"{index.name}: the key weight_map is missing or no map from tensors to files")
    shards = {}
    for file in _unique(places.values()):
        if Path(file).name != file:
            raise SternaError(f"{index.name}: {file!r} is no file name; shards must lie beside the index")
        if not (index.parent / file).exists():
            raise SternaError(f"shard {file} is missing in {index.parent}; {index.name} names it")
        shards[file] = reader(index.parent / file)
    tensors = {}
    for name, file in places.items():
        if name not in shards[file]:
            raise SternaError(f"tensor {name} is missing in {file}, where {index.name} says it is")
        tensors[name] = shards[file][name]
    return tensors


def _unique(files: Iterable[str]) -> list[str]:
    return sorted(set(files))
