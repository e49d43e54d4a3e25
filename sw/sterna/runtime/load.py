"""Opens a stored model on a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sterna.engines.engine import Engine
from sterna.engines.transport import Transport, open_transport, parse_device, transport_options, transports
from sterna.errors import SternaError
from sterna.model.geometry import Geometry
from sterna.model.store import Model
from sterna.progress import Progress, counting
from sterna.runtime.session import Session
from sterna.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sterna.compiler.image import MemoryImage

GOLDEN, CPU, CUDA = "golden", "cpu", "cuda"
DEFAULT_CONFIG = "sim-small"


def devices() -> tuple[str, ...]:
    """Names that :func:`load` takes: the engines of the host and its GPU, then the transports that are installed."""
    return (GOLDEN, CPU, CUDA, *transports())


def require_device(device: str, *more: str) -> None:
    """Check that :func:`load` knows the name in ``device``.

    Raises:
        SternaError: it does not; the message also names ``more`` devices that the caller knows.
    """
    names = devices()
    if device not in names and parse_device(device)[0] not in transports():
        raise SternaError(f"there is no device {device!r}; choose one of {', '.join((*names, *more))}")


def load(path: str | Path, device: str = GOLDEN, **options: Any) -> Session:
    """Open the model in directory ``path`` on a device, once every byte of it has been compared with its checksum.

    Args:
        path: What ``sterna import`` wrote.
        device: "golden" (the NumPy specification), "cpu" (the fast engine), "cuda" (an NVIDIA GPU), "verilator" (the
            simulated accelerator), "serial:/dev/ttyUSB0" or "usb" (a board, docs/link.md) or another installed
            transport. All give the same integers.
        options: ``loading``, which makes progress bars of what is read and loaded. ``threads`` for "cpu"; ``gpu``, the
            index of the GPU, for "cuda". For accelerators ``verify``: read memory back after loading and compare it
            with its checksums, which is done unasked where memory is read in seconds; for simulated ones ``config``,
            a preset's name or a ``HardwareConfig``. The rest goes to the transport; "verilator" takes ``memory``,
            ``waves``, ``timeout``, ``progress`` and more. They may also stand in the device, as in
            "serial:/dev/ttyUSB0?baud=3000000".

    Raises:
        SternaError: there is no such model, device or option, the model does not fit the device, or a tensor of it is
            damaged, in its file or in the device's memory; the sentence names the tensor.
    """
    require_device(device)
    model = Model.open(path)
    loading: Progress | None = options.pop("loading", None)
    model.verify(progress=loading)
    tokenizer = Tokenizer.open(path, bos_id=model.bos_id)
    engine = _engine(model, device, options, loading)
    return Session(engine, tokenizer, bos_id=model.bos_id, eos_id=model.eos_id, path=path)


def _engine(model: Model, device: str, options: dict[str, Any], loading: Progress | None) -> Engine:
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
    return _accelerator(model, device, options, loading)


def _accelerator(model: Model, device: str, options: dict[str, Any], loading: Progress | None) -> Engine:
    from sterna.compiler.image import compile_model
    from sterna.spec.config import preset

    verify: bool | None = options.pop("verify", None)
    config = options.pop("config", None)
    name, _ = parse_device(device)
    if "config" in transport_options(name):
        config = config or DEFAULT_CONFIG
        config = preset(config) if isinstance(config, str) else config
        image = compile_model(model, config, progress=loading)
        return _loaded(open_transport(device, config=config, **options), image, model.geometry, verify, loading)
    if config is not None:
        raise SternaError(f"device {name!r} tells its configuration itself: leave config away")
    transport = open_transport(device, progress=loading, **options)
    try:
        image = compile_model(model, transport.config, progress=loading)
    except BaseException:
        transport.close()
        raise
    return _loaded(transport, image, model.geometry, verify, loading)


def _loaded(
    transport: Transport, image: MemoryImage, geometry: Geometry, verify: bool | None, loading: Progress | None
) -> Engine:
    from sterna.engines.accelerator import AcceleratorEngine

    size = sum(len(contents) for _, contents in image.segments)
    with counting(loading, total=size, label="loading", unit="B") as count:
        engine = AcceleratorEngine(transport, image, geometry, progress=count)
    if transport.fast_memory if verify is None else verify:
        try:
            with counting(loading, total=size, label="verifying", unit="B") as count:
                engine.verify(progress=count)
        except BaseException:
            engine.close()
            raise
    return engine


def _check_options(device: str, options: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in options:
        if name not in known:
            raise SternaError(f"device {device!r} has no option {name!r}; its options: {', '.join(known) or 'none'}")
