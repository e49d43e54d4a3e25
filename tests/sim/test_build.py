"""Building and caching of simulators; the stand-in is small, so what is compiled here takes seconds."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from sterna.errors import SternaError
from sterna.spec.config import PRESETS
from sterna_sim import build
from sterna_sim.transport import VerilatorTransport


def test_second_build_is_a_look_up(standin_verilog):
    first = build.library(standin_verilog)
    steps = []
    started = time.monotonic()
    assert build.library(standin_verilog, progress=steps.append) == first
    assert time.monotonic() - started < 0.5
    assert steps == []
    assert (first.parent / "build.log").exists()


def test_waves_are_a_build_of_their_own(standin_verilog, config, tmp_path):
    waves = tmp_path / "out.fst"
    with VerilatorTransport(config, verilog=standin_verilog, waves=waves, wave_cycles=range(10, 200)) as transport:
        transport.run(1000)
    assert waves.stat().st_size > 500
    assert waves.read_bytes()[0] == 0  # block type of an FST header
    assert build.library(standin_verilog) != build.library(standin_verilog, waves=True)


def test_verilog_is_cached_by_its_sources(monkeypatch, tmp_path):
    monkeypatch.setenv("STERNA_CACHE", str(tmp_path))
    calls = []
    monkeypatch.setattr(build, "_convert", lambda config: calls.append(config) or f"module {config.name}")
    package = tmp_path / "sources"
    package.mkdir()
    (package / "top.py").write_text("one")
    monkeypatch.setattr(build, "_package", lambda name: package)
    tiny, small = PRESETS["sim-tiny"], PRESETS["sim-small"]
    assert build.verilog(tiny) == build.verilog(tiny) == "module sim-tiny"
    assert calls == [tiny]
    build.verilog(small)
    assert calls == [tiny, small]
    (package / "top.py").write_text("two")
    build.verilog(tiny)
    assert calls == [tiny, small, tiny]


def test_warm_start_imports_no_hardware_tools():
    """A cached simulator starts without Amaranth."""
    code = (
        "import sys, unittest.mock as mock; from sterna_sim import build; from sterna.spec.config import PRESETS\n"
        "from sterna_sim.transport import VerilatorTransport; assert 'amaranth' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cache_place(monkeypatch, tmp_path):
    monkeypatch.setenv("STERNA_CACHE", str(tmp_path))
    assert build.cache_root() == tmp_path
    monkeypatch.delenv("STERNA_CACHE")
    assert build.cache_root() == Path(__file__).resolve().parents[2] / "build"
    monkeypatch.setattr(build, "HERE", tmp_path / "site-packages" / "sterna_sim")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert build.cache_root() == tmp_path / "cache" / "sterna"


def test_missing_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SternaError, match=r"no C\+\+ compiler.*install g\+\+"):
        build.library("module sterna; endmodule")
    monkeypatch.setenv("CXX", "my-compiler")
    with pytest.raises(SternaError, match=r"no C\+\+ compiler \(my-compiler\)"):
        build.library("module sterna; endmodule")


def test_broken_verilog_keeps_the_log(monkeypatch, tmp_path):
    monkeypatch.setenv("STERNA_CACHE", str(tmp_path))
    with pytest.raises(SternaError, match=r"verilator_bin failed with \d+ \(log: .*\.log\)(.|\n)*syntax error"):
        build.library("module sterna; this is no Verilog; endmodule")
    (log,) = (tmp_path / "verilator").glob("*.log")
    assert "syntax error" in log.read_text()
    assert [path.suffix for path in (tmp_path / "verilator").iterdir() if path != log] == [".lock"]


def test_wrong_ports_keep_the_log(monkeypatch, tmp_path):
    monkeypatch.setenv("STERNA_CACHE", str(tmp_path))
    with pytest.raises(SternaError, match=r"(?s)failed with.*log: .*m_axi_rdata"):
        build.library("module sterna(input clk); endmodule")


def test_two_processes_share_one_build(standin_verilog, tmp_path):
    """Both end with the same library; one of them built it."""
    source = tmp_path / "sterna.v"
    source.write_text(standin_verilog)
    code = (
        "import sys; from pathlib import Path; from sterna_sim import build; steps = []\n"
        "print(build.library(Path(sys.argv[1]).read_text(), progress=steps.append), len([s for s in steps if 'compil' in s]))"
    )
    command = [sys.executable, "-c", code, str(source)]
    environment = {"STERNA_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].split() for process in runs]
    assert outputs[0][0] == outputs[1][0]
    assert sorted(output[1] for output in outputs) == ["0", "1"]


def test_configuration_must_fit_the_port(standin_verilog):
    with pytest.raises(SternaError, match="memory port has 16 bytes, sim-tiny has 8"):
        VerilatorTransport("sim-tiny", verilog=standin_verilog)
