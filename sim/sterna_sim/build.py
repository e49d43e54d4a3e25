"""From a configuration to a shared library that simulates it: Amaranth, Verilator, C++, each step cached.

Verilog text is kept by the hash of the gateware's sources and the configuration, libraries by the hash of the text,
the harness, the flags and the tools. A warm start imports no tool and runs only the compiler's ``--version``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sterna.errors import SternaError
from sterna.spec.config import HardwareConfig
from sterna_boards.dram import dram_core
from sterna_boards.recipe import RECIPES, DramCore
from sterna_sim.compile import (
    LIBRARY,
    Design,
    Progress,
    compile_design,
    find_compiler,
    harness_sources,
    link_library,
)
from sterna_sim.compile import identity as compiler_identity
from sterna_sim.memory import ControllerModel, Memory

HERE = Path(__file__).resolve().parent
TOP = "sterna"
CLUSTER = "sterna_cluster"  # a module with an instance for each cluster
DRAM_TOP = "sterna_dram"


def cache_root() -> Path:
    """Where builds are kept: ``STERNA_CACHE``, else ``build`` of the checkout, else the user's cache folder."""
    chosen = os.environ.get("STERNA_CACHE")
    if chosen:
        return Path(chosen).expanduser().resolve()
    checkout = HERE.parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "sim").is_dir():
        return checkout / "build"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sterna"


def verilog(config: HardwareConfig, *, progress: Progress | None = None) -> str:
    """Verilog of the accelerator with ``config``, from the cache when the gateware has not changed.

    Raises:
        SternaError: the gateware's dependencies are not installed.
    """
    return kept_text(
        config.canonical(),
        [("sterna_hw", "**/*.py"), ("sterna", "spec/*.py")],
        lambda: _convert(config),
        note=f"generating Verilog of {config.name}",
        progress=progress,
    )


def controller(memory: Memory, *, progress: Progress | None = None) -> DramCore | None:
    """The DRAM controller that a model of the real one simulates; None for other models.

    Raises:
        SternaError: the generator is not installed.
    """
    if not isinstance(memory, ControllerModel):
        return None
    return dram_core(RECIPES[memory.recipe], cache=cache_root() / "dram", simulated=True, progress=progress)


