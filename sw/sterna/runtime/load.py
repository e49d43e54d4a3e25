"""Opens a stored model on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sterna.engines.engine import Engine
from sterna.errors import SternaError
from sterna.model.store import Model
from sterna.runtime.session import Session
from sterna.runtime.tokenizer import Tokenizer

GOLDEN, CPU, CUDA = "golden", "cpu", "cuda"
DEFAULT_CONFIG = "sim-small"


def devices() -> tuple[str, ...]:
    """Names that :func:`load` takes: the engines of the host and its GPU, then the transports that are installed."""
    from sterna.engines.transport import transports

    return (GOLDEN, CPU, CUDA, *transports())


def load(path: str | Path, device: str = GOLDEN, **options: Any) -> Session:
    """Open the model in directory ``path`` on a device.

    Args:
        path: What ``sterna import`` wrote.
        device: "golden" (the NumPy specification), "cpu" (the fast engine), "cuda" (an NVIDIA GPU), "verilator" (the
            simulated accelerator) or another installed transport. All give the same integers.
        options: ``threads`` for "cpu"; ``gpu``, the index of the GPU, for "cuda". For accelerators ``config``, a
            preset's name or a ``HardwareConfig``, the rest goes to the transport; "verilator" takes ``memory``,
            ``waves``, ``timeout``, ``progress`` and more.

    Raises:
        SternaError: there is no such model, device or option, or the model does not fit the device.
    """
    names = devices()
    if device not in names:
        raise SternaError(f"there is no device {device!r}; choose one of {', '.join(names)}")
    model = Model.open(path)
    tokenizer = Tokenizer.open(path, bos_id=model.bos_id)
    engine = _engine(model, device, options)
    return Session(engine, tokenizer, bos_id=model.bos_id, eos_id=model.eos_id, path=path)


def _engine(model: Model, device: str, options: dict[str, Any]) -> Engine:
    if device == GOLDEN:
        _check_options(device, options, ())
        from sterna.engines.golden import GoldenEngine

        return GoldenEngine(model)
    if device == CPU:
        _check_options(device, options, ("threads",))
        from sterna.engines.cpu import CpuEngine

        return CpuEngine(model, **options)
    if device == CUDA:
        _check_options(device, options, ("gpu",))
        from sterna.engines.cuda.engine import CudaEngine

        return CudaEngine(model, **options)
    return _accelerator(model, device, options)


def _accelerator(model: Model, device: str, options: dict[str, Any]) -> Engine:
    from sterna.compiler.image import compile_model
    from sterna.engines.accelerator import AcceleratorEngine
    from sterna.engines.transport import open_transport
    from sterna.spec.config import preset

    config = options.pop("config", None) or DEFAULT_CONFIG
    if isinstance(config, str):
        config = preset(config)
    image = compile_model(model, config)
    transport = open_transport(device, config=config, **options)
    try:
        return AcceleratorEngine(transport, image, model.geometry)
    except BaseException:
        transport.close()
        raise


def _check_options(device: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            raise SternaError(f"device {device!r} has no option {name!r}; its options: {', '.join(known) or 'none'}")
