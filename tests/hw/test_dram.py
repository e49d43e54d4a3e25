"""The generated DRAM controller and the component around it: what the generator must not get wrong again."""

from __future__ import annotations

import dataclasses
import gc
import re
import subprocess
import sys
from collections import Counter

import pytest

pytest.importorskip("litedram", reason="the controller is generated: pip install 'sterna[bitstream]'")

from amaranth.back import verilog
from amaranth.hdl import IOPort

from sterna.errors import SternaError
from sterna_boards import dram as boards
from sterna_boards.dram import dram_core
from sterna_boards.recipe import RECIPES
from sterna_hw.dram import Dfi, Dram

RECIPE = RECIPES["ecpix5-ddr3"]
PADS = ("a", "ba", "ras_n", "cas_n", "we_n", "cke", "odt", "dm", "clk_p", "dq", "dqs_p")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("dram")


@pytest.fixture(scope="module")
def board(cache):
    return dram_core(RECIPE, cache=cache)


@pytest.fixture(scope="module")
def simulated(cache):
    return dram_core(RECIPE, cache=cache, simulated=True)


def ports(text):
    """Direction and width in bits of the ports of the generated module."""
    found = re.findall(r"^    (input|output|inout) +wire +(?:\[ *(\d+):0\])? *(\w+)", text, re.MULTILINE)
    return {name: (direction, int(high or 0) + 1) for direction, high, name in found}


def test_the_same_recipe_gives_the_same_text(board, tmp_path):
    assert dram_core(RECIPE, cache=tmp_path) == board


def test_a_kept_core_needs_no_generator(cache, board):
    code = (
        "import sys; from pathlib import Path\n"
        "from sterna_boards.dram import dram_core; from sterna_boards.recipe import RECIPES\n"
        "dram_core(RECIPES['ecpix5-ddr3'], cache=Path(sys.argv[1]))\n"
        "assert not {'litedram', 'litex', 'migen', 'amaranth'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(cache)], check=True)


def test_recipe_and_versions_decide_what_is_kept(cache, board, monkeypatch):
    notes = []
    dram_core(RECIPE, cache=cache, progress=notes.append)
    assert not notes
    slower = dataclasses.replace(RECIPE, clock=50e6)
    assert dram_core(slower, cache=cache, progress=notes.append).timing["tREFI"] == 391
    monkeypatch.setattr(boards, "_version", lambda package: "another")
    dram_core(RECIPE, cache=cache, progress=notes.append)
    assert notes == ["generating the DRAM controller ecpix5-ddr3"] * 2


def test_an_unknown_memory_is_refused(tmp_path):
    with pytest.raises(SternaError, match="LiteDRAM has no memory 'MT0'"):
        dram_core(dataclasses.replace(RECIPE, module="MT0"), cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_generator_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(boards, "GENERATORS", ("no-such-package",))
    with pytest.raises(SternaError, match=r"needs no-such-package: pip install 'sterna\[bitstream\]'"):
        dram_core(RECIPE, cache=tmp_path)


def test_data_pins_go_both_ways(board):
    found = ports(board.verilog)
    assert found["ddram_dq"] == ("inout", 16)
    assert found["ddram_dqs_p"] == ("inout", 2)
    assert {direction for name, (direction, _) in found.items() if name in ("ddram_a", "ddram_clk_p")} == {"output"}


@pytest.mark.parametrize("which", ["board", "simulated"])
def test_nothing_is_driven_twice(which, request):
    text = request.getfixturevalue(which).verilog
    blocks = re.split(r"^(?=always |assign )", text, flags=re.MULTILINE)
    drivers = Counter()
    for block in blocks[1:]:
        drivers.update(set(re.findall(r"^(?:assign)?\s+(\w+)(?:\[[\d:]+\])? <?= ", block, re.MULTILINE)))
    assert drivers["user_port_memory_arready"] == 1 and len(drivers) > 500
    assert [name for name, count in drivers.items() if count > 1] == []


def test_the_simulated_controller_is_the_boards(board, simulated):
    for field in ("timing", "phy", "init_sequence", "phases", "address_width", "data_bytes"):
        assert getattr(simulated, field) == getattr(board, field)
    parts = r"^.*\b(?:litedramcore_)?(?:bankmachine|multiplexer|refresher|sequencer|choose_|timer|postponer)\w*.*$"
    lines = [
        Counter(re.sub(r"\s+|litedramcore_", "", line) for line in re.findall(parts, core.verilog, re.MULTILINE))
        for core in (board, simulated)
    ]
    assert lines[0].total() > 1000
    assert lines[0] == lines[1]


def test_the_component_has_the_ports_of_the_core(board, simulated):
    pins = {f"ddram_{name}": IOPort(ports(board.verilog)[f"ddram_{name}"][1], name=name) for name in PADS}
    phase = Dfi(row_bits=simulated.row_bits, bank_bits=simulated.bank_bits, data_bits=64)
    for core, options in ((board, {"pins": pins}), (simulated, {"dfi": (phase, 2)})):
        component = Dram(core_address_width=core.address_width, address_width=32, data_bytes=core.data_bytes, **options)
        text = verilog.convert(component, name="dram", ports=[*pins.values()] if core is board else None)
        connected = set(re.findall(r"^    \.(\w+)\(", text[text.index("litedram core (") :], re.MULTILINE))
        declared = ports(core.verilog)
        assert connected <= declared.keys()
        left = {name for name in declared.keys() - connected if not name.startswith("ddram_")}
        assert left <= {
            *("user_port_memory_bid", "user_port_memory_rid", "wb_ctrl_err"),
            *(f"dfi{phase}_{name}" for phase in (0, 1) for name in ("cke", "odt", "reset_n", "act_n")),
        }


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_the_bus_must_reach_all_of_the_memory():
    with pytest.raises(ValueError, match="address_width must be at least the core's 29, not 28") as caught:
        Dram(core_address_width=29, address_width=28, data_bytes=16)
    del caught
    gc.collect()  # the component that was not made complains when it goes