def library(
    text: str,
    *,
    ports: int = 1,
    dram: DramCore | None = None,
    waves: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Path of the shared library that simulates Verilog ``text`` behind the harness; built on the first call.

    Args:
        text: Verilog whose top module is ``sterna``, with the ports of the accelerator.
        ports: Memory ports: ``m_axi`` if one, else ``m_axi__0``, ``m_axi__1``, … of clusters.
        dram: Controller behind the memory port, in place of the harness's own memories.
        waves: The library can write FST files; it is slower, and built only when asked for.
        progress: Called with a few words at the start of each step of a build.

    Raises:
        SternaError: Verilator or a C++ compiler is missing, or the build failed; the log is kept.
    """
    apart = CLUSTER if f"\nmodule {CLUSTER}(" in text else None
    designs = [Design("sterna", TOP, text, waves, apart=apart), *_dram_designs(dram)]
    names = ["m_axi"] if ports == 1 else [f"m_axi_{port}" for port in range(ports)]
    defines = [*_controller(dram), "-DSTERNA_PORTS=" + " ".join(f"PORT({name})" for name in names)]
    return kept_library("harness.cpp", designs, defines=defines, waves=waves, progress=progress)


def traffic_library(*, beat_bytes: int, dram: DramCore | None = None, progress: Progress | None = None) -> Path:
    """Path of the shared library that measures a memory, the harness's own or ``dram``; see :func:`library`."""
    defines = [*_controller(dram), f"-DSTERNA_BEAT={beat_bytes}"]
    return kept_library("traffic.cpp", _dram_designs(dram), defines=defines, progress=progress)


def _controller(dram: DramCore | None) -> list[str]:
    return [f"-DSTERNA_CONTROLLER={dram is not None:d}"]


def _dram_designs(dram: DramCore | None) -> list[Design]:
    """The controller in the same component as on a board."""
    if dram is None:
        return []
    wrapper = kept_text(
        repr((dram.address_width, dram.data_bytes, dram.row_bits, dram.bank_bits, dram.phases)),
        [("sterna_hw", "dram.py"), ("sterna_hw", "axi.py")],
        lambda: _convert_dram(dram),
        note="generating Verilog around the DRAM controller",
    )
    return [Design("dram", DRAM_TOP, wrapper + dram.verilog)]


def kept_text(
    key: str,
    sources: list[tuple[str, str]],
    make: Callable[[], str],
    *,
    note: str,
    progress: Progress | None = None,
) -> str:
    """Text that depends on ``key``, on files (package and pattern) and on Amaranth."""
    digest = hashlib.sha256(key.encode())
    digest.update(_version("amaranth").encode())
    for package, pattern in sources:
        folder = _package(package)
        for path in sorted(folder.glob(pattern)):
            digest.update(f"{package}/{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    folder = cache_root() / "verilator" / "rtl"
    cached = folder / f"{digest.hexdigest()[:20]}.v"
    if not cached.exists():
        _reporter(progress)(note)
        text = make()
        folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(cached, text)
    return cached.read_text()


def kept_library(
    harness: str,
    designs: list[Design],
    *,
    defines: Sequence[str],
    waves: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Path of a harness's library; each of its designs is compiled once for all harnesses and memories."""
    compiler, report = find_compiler(), _reporter(progress)
    tools = [_version("verilator"), compiler_identity(compiler)]
    sources = [[path.name, path.read_text()] for path in harness_sources(harness)]
    keys = [[*design.key(), *tools] for design in designs]

    def compiled(design: Design, key: object) -> Path:
        return _once(key, lambda folder: compile_design(folder, design, compiler=compiler, progress=report), report)

    def link(target: Path) -> None:
        folders = [compiled(design, key) for design, key in zip(designs, keys, strict=True)]
        link_library(target, harness, folders, defines=defines, waves=waves, compiler=compiler, progress=report)

    return _once([keys, sources, defines, waves, tools], link, report) / LIBRARY


def _once(key: object, make: Callable[[Path], None], report: Progress) -> Path:
    """The folder that ``make`` made for ``key``, now or earlier, here or in another process."""
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:20]
    target = cache_root() / "verilator" / digest
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_suffix(".lock"), report):
            if not target.exists():
                make(target)
    return target


def _convert(config: HardwareConfig) -> str:
    try:
        from amaranth.back import verilog as backend

        from sterna_hw.accelerator import Accelerator

        if config.clusters > 1:
            from sterna_hw.clusters import clusters_verilog

            return clusters_verilog(config, top=TOP, cluster=CLUSTER)
    except ImportError as error:
        raise _needs_gateware(error) from error
    return str(backend.convert(Accelerator(config=config), name=TOP, strip_internal_attrs=True))


def _convert_dram(dram: DramCore) -> str:
    try:
        from amaranth.back import verilog as backend

        from sterna_hw.dram import Dfi, Dram
    except ImportError as error:
        raise _needs_gateware(error) from error
    phase = Dfi(row_bits=dram.row_bits, bank_bits=dram.bank_bits, data_bits=8 * dram.data_bytes // dram.phases)
    component = Dram(
        core_address_width=dram.address_width,
        address_width=32,
        data_bytes=dram.data_bytes,
        dfi=(phase, dram.phases),
    )
    return str(backend.convert(component, name=DRAM_TOP, strip_internal_attrs=True))


def _needs_gateware(error: ImportError) -> SternaError:
    return SternaError(f"the simulator needs the gateware and its tools ({error}): pip install 'sterna[hw]'")


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise SternaError(f"the package {name} is not installed: pip install 'sterna[hw]'")
    return Path(next(iter(spec.submodule_search_locations)))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        raise SternaError(f"the simulator needs {package}: pip install 'sterna[hw]'") from None


@contextlib.contextmanager
def _locked(path: Path, report: Progress) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting for another process to build the simulator")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_atomically(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent, text=True)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(name).replace(path)


def _reporter(progress: Progress | None) -> Progress:
    return progress if progress else lambda words: None
