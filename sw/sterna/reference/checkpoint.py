"""Hugging Face checkpoint directories: `config.json` and safetensors, in one file or in shards with an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sterna.errors import SternaError
from sterna.importer.checkpoint import SAFETENSORS_FILE, SourceTensor, open_tensors
from sterna.model.dtypes import FLOATS
from sterna.reference.config import HGRNBitConfig
from sterna.reference.modeling import HGRNBitForCausalLM

__all__ = ["load_reference", "load_trainable", "read_weights", "save_checkpoint"]


def read_weights(directory: str | Path, *, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Read all tensors of a checkpoint directory, each converted to `dtype` as it is read."""
    return {name: _tensor(source).to(dtype) for name, source in open_tensors(Path(directory)).items()}


def _tensor(source: SourceTensor) -> Tensor:
    if source.dtype not in FLOATS:
        raise SternaError(f"tensor {source.name} in {source.file} is {source.dtype}; save it as one of {FLOATS}")
    tensor = torch.from_numpy(np.array(source.read()))  # a copy: the file is mapped read-only
    return tensor.view(torch.bfloat16) if source.dtype == "BF16" else tensor


def load_trainable(directory: str | Path, *, dtype: torch.dtype = torch.float32) -> HGRNBitForCausalLM:
    """Load a checkpoint with its float weights in place (trainable mode), in `dtype`."""
    directory = Path(directory)
    config = HGRNBitConfig.from_file(directory)
    weights = read_weights(directory, dtype=dtype)
    with torch.device("meta"):
        model = HGRNBitForCausalLM(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if missing := sorted(set(expected) - set(weights)):
        raise SternaError(f"{directory}: {len(missing)} tensors are missing, the first is {missing[0]}")
    if extra := sorted(set(weights) - set(expected)):
        raise SternaError(f"{directory}: {len(extra)} tensors do not belong to the model, the first is {extra[0]}")
    for name, shape in expected.items():
        if tuple(weights[name].shape) != shape:
            raise SternaError(f"{directory}: {name} is {list(weights[name].shape)}, the config asks for {list(shape)}")
    model.load_state_dict(weights, assign=True)
    model.generate_fixed()
    return model


def load_reference(path: str | Path, *, dtype: torch.dtype = torch.float32) -> HGRNBitForCausalLM:
    """Load a checkpoint directory for inference: weights upcast to `dtype`, ternarised once, frozen."""
    return load_trainable(path, dtype=dtype).freeze().eval().requires_grad_(False)


def save_checkpoint(
    model: HGRNBitForCausalLM,
    directory: str | Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_bytes: int | None = None,
) -> None:
    """Write `config.json`, `generation_config.json` and the weights of a trainable model in `dtype`.

    With `max_shard_bytes` the weights are split into numbered shards with an index, none larger unless one tensor is.
    """
    if any(layer.frozen and not layer.fixed for layer in model.bit_linears().values()):
        raise SternaError("a frozen model has no float weights to save; save the trainable one")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict() | {"dtype": str(dtype).removeprefix("torch.")}
    _write_json(directory / "config.json", config)
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id")}
    _write_json(directory / "generation_config.json", {"_from_model_config": True, **ids, "use_cache": True})
    weights = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in weights.items():
        if max_shard_bytes is not None and shards[-1] and used + tensor.nbytes > max_shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += tensor.nbytes
    # An earlier save of the other form must not be taken for this one.
    single, index = directory / SAFETENSORS_FILE, directory / f"{SAFETENSORS_FILE}.index.json"
    if len(shards) == 1:
        _write_tensors(single, weights)
        index.unlink(missing_ok=True)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_tensors(directory / file, shard)
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for tensor in weights.values())
    _write_json(index, {"metadata": {"total_size": total}, "weight_map": weight_map})
    single.unlink(missing_ok=True)


def _write_tensors(path: Path, weights: dict[str, Tensor]) -> None:
    path.touch()  # the library makes files that only their owner can read: keep what the umask gives
    mode = path.stat().st_mode
    save_file(weights, str(path), metadata={"format": "pt"})
    path.chmod(mode)


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
