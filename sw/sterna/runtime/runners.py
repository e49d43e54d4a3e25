"""What runs the chunks of an evaluation: golden model, any session, or the float32 reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from sterna.engines.engine import Resumable
from sterna.errors import SternaError
from sterna.model.layout import LAYER_PROJECTIONS
from sterna.model.store import Model, Projection
from sterna.runtime.load import GOLDEN, load, require_device
from sterna.spec.numerics import LOGIT_FRAC

if TYPE_CHECKING:
    import torch

REFERENCE = "reference"  # the float32 model in PyTorch; a device of evaluations only

_BATCH = 64  # chunks that run side by side where a device can

FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.int64]
StateArray = npt.NDArray[Any]  # [layers, sequences, hidden], in the device's own numbers


class Forward(Protocol):
    """Runs sequences side by side, part by part."""

    batch: int  # sequences at most
    vocab: int

    def reset(self, sequences: int) -> None:
        """Start so many fresh sequences."""

    def run(self, ids: IdArray) -> FloatArray:
        """Logits float32 [sequences, n, vocab] of the next ids [sequences, n]."""
        ...


class Runner(Forward, Protocol):
    """Also a context manager that lets go of its device, and a state that can be kept."""

    @property
    def state(self) -> StateArray | None:
        """Recurrent state of the running sequences, a copy; None where a device of batch 1 does not show it."""
        ...

    def resume(self, state: StateArray) -> None:
        """Start as many sequences as ``state`` has, each where it was read."""

    def __enter__(self) -> Runner: ...
    def __exit__(self, *error: object) -> None: ...


class _GoldenRunner:
    batch = _BATCH

    def __init__(self, path: str | Path) -> None:
        from sterna.golden.model import GoldenModel

        model = Model.open(path)
        model.verify()
        self._model = GoldenModel(model)
        self.vocab = self._model.model.geometry.vocab

    def reset(self, sequences: int) -> None:
        self._model.batch = sequences
        self._model.reset()

    def run(self, ids: IdArray) -> FloatArray:
        logits = np.empty((*ids.shape, self.vocab), np.float32)
        for position in range(ids.shape[1]):
            logits[:, position] = self._model.step(ids[:, position])
        return np.ldexp(logits, -LOGIT_FRAC)

    @property
    def state(self) -> StateArray:
        return self._model.state.copy()

    def resume(self, state: StateArray) -> None:
        self.reset(state.shape[1])
        self._model.state = state.copy()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class _SessionRunner:
    batch = 1

    def __init__(self, path: str | Path, device: str, options: dict[str, Any]) -> None:
        self._session = load(path, device, **options)
        self.vocab = self._session.geometry.vocab

    def reset(self, sequences: int) -> None:
        self._session.reset()

    def run(self, ids: IdArray) -> FloatArray:
        return self._session.forward(ids[0])[None]

    @property
    def state(self) -> StateArray | None:
        engine = self._session.engine
        return engine.state[:, None] if isinstance(engine, Resumable) else None

    def resume(self, state: StateArray) -> None:
        engine = self._session.engine
        assert isinstance(engine, Resumable)  # state was read
        self._session.reset()
        engine.state = state[:, 0]

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()


class _ReferenceRunner:
    batch = _BATCH

    def __init__(self, path: str | Path) -> None:
        self._model = load_float(path)
        self.vocab = int(self._model.config.vocab_size)
        self.reset(1)

    def reset(self, sequences: int) -> None:
        self._state: torch.Tensor = self._model.initial_state(sequences)

    def run(self, ids: IdArray) -> FloatArray:
        import torch

        with torch.inference_mode():
            logits, self._state = self._model(torch.from_numpy(np.ascontiguousarray(ids)), self._state)
        result: FloatArray = logits.numpy()
        return result

    @property
    def state(self) -> StateArray:
        return self._state.numpy().copy()

    def resume(self, state: StateArray) -> None:
        import torch

        self._state = torch.from_numpy(np.array(state))

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def open_runner(path: str | Path, device: str, options: dict[str, Any]) -> Runner:
    """The runner of a device: one of :func:`sterna.load` with its ``options``, or "reference".

    Raises:
        SternaError: there is no such device or model.
    """
    if device == REFERENCE:
        if options:
            raise SternaError(f"device {REFERENCE!r} has no option {min(options)!r}; its options: none")
        return _ReferenceRunner(path)
    if device == GOLDEN and not options:
        return _GoldenRunner(path)
    require_device(device, REFERENCE)
    return _SessionRunner(path, device, options)


def load_float(path: str | Path) -> Any:
    """The float32 PyTorch model of a checkpoint directory or, with the very trits and scales, of a stored model.

    Raises:
        SternaError: PyTorch is not installed, or ``path`` is neither.
    """
    try:
        import torch

        from sterna.reference import HGRNBitConfig, HGRNBitForCausalLM, load_reference
    except ImportError as error:
        raise SternaError(f"the float32 reference needs PyTorch ({error}): pip install 'sterna[train]'") from error
    from sterna.model.manifest import MANIFEST_FILE

    path = Path(path)
    if not (path / MANIFEST_FILE).is_file() and (path / "config.json").is_file():
        return load_reference(path)
    stored = Model.open(path)
    stored.verify()
    sizes = stored.geometry
    config = HGRNBitConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        intermediate_size=sizes.inner,
        rms_norm_eps=sizes.rms_eps,
        reservoir=sizes.reservoir,
    )

    def tensor(values: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.array(values, np.float32))

    # Floors are cumulative sums of a softmax; the logarithms of their differences are its arguments.
    floors = np.stack([layer.lower_bound for layer in stored.layers]).astype(np.float64) / (1 << 16)
    shares = np.diff(floors, axis=0, prepend=0.0)
    shares[0] = 1 - floors[-1]
    with np.errstate(divide="ignore"):
        bounds = np.log(np.maximum(shares, 0))
    weights = {
        "model.embeddings.weight": tensor(stored.embedding.floats(np.arange(sizes.vocab))),
        "model.lower_bounds": tensor(bounds),
        "model.norm.weight": tensor(stored.norm),
        "lm_head.norm.weight": tensor(stored.head.norm),
    }
    projections: dict[str, Projection] = {"lm_head": stored.head}
    for index, layer in enumerate(stored.layers):
        prefix = f"model.layers.{index}"
        weights[f"{prefix}.attn_norm.weight"] = tensor(layer.attn_norm)
        weights[f"{prefix}.attn.g_norm.weight"] = tensor(layer.g_norm)
        if layer.glu is not None:
            weights[f"{prefix}.mlp_norm.weight"] = tensor(layer.glu.mlp_norm)
        for kind, projection in layer.projections.items():
            name = f"{prefix}.{LAYER_PROJECTIONS[kind][0]}"
            weights[f"{name}.norm.weight"] = tensor(projection.norm)
            projections[name] = projection
    with torch.device("meta"):  # the weights that freezing replaces take no memory
        model = HGRNBitForCausalLM(config)
    model.load_state_dict(weights, assign=True, strict=False)
    model.freeze({name: (torch.from_numpy(p.trits()), p.beta) for name, p in projections.items()})
    return model.eval().requires_grad_(False)
