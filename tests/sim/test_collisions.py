"""Whole tokens on RTL in which reads that meet a write give wrong bits, as block RAMs of ECP5 may."""

import re
import sys
from pathlib import Path

import pytest
from amaranth.back import rtlil

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint

from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.spec.config import preset
from sterna_boards.collisions import ACCELERATOR
from sterna_hw.accelerator import Accelerator
from sterna_sim import build
from sterna_sim.cosim import CoSimulation, Mismatch
from sterna_sim.memory import MemoryModel
from sterna_sim.netlist import colliding_verilog

CONFIG = preset("sim-tiny")
GEOMETRY = {"hidden": 130, "layers": 3, "inner": 259, "vocab": 211}
# A register of each memory's width holds wrong bits in the cycle after a collision, and is made to as well by reset.
WRONG = re.compile(r"<= \{(\d+)\{1'b1\}\};")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("collisions")
    import_checkpoint(write_checkpoint(path / "source", seed=3, **GEOMETRY), path / "model")
    return Model.open(path / "model")


@pytest.fixture(scope="module")
def rtl():
    return rtlil.convert(Accelerator(config=CONFIG), name=build.TOP, emit_src=False)


def simulate(model, text, memory, monkeypatch, tokens=3):
    monkeypatch.setattr(build, "verilog", lambda *_, **__: text)
    with CoSimulation(model, CONFIG, memory=memory) as cosim:
        for token in range(tokens):
            cosim.step(token)


@pytest.mark.parametrize("memory", [MemoryModel(), MemoryModel(stall=0.4, seed=2)], ids=["ideal", "stalls"])
def test_no_integer_of_a_token_depends_on_them(model, rtl, memory, monkeypatch):
    text = colliding_verilog(rtl, {build.TOP: ACCELERATOR})
    assert len(WRONG.findall(text)) >= 2 * len(ACCELERATOR)
    simulate(model, text, memory, monkeypatch)


def test_where_one_matters_it_is_found(model, rtl, monkeypatch):
    """With every read of the lanes' sums wrong, collision or not."""
    text = colliding_verilog(rtl, {build.TOP: ACCELERATOR})
    begin = text.index("module \\sterna.lanes.partial_sums_0 ")
    end = text.index("endmodule", begin)
    always, count = re.subn(r"if \(.* && .* == .*\) begin", "if (1'b1) begin", text[begin:end])
    assert count
    with pytest.raises(Mismatch):
        simulate(model, text[:begin] + always + text[end:], MemoryModel(), monkeypatch, tokens=1)


def test_missing_and_unknown_memories_are_refused(rtl):
    with pytest.raises(SternaError, match="does not take the memories"):
        colliding_verilog(rtl, {build.TOP: {**ACCELERATOR, "lanes.gone": "it was renamed"}})
    fewer = {name: why for name, why in ACCELERATOR.items() if name != "stream.fifo"}
    with pytest.raises(SternaError, match="does not take the memories"):
        colliding_verilog(rtl, {build.TOP: fewer})
