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
    assert build.library(standin_verilog) != build.library(standin_verilog, waves=True)
    names = hierarchy(waves.read_bytes())
    assert b"m_axi_rvalid" in names and b"s_axil_awaddr" in names


def hierarchy(data: bytes) -> bytes:
    """Names in an FST file: blocks are a type byte, a length that counts itself, and contents; 6 is names under LZ4."""
    blocks, at = {}, 0
    while at < len(data):
        length = int.from_bytes(data[at + 1 : at + 9], "big")
        blocks[data[at]] = data[at + 9 : at + 1 + length]
        at += 1 + length
    assert at == len(data) and {0, 6} <= set(blocks)
    size, packed = int.from_bytes(blocks[6][:8], "big"), blocks[6][8:]
    names = unpack_lz4(packed)
    assert len(names) == size > len(packed)
    return names


def unpack_lz4(packed: bytes) -> bytes:
    """The contents of an LZ4 block."""
    out, at = bytearray(), 0

    def extended(count: int) -> int:
        nonlocal at
        more = 255 if count == 15 else 0
        while more == 255:
            more = packed[at]
            at += 1
            count += more
        return count

    while True:
        token = packed[at]
        at += 1
        literals = extended(token >> 4)
        out += packed[at : at + literals]
        at += literals
        if at == len(packed):
            return bytes(out)
        offset = int.from_bytes(packed[at : at + 2], "little")
        at += 2
        for _ in range(extended(token & 15) + 4):
            out.append(out[-offset])


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
    code = "import sys, sterna_sim.transport, sterna.engines.accelerator; assert 'amaranth' not in sys.modules"
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
    assert {path.suffix for path in (tmp_path / "verilator").iterdir() if path != log} == {".lock"}


def test_failing_compiler_keeps_the_log(monkeypatch, tmp_path, standin_verilog):
    monkeypatch.setenv("STERNA_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(SternaError, match=r"false failed with 1 \(log: "):
        build.library(standin_verilog)


FAKE_COMPILER = """#!/bin/sh
for word; do [ "$previous" = -o ] && { sleep 0.05; echo object > "$word"; }; previous=$word; done
"""


def test_two_processes_share_one_build(standin_verilog, tmp_path):
    """Both end with the same library; one of them built it."""
    compiler = tmp_path / "fake-c++"
    compiler.write_text(FAKE_COMPILER)
    compiler.chmod(0o755)
    source = tmp_path / "sterna.v"
    source.write_text(standin_verilog)
    code = (
        "import sys; from pathlib import Path; from sterna_sim import build; steps = []\n"
        "print(build.library(Path(sys.argv[1]).read_text(), progress=steps.append))\n"
        "print(sum('compiling' in step for step in steps))"
    )
    command = [sys.executable, "-c", code, str(source)]
    environment = {"STERNA_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin", "CXX": str(compiler)}
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate()[0].split() for process in runs]
    assert outputs[0][0] == outputs[1][0]
    assert sorted(output[1] for output in outputs) == ["0", "1"]


def test_configuration_must_fit_the_port(standin_verilog):
    with pytest.raises(SternaError, match="memory port has 16 bytes, sim-tiny has 8"):
        VerilatorTransport("sim-tiny", verilog=standin_verilog)
