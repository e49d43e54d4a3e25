"""The transport contract, and how a transport is found by name."""

from __future__ import annotations

import sys
from pathlib import Path

import conformance
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from boards import Faults

from sterna.emulator.board import SoftwareBoard
from sterna.emulator.pipes import MemoryPipe, PtyBoard
from sterna.emulator.transport import EmulatorTransport
from sterna.engines.transport import open_transport, transports
from sterna.errors import SternaError
from sterna.link.serial import SerialTransport
from sterna.link.transport import LinkTransport
from sterna.spec.config import PRESETS
from sterna_sim.memory import MemoryModel
from sterna_sim.transport import VerilatorTransport

KINDS = ("stand-in", "stand-in, stalls", "accelerator", "emulator", "clusters", "link", "serial port", "bad link")


@pytest.fixture(params=KINDS)
def factory(request, open_standin):
    if request.param == "serial port":
        plugged = request.getfixturevalue("port")
        return lambda: SerialTransport(plugged, baud=3_000_000)
    if "link" in request.param:
        board = SoftwareBoard()
        faults = dict.fromkeys(range(5, 10**7, 29_999), "drop") if request.param == "bad link" else {}
        to_board = Faults(faults)
        return lambda: LinkTransport(MemoryPipe(board, to_board=to_board))
    if request.param == "stand-in":
        return open_standin
    if request.param == "stand-in, stalls":
        return lambda: open_standin(memory=MemoryModel(stall=0.5, seed=3))
    if request.param == "emulator":
        return lambda: EmulatorTransport(PRESETS["sim-tiny"])
    if request.param == "clusters":
        return lambda: EmulatorTransport(PRESETS["sim-tiny-c4"])
    return lambda: VerilatorTransport(PRESETS["sim-tiny"])


@pytest.fixture
def port():
    """Of a board in software behind a pseudo-terminal."""
    pytest.importorskip("serial", reason="needs pip install 'sterna[board]'")
    with PtyBoard(SoftwareBoard()) as plugged:
        yield plugged.port


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, factory):
    check(factory, conformance.SCRATCH)


def test_entry_point(standin_verilog):
    assert "verilator" in transports()
    with open_transport("verilator", config="sim-small", verilog=standin_verilog) as transport:
        assert isinstance(transport, VerilatorTransport)
        assert transport.config is PRESETS["sim-small"]


def test_unknown_transport():
    with pytest.raises(SternaError, match=r"no device 'tin-can'.*verilator"):
        open_transport("tin-can")


def test_unknown_preset():
    with pytest.raises(SternaError, match="no configuration 'huge'"):
        VerilatorTransport("huge")


def test_waves_need_a_writable_place(standin_verilog, tmp_path):
    with pytest.raises(SternaError, match="waves cannot be written"):
        VerilatorTransport("sim-small", verilog=standin_verilog, waves=tmp_path / "missing" / "out.fst")
