"""``sterna devices`` and ``sterna flash``, with boards in software behind pseudo-terminals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("serial", reason="needs pip install 'sterna[board]'")

from sterna.cli import flash
from sterna.cli.main import main
from sterna.emulator.board import SoftwareBoard
from sterna.emulator.dram import software_dram
from sterna.emulator.pipes import PtyBoard
from sterna.link import find as link_find
from sterna.spec.link import UART_RATES

BUILD = "0123456789abcdeffedcba9876543210"


@pytest.fixture
def port():
    with PtyBoard(SoftwareBoard()) as plugged:
        yield plugged.port


@pytest.fixture
def found(monkeypatch, port):
    """What is plugged in: a board, and a port that stays silent."""
    monkeypatch.setattr("sterna.link.serial.PROBE_SECONDS", 0.05)
    monkeypatch.setattr(link_find, "serial_ports", lambda: ("/dev/null-and-void", port))
    monkeypatch.setattr(link_find, "usb_boards", tuple)
    return f"serial:{port}"


def test_devices_lists_what_answers(found, capsys):
    assert main(["devices"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{found}\n") and f"software, build {BUILD}" in text
    assert "16 MiB DDR3, not started" in text and "sim-tiny: 40 lanes at 75 MHz" in text
    assert main(["devices", "--json", "--rate"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["device"], entry["build"], entry["config"], entry["baud"]) == (
        found,
        BUILD,
        "sim-tiny",
        UART_RATES[0],
    )
    assert entry["load_bytes_per_second"] > 1000
    assert main(["devices", found]) == 0
    assert "DDR3, running" in capsys.readouterr().out


def test_devices_tests_the_memory(capsys):
    with PtyBoard(SoftwareBoard(dram=software_dram("SDR", size=1 << 17))) as plugged:
        assert main(["devices", f"serial:{plugged.port}", "--test-memory"]) == 0
    assert "every byte was written and read" in capsys.readouterr().out
    with PtyBoard(SoftwareBoard(dram=software_dram("SDR", size=1 << 17), stuck=(5, 0))) as plugged:
        assert main(["devices", f"serial:{plugged.port}", "--test-memory"]) == 3
        assert "bit 5 of 128 data bits" in capsys.readouterr().err
        assert main(["devices", f"serial:{plugged.port}"]) == 0
    assert "SDR, faulty" in capsys.readouterr().out


def test_no_device_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(link_find, "serial_ports", tuple)
    monkeypatch.setattr(link_find, "usb_boards", tuple)
    assert main(["devices"]) == 3
    assert "no board answers (tried: no port is there)" in capsys.readouterr().err
    assert main(["devices", "cpu"]) == 2
    assert "'cpu' is no link to a board" in capsys.readouterr().err


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A bitstream of ecpix5 as the build flow leaves it, and a programmer that notes how it was called."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "build" / "bitstreams" / "ecpix5"
    folder.mkdir(parents=True)
    (folder / "ecpix5.bit").write_bytes(b"bits")
    (folder / "report.json").write_text(json.dumps({"board": "ecpix5", "build_id": BUILD}))
    program = tmp_path / "bin" / flash.PROGRAM
    program.parent.mkdir()
    program.write_text(f'#!{sys.executable}\nimport sys\nopen("called", "w").write(" ".join(sys.argv[1:]))\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr(flash, "APPEAR_SECONDS", 0.2)
    monkeypatch.setattr(flash.await_build, "__kwdefaults__", {"seconds": 0.2})
    return folder


def plugged_ecpix5():
    board = SoftwareBoard()
    object.__setattr__(board.description, "board", "ecpix5")
    packed = board.description.pack()
    board._text = len(packed).to_bytes(4, "little") + packed
    return PtyBoard(board)


@pytest.mark.parametrize("persist", [False, True])
def test_flash_programs_and_checks(built, capsys, persist):
    with plugged_ecpix5() as plugged:
        asked = ["flash", "ecpix5", "--device", f"serial:{plugged.port}", *(["--persist"] if persist else [])]
        assert main([*asked, "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["build"] == BUILD and result["device"] == f"serial:{plugged.port}"
        words = Path("called").read_text().split()
        assert words[:2] == ["--board", "ecpix5"] and Path(words[-1]) == Path("build/bitstreams/ecpix5/ecpix5.bit")
        assert ("--write-flash" in words) is persist
        (built / "report.json").write_text(json.dumps({"board": "ecpix5", "build_id": "77"}))
        assert main(asked) == 3
    error = capsys.readouterr().err
    assert f"no board answers with build 77 (found: ecpix5 with build {BUILD}" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("nothing", 2, "there is no board 'nothing'; choose one of ecpix5"),
        (
            "ulx3s",
            2,
            "there is no bitstream build/bitstreams/ulx3s/ulx3s.bit: build it with `make bitstream BOARD=ulx3s`",
        ),
        ("missing.bit", 2, "there is no bitstream missing.bit"),
        ("other.bit", 2, "no report.json beside other.bit says for which board it is: name it with --board"),
        ("other.bit --board ecpix9", 2, "there is no board 'ecpix9'"),
        ("ecpix5 --device serial:/dev/null-and-void", 3, "no board answers with build"),
    ],
)
def test_flash_errors_are_one_sentence(built, capsys, words, code, message):
    Path("other.bit").write_bytes(b"bits")
    assert main(["flash", *words.split()]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_boot_loader_is_not_asked_to_write_the_flash(built, monkeypatch):
    flash.program(flash.Bitstream(built / "ecpix5.bit", "butterstick", None), persist=True)
    words = Path("called").read_text().split()
    assert flash.DFU in words and "--write-flash" not in words


def test_flash_without_the_programmer(built, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["flash", "ecpix5"]) == 2
    assert "openFPGALoader is not on the PATH: install it" in capsys.readouterr().err


def test_flash_when_the_programmer_fails(built, capsys):
    (built.parents[2] / "bin" / flash.PROGRAM).write_text(f"#!{sys.executable}\nraise SystemExit(1)\n")
    assert main(["flash", "ecpix5"]) == 3
    assert "openFPGALoader ended with code 1: check the board's power" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["devices", "flash"])
def test_help_teaches(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"sterna {command}" in text and text.count("  sterna ") >= 2
    assert max(map(len, text.splitlines())) <= 120
