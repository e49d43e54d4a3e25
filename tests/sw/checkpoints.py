"""Small random `hgrn_bit` checkpoints in the Hugging Face layout, written without any code of the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

Tensors = dict[str, npt.NDArray[np.float32]]


def make_config(*, hidden: int, layers: int, inner: int | None, vocab: int) -> dict[str, Any]:
    """The keys that the published class writes."""
    return {
        "architectures": ["HGRNBitForCausalLM"],
        "attn_mode": "fused_recurrent",
        "bos_token_id": 0,
        "eos_token_id": 0,
        "conv_size": 4,
        "expand_ratio": 1,
        "hidden_act": "swish",
        "hidden_ratio": 4,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "model_type": "hgrn_bit",
        "num_heads": 1,
        "num_hidden_layers": layers,
        "rms_norm_eps": 1e-06,
        "tie_word_embeddings": False,
        "use_lower_bound": True,
        "use_short_conv": False,
        "vocab_size": vocab,
    }


def make_tensors(*, hidden: int, layers: int, inner: int, vocab: int, seed: int) -> Tensors:
    """Random weights that keep activations near one; names and shapes as published."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}

    def normal(*shape: int, scale: float) -> npt.NDArray[np.float32]:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    def norm(name: str, size: int) -> None:
        tensors[f"{name}.weight"] = 1 + normal(size, scale=0.1)

    def projection(name: str, rows: int, columns: int) -> None:
        tensors[f"{name}.weight"] = normal(rows, columns, scale=columns**-0.5)
        norm(f"{name}.norm", columns)

    tensors["model.embeddings.weight"] = normal(vocab, hidden, scale=0.5)
    tensors["model.lower_bounds"] = normal(layers, hidden, scale=1.0)
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        norm(f"{prefix}.attn_norm", hidden)
        for name in "ifgo":
            projection(f"{prefix}.attn.{name}_proj", hidden, hidden)
        norm(f"{prefix}.attn.g_norm", hidden)
        norm(f"{prefix}.mlp_norm", hidden)
        projection(f"{prefix}.mlp.gate_proj", 2 * inner, hidden)
        projection(f"{prefix}.mlp.down_proj", hidden, inner)
    norm("model.norm", hidden)
    projection("lm_head", vocab, hidden)
    return tensors


def without_reservoir(name: str, reservoir: Mapping[str, Any]) -> bool:
    """Whether a checkpoint with this ``reservoir`` table lacks the tensor ``name``."""
    parts = name.split(".")
    if parts[1] != "layers":
        return False
    layer, kind = int(parts[2]), parts[-2].removesuffix("_proj")
    if layer in reservoir.get("mixer_only", ()) and parts[3] in ("mlp", "mlp_norm"):
        return True
    return layer in reservoir.get("fixed", {}).get(kind, ())


def round_to(values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[np.float32]:
    """``values`` rounded to the nearest "bfloat16", "float16" or "float32", as float32."""
    if dtype == "float16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        return (_bfloat16_bits(values).astype(np.uint32) << 16).view(np.float32)
    return values


def _bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def save_safetensors(path: Path, tensors: Mapping[str, npt.NDArray[Any]], dtype: str) -> None:
    """Write ``tensors`` with the published library, each as ``dtype``; integer arrays keep their own type."""
    arrays = {}
    for name, values in tensors.items():
        if values.dtype.kind != "f":
            arrays[name] = (values.dtype.name, values)
        elif dtype == "bfloat16":
            arrays[name] = (dtype, _bfloat16_bits(values))
        else:
            arrays[name] = (dtype, values.astype(dtype))
    specs = {
        name: safetensors.TensorSpec(
            dtype=kind, shape=list(array.shape), data_ptr=array.ctypes.data, data_len=array.nbytes
        )
        for name, (kind, array) in arrays.items()
    }
    safetensors.serialize_file(specs, path, {"format": "pt"})


def make_tokenizer(vocab: int) -> Tokenizer:
    """A tokenizer whose ids fill the vocabulary: single bytes from 257 pieces on, else the words t0, t1, …"""
    if vocab < 257:
        tokenizer = Tokenizer(models.WordLevel({f"t{index}": index for index in range(vocab)}, unk_token="t0"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return tokenizer
    pieces = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def write_checkpoint(
    path: Path,
    *,
    hidden: int,
    layers: int,
    inner: int,
    vocab: int,
    seed: int,
    dtype: str = "bfloat16",
    shards: int = 1,
    tokenizer: bool = True,
    reservoir: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    replace: Mapping[str, npt.NDArray[Any] | None] | None = None,
) -> Path:
    """Write a checkpoint directory and return its path.

    ``reservoir`` is that table of config.json; the tensors that it makes needless are left out. ``config`` overrides
    keys of config.json (``...`` removes one); ``replace`` overrides tensors (None removes one); more than one shard
    writes an index. The same sizes and seed always give the same weights.
    """
    path.mkdir(parents=True, exist_ok=True)
    table = {"model_type": "hgrn_bit_reservoir", "reservoir": reservoir} if reservoir else {}
    keys = {**make_config(hidden=hidden, layers=layers, inner=inner, vocab=vocab), **table, **(config or {})}
    keys = {key: value for key, value in keys.items() if value is not ...}
    (path / "config.json").write_text(json.dumps(keys, indent=2))
    tensors: dict[str, Any] = make_tensors(hidden=hidden, layers=layers, inner=inner, vocab=vocab, seed=seed)
    tensors = {name: values for name, values in tensors.items() if not without_reservoir(name, reservoir or {})}
    tensors.update(replace or {})
    tensors = {name: tensors[name] for name in sorted(tensors) if tensors[name] is not None}
    if shards == 1:
        save_safetensors(path / "model.safetensors", tensors, dtype)
    else:
        places = {
            name: f"model-{1 + index % shards:05}-of-{shards:05}.safetensors" for index, name in enumerate(tensors)
        }
        for file in set(places.values()):
            save_safetensors(path / file, {name: tensors[name] for name in tensors if places[name] == file}, dtype)
        total = sum(values.nbytes for values in tensors.values())
        index_text = json.dumps({"metadata": {"total_size": total}, "weight_map": places})
        (path / "model.safetensors.index.json").write_text(index_text)
    if tokenizer:
        make_tokenizer(vocab).save(str(path / "tokenizer.json"))
        (path / "tokenizer_config.json").write_text("{}")
    return path
