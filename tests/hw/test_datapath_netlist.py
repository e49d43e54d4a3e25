"""The lanes as they are placed: their netlist of ECP5 primitives under their own bench, against the same integers."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest
from bench import run_verilog

from sterna.spec.config import preset
from sterna_boards import datapath
from sterna_boards.carry import trim
from sterna_sim.netlist import netlist_verilog

# All ranks of tail blocks that the word allows; so many rows that their sums are in block RAM, and no multiple of those
# in a word.
CONFIG = dataclasses.replace(preset("sim-tiny"), tile_rows=517, max_rows_per_word=8)


@pytest.fixture(scope="module")
def netlist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return datapath.synthesise(CONFIG, tmp_path_factory.mktemp("netlist"))


def test_netlist_gives_the_sums_of_golden(netlist: Path, tmp_path: Path) -> None:
    placed = json.loads(netlist.read_text())
    cells = placed["modules"][datapath.TOP]["cells"].values()
    assert {cell["type"] for cell in cells} <= {"LUT4", "CCU2C", "TRELLIS_FF", "DP16KD", "$scopeinfo"}
    # A carry in that is left open is anything in the device; chains used to begin with a zero, so try the other.
    opened = [cell for cell in cells if cell["type"] == "CCU2C" and cell["connections"]["CIN"] == ["x"]]
    assert len(opened) > 2 * CONFIG.word_bytes - 1  # an adder a table, and the tree
    for cell in opened:
        cell["connections"]["CIN"] = ["1"]
    changed = tmp_path / "netlist.json"
    changed.write_text(json.dumps(placed))
    parameters = {"STERNA_TEST_CONFIG": json.dumps(dataclasses.asdict(CONFIG))}
    run_verilog(netlist_verilog(changed), "cocotb_lanes", parameters=parameters)


def test_trimmed_chains_have_nothing_at_their_ends(netlist: Path) -> None:
    placed = json.loads(netlist.read_text())
    cells = placed["modules"][datapath.TOP]["cells"].values()
    used = Counter(
        bit
        for cell in cells
        for port, bits in cell["connections"].items()
        if cell["port_directions"][port] == "input"
        for bit in bits
    )
    carries = [cell for cell in cells if cell["type"] == "CCU2C"]
    assert carries
    assert all(cell["connections"]["COUT"] == ["x"] or used[cell["connections"]["COUT"][0]] for cell in carries)
    again = copy.deepcopy(placed)
    assert trim(again, datapath.TOP) == 0
    assert again == placed
