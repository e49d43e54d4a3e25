"""Boards: their top levels elaborate, and what they say about themselves holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from math import ceil, isclose
from pathlib import Path

import pytest

pytest.importorskip("litedram", reason="boards need the packages of an extra: pip install 'sterna[bitstream]'")
pytest.importorskip("amaranth_boards")
pytest.importorskip("luna")

from amaranth.sim import Simulator

from sterna.compiler.image import SEGMENT_ALIGNMENT, compile_model
from sterna.compiler.program import Placement
from sterna.errors import SternaError
from sterna.importer.synthetic import GEOMETRIES
from sterna.model.geometry import Geometry
from sterna.model.store import Model
from sterna.spec.board import BoardDescription
from sterna.spec.link import UART_RATES
from sterna_boards.boards import BOARDS, find_board
from sterna_boards.boards.__main__ import main
from sterna_boards.boards.expect import expect, memory_bytes
from sterna_boards.boards.io_voltage import (
    FEEDBACK_OHMS,
    FEEDBACK_VOLTS,
    INJECTION_OHMS,
    PIN_VOLTS,
    PULSE_BITS,
    SET_OHMS,
    IoVoltage,
    duty,
)
from sterna_boards.dram import dram_core
from sterna_hw.link.uart import bit_step

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
SIZES = {"ecpix5": 512 * MIB, "butterstick": 1024 * MIB, "ulx3s": 32 * MIB}
UNCONNECTED = {  # pins of the core that the board ties, or that the other half of a pair stands for
    "ecpix5": {"ddram_cs_n", "ddram_reset_n", "ddram_clk_n", "ddram_dqs_n"},
    "butterstick": {"ddram_clk_n", "ddram_dqs_n"},
    "ulx3s": set(),
}
PIN_NAMES = {"cke": "clk_en", "reset": "rst"}  # of amaranth-boards, where they differ from LiteDRAM's
# Least times of the data sheets in nanoseconds: MT41K256M16-107 at any rate; the longest of the SDR chips on ULX3S
# boards (MT48LC16M16A2-75, IS42S16160G-7, AS4C16M16SA-7, W9825G6KH-6).
DDR3 = {"tRP": 13.91, "tRCD": 13.91, "tRAS": 34, "tRFC": 260, "tWR": 15, "tFAW": 35}
SDR = {"tRP": 20, "tRCD": 20, "tRAS": 44, "tRFC": 70, "tWR": 15}
TIMES = {"ecpix5": DDR3, "butterstick": DDR3, "ulx3s": SDR}
REFRESH = 64e6 / 8192  # nanoseconds between refreshes, at most
MODELS = {
    "ecpix5": [GEOMETRIES["370m"], GEOMETRIES["1.3b"]],
    "butterstick": [GEOMETRIES["1.3b"], GEOMETRIES["2.7b"]],
    "ulx3s": [Geometry(hidden=512, layers=8, inner=1536, vocab=4096, rms_eps=1e-6), GEOMETRIES["8m"]],
}
TOO_LARGE = Geometry(hidden=4096, layers=32, inner=11008, vocab=32000, rms_eps=1e-6)
TOOLS = {"YOSYS": "yosys", "NEXTPNR_ECP5": "nextpnr-ecp5", "ECPPACK": "ecppack", "OPENFPGALOADER": "openFPGALoader"}


@pytest.fixture(scope="module")
def cores(tmp_path_factory):
    cache = tmp_path_factory.mktemp("dram")
    return {name: dram_core(board.recipe, cache=cache) for name, board in BOARDS.items()}


@pytest.fixture(params=BOARDS)
def board(request):
    return BOARDS[request.param]


@pytest.fixture
def core(board, cores):
    return cores[board.name]


def prepare(top, board, monkeypatch):
    """The files that the tools would be given; none of them runs."""
    for name, tool in TOOLS.items():
        monkeypatch.setenv(name, tool)
    return board.platform().prepare(top, name="top").files


def text(files, name):
    return files[name] if isinstance(files[name], str) else files[name].decode()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_top_holds_the_very_core_of_the_recipe(board, core, monkeypatch):
    links = {"butterstick": ("usb", "uart:3000000")}.get(board.name, board.links)
    files = prepare(board.top(core=core, build_id=1, links=links), board, monkeypatch)
    assert text(files, "litedram.v") == core.verilog
    netlist = text(files, "top.il")
    connected = set(re.findall(r"connect \\((?:ddram|sdram)_\w+) ", netlist))
    declared = set(re.findall(r"^ +(?:input|output|inout) +wire .*\b((?:ddram|sdram)_\w+)", core.verilog, re.M))
    assert declared - connected == UNCONNECTED[board.name]
    for ours, pin in re.findall(
        r"connect \\(?:ddram|sdram)_([a-z]\w*?)(?:_[np])? \\(?:ddr3|sdram)_0__(\w+)__(?:io|p)\b", netlist
    ):
        assert pin == PIN_NAMES.get(ours, ours) or (ours, pin) == ("dm", "dqm")
    constraints = text(files, "top.lpf")
    pins = re.findall(r'LOCATE COMP "(\S+)" SITE', constraints)
    assert len([pin for pin in pins if re.match(r"(ddr3|sdram)_0__dq__", pin)]) == 8 * core.byte_lanes
    frequencies = {float(value) for value in re.findall(r'FREQUENCY PORT "\S+" (\S+) HZ', constraints)}
    assert re.search('LOCATE COMP "uart_0__rx__io" SITE "(?:R26|G2|M1)"', constraints)
    assert board.recipe.input_clock in frequencies
    assert (60e6 in frequencies) == ("usb" in board.links and board.name == "ecpix5")  # ButterStick makes that clock


def test_a_bitstream_describes_itself(board, core):
    description = board.top(core=core, build_id=1).description
    assert BoardDescription.unpack(description.pack()) == description
    assert description.dram == core.description
    assert description.dram.bytes == board.memory_bytes == SIZES[board.name]
    assert description.dram.ranks == (2 if board.name == "butterstick" else 1)
    assert (description.board, description.clock, description.links) == (board.name, board.clock, board.links)
    assert description.dram.byte_lanes * 8 == 16
    assert description.config.beat_bytes == core.data_bytes
    assert 1 << description.config.address_width >= core.size


def test_uart_rates_can_be_made_and_are_tried_by_the_host(board):
    rates = [int(link.partition(":")[2]) for link in board.links if link.startswith("uart:")]
    assert set(rates) <= set(UART_RATES)
    for rate in rates:
        bit_step(board.clock, rate)


def test_the_controller_keeps_the_times_of_the_chip(board, core):
    cycle = 1e9 / board.clock
    for name, least in TIMES[board.name].items():
        # A command may be in the second half of its cycle and the next one in the first.
        assert least <= (core.timing[name] - 0.49) * cycle < least + 1.5 * cycle, name
    assert core.timing["tREFI"] == ceil(REFRESH / cycle)  # part of a cycle late, of 8 whole ones that a chip allows


def pll(verilog):
    """Parameters of the PLL of a generated core."""
    block = re.search(r"EHXPLLL #\((.*?)\) EHXPLLL", verilog, re.S)
    return {name: int(value) for name, value in re.findall(r"\.(\w+) +\(\d+'d(\d+)\)", block[1])}


def test_the_clocks_are_what_the_recipe_says(board, core):
    values, recipe = pll(core.verilog), board.recipe
    # Feedback comes from the output after the last that is used.
    last = max(name for name in ("CLKOP", "CLKOS", "CLKOS2", "CLKOS3") if f"{name}_DIV" in values)
    oscillator = recipe.input_clock / values["CLKI_DIV"] * values["CLKFB_DIV"] * values[f"{last}_DIV"]
    assert 400e6 <= oscillator <= 800e6
    made = {name: oscillator / values[f"{name}_DIV"] for name in ("CLKOP", "CLKOS")}
    if recipe.kind == "DDR3":
        assert made == {"CLKOP": 2 * recipe.clock, "CLKOS": recipe.init_clock}
    else:
        assert made == {"CLKOP": recipe.clock, "CLKOS": 2 * recipe.clock}
        chip = values["CLKOS2_DIV"]
        late = (values["CLKOS2_CPHASE"] - values["CLKOS_CPHASE"]) / chip
        assert (chip, late) == (values["CLKOS_DIV"], 0.5)


def test_models_fit_board_and_configuration(board):
    for geometry in MODELS[board.name]:
        Placement.of(geometry, board.config)
        assert expect(board, "a model", geometry).fits
    with pytest.raises(SternaError, match=f"configuration {board.name} has"):
        Placement.of(GEOMETRIES["2.7b"] if board.name == "ecpix5" else TOO_LARGE, board.config)


def test_what_is_expected_of_a_board_is_what_the_compiler_makes():
    model = Model.open(ROOT / "sim/models/gutenberg-31m")
    board = BOARDS["ulx3s"]
    size = compile_model(model, board.config).size
    assert size <= memory_bytes(model.geometry, board.config) <= size + 3 * SEGMENT_ALIGNMENT


def test_the_table_names_each_model_that_fits(capsys):
    assert main([]) == 0
    table = capsys.readouterr().out
    assert table in (ROOT / "docs/boards.md").read_text()
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    fitting = {(row[0].removeprefix("| "), row[3]) for row in rows}
    assert ("butterstick", "2.7b") in fitting and ("ecpix5", "1.3b") in fitting
    assert {("ecpix5", "2.7b"), ("ulx3s", "370m")}.isdisjoint(fitting)
    assert main(["ulx3s", "--json"]) == 0
    (one,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert one["tokens_per_second"] == 50e6 / one["cycles"] and one["load_seconds"].keys() == {"uart:3000000"}
    with pytest.raises(SystemExit):
        main(["nothing"])


def test_programming_a_board_needs_no_package_of_the_gateware():
    code = (
        "import sys; from sterna_boards.boards import find_board; assert find_board('ecpix5').programmer\n"
        "assert not {'amaranth', 'amaranth_boards', 'luna', 'litedram', 'migen'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_board_is_refused():
    with pytest.raises(SternaError, match="there is no board 'de10'; choose one of ecpix5, butterstick, ulx3s"):
        find_board("de10")


@pytest.mark.parametrize("links", [("usb",), (), ("uart:3000000",) * 3])
def test_links_that_a_board_lacks_are_refused(cores, links):
    with pytest.raises(SternaError, match="ulx3s takes one or two links out of uart, not"):
        BOARDS["ulx3s"].top(core=cores["ulx3s"], build_id=1, links=links)


@pytest.mark.parametrize("volts", [1.2, 1.8, 2.5, 3.3])
def test_the_duty_balances_the_currents_of_the_regulator(volts):
    pin = PIN_VOLTS * duty(volts)
    into_feedback = (volts - FEEDBACK_VOLTS) / FEEDBACK_OHMS + (pin - FEEDBACK_VOLTS) / INJECTION_OHMS
    assert isclose(into_feedback, FEEDBACK_VOLTS / SET_OHMS, rel_tol=1e-9)


@pytest.mark.parametrize("volts", [0.5, 4.2])
def test_a_supply_has_limits(volts):
    with pytest.raises(ValueError, match="a supply can be set to"):
        duty(volts)


def test_supplies_start_after_their_filters_settled():
    clock, volts = 100_000, (3.3, 1.8, 1.2)
    dut = IoVoltage(clock=clock, volts=volts)
    settled = 4 * 2 * 3.14159 * 68e3 * 0.1e-6 * clock

    async def bench(ctx):
        high, enabled = [0, 0, 0], None
        for cycle in range(18 << PULSE_BITS):
            *_, pulses, enable = await ctx.tick().sample(dut.pulses, dut.enable)
            if cycle >= 17 << PULSE_BITS:
                high = [count + (pulses >> index & 1) for index, count in enumerate(high)]
            if enable and enabled is None:
                enabled = cycle
        assert settled < enabled < settled + 0.002 * clock
        assert ctx.get(dut.good)
        for count, each in zip(high, volts, strict=True):
            assert abs(count / (1 << PULSE_BITS) - duty(each)) < 1e-3

    simulator = Simulator(dut)
    simulator.add_clock(1 / clock)
    simulator.add_testbench(bench)
    simulator.run()
