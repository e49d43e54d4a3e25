"""Boards as devices: on a serial port, on USB, in ``sterna.load``, ``sterna devices`` and ``sterna flash``."""

from __future__ import annotations

import functools
import json
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from boards import Faults, open_board
from checkpoints import write_checkpoint

serial = pytest.importorskip("serial", reason="needs pip install 'sterna[board]'")
import usb.core  # noqa: E402  # goes with pyserial
from usb_backend import FakeBackend, Plugged  # noqa: E402

import sterna  # noqa: E402
from sterna.cli import flash  # noqa: E402
from sterna.cli.main import main  # noqa: E402
from sterna.compiler.image import compile_model  # noqa: E402
from sterna.emulator.board import SoftwareBoard  # noqa: E402
from sterna.emulator.dram import software_dram  # noqa: E402
from sterna.emulator.pipes import MemoryPipe, PtyBoard  # noqa: E402
from sterna.engines.accelerator import AcceleratorEngine  # noqa: E402
from sterna.engines.transport import open_transport, parse_device  # noqa: E402
from sterna.errors import DeviceError, SternaError  # noqa: E402
from sterna.golden.model import GoldenModel  # noqa: E402
from sterna.link import find as link_find  # noqa: E402
from sterna.link.rates import load_rate, measure, wire_bytes  # noqa: E402
from sterna.link.serial import SerialPipe, SerialTransport  # noqa: E402
from sterna.link.transport import LinkTransport  # noqa: E402
from sterna.link.usb import UsbPipe, UsbTransport  # noqa: E402
from sterna.model.store import Model  # noqa: E402
from sterna.spec.link import UART_RATES  # noqa: E402
from sterna.spec.registers import Control, Status  # noqa: E402

BUILD = "0123456789abcdeffedcba9876543210"
VOCAB = 257


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("boards")
    write_checkpoint(path / "checkpoint", hidden=24, layers=2, inner=40, vocab=VOCAB, seed=3)
    assert main(["import", str(path / "checkpoint"), str(path / "model")]) == 0
    return path / "model"


@pytest.fixture
def port():
    with PtyBoard(SoftwareBoard()) as plugged:
        yield plugged.port


@pytest.fixture
def plug(monkeypatch):
    """Puts boards into USB sockets."""

    def plug(*devices):
        backend = FakeBackend(*devices)
        monkeypatch.setattr(usb.core, "find", functools.partial(usb.core.find, backend=backend))
        return devices

    return plug


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("cpu", "cpu", {}),
        ("usb", "usb", {}),
        ("serial:/dev/ttyUSB0", "serial", {"address": "/dev/ttyUSB0"}),
        ("serial:COM3?baud=3000000&build=3f", "serial", {"address": "COM3", "baud": "3000000", "build": "3f"}),
        ("usb?memory_test=full", "usb", {"memory_test": "full"}),
        ("usb:1-5", "usb", {"address": "1-5"}),
    ],
)
def test_devices_carry_options(text, name, options):
    assert parse_device(text) == (name, options)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("serial", "name the port"),
        ("serial:/dev/null-and-void", "the serial port /dev/null-and-void cannot be opened"),
        ("serial:/dev/ttyUSB0?speed=9", "device 'serial' has no option 'speed'; its options: address, baud"),
        ("serial:/dev/ttyUSB0?fast", "after the question mark stands option=value"),
        ("serial:/dev/ttyUSB0?baud=fast", "baud must be a positive number, not 'fast'"),
        ("emulator:somewhere", "device 'emulator' has no option 'address'"),
        ("tin-can:/dev/ttyUSB0", "there is no device 'tin-can"),
        ("golden:here", "there is no device 'golden:here'"),
    ],
)
def test_errors_of_devices_are_one_sentence(model, device, message, capsys):
    assert main(["generate", str(model), "--prompt", "a", "--device", device]) in (2, 3)
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1


def test_generate_on_a_serial_port(model, port, capsys):
    assert main(["generate", str(model), "--prompt", "Hello", "--tokens", "6", "--ignore-eos"]) == 0
    expected = capsys.readouterr().out
    asked = ["--prompt", "Hello", "--tokens", "6", "--ignore-eos", "--device", f"serial:{port}?baud=3000000"]
    assert main(["generate", str(model), *asked]) == 0
    assert capsys.readouterr().out == expected


def test_loading_shows_its_progress(model, port):
    bars = []

    def progress(*, total, label, unit):
        bars.append([label, total, 0])
        bar = bars[-1]
        return SimpleNamespace(update=lambda n: bar.__setitem__(2, bar[2] + n), close=lambda: None)

    with sterna.load(model, f"serial:{port}", loading=progress):
        pass
    assert [bar[0] for bar in bars] == ["read leveling", "memory test", "loading"]
    assert all(total == done for _, total, done in bars)


def test_the_configuration_is_the_boards(model, port):
    with pytest.raises(SternaError, match="device 'serial' tells its configuration itself"):
        sterna.load(model, f"serial:{port}", config="sim-tiny")
    with sterna.load(model, f"serial:{port}") as session:
        assert isinstance(session.engine, AcceleratorEngine)
        assert session.engine.transport.config.name == "sim-tiny"


def test_a_model_larger_than_the_memory_is_refused_before_anything_is_written(model):
    board = SoftwareBoard(dram=software_dram("SDR", size=1 << 14))
    transport = open_board(board, memory_test="none")
    board.executed.clear()
    image = compile_model(Model.open(model), transport.config)
    with pytest.raises(
        DeviceError,
        match=rf"the model takes {image.logits_address + 4 * VOCAB} bytes of memory and the device has {1 << 14}",
    ):
        AcceleratorEngine(transport, image, Model.open(model).geometry)
    assert not [entry for entry in board.executed if entry[1] == 0]
    with pytest.raises(DeviceError, match="closed"):
        transport.read_register("MAGIC")


def test_a_model_that_just_fits(model):
    image = compile_model(Model.open(model), SoftwareBoard().description.config)
    size = image.logits_address + 4 * VOCAB
    for less in (0, 1):
        transport = open_board(SoftwareBoard(dram=software_dram("SDR", size=size - less)), memory_test="none")
        if less:
            with pytest.raises(DeviceError, match="the model takes"):
                AcceleratorEngine(transport, image, Model.open(model).geometry)
        else:
            AcceleratorEngine(transport, image, Model.open(model).geometry).step(3)


@pytest.mark.parametrize("way", ["cut", "silent", "unplugged"])
def test_a_device_lost_in_the_middle_of_a_token(model, way):
    """Ends with cause and mend, soon; `reset` finds no board either, and the session says so again."""
    lost = threading.Event()
    board = SoftwareBoard(busy_reads=1 << 30)
    image, geometry = compile_model(Model.open(model), board.description.config), Model.open(model).geometry
    if way == "unplugged":
        plugged = PtyBoard(board)
        transport: LinkTransport = SerialTransport(plugged.port, baud=3_000_000)
    else:
        change = lambda data: data if not lost.is_set() else None if way == "cut" else b""  # noqa: E731
        transport = LinkTransport(MemoryPipe(board, to_board=change))
    engine = AcceleratorEngine(transport, image, geometry)
    threading.Timer(0.2, plugged.close if way == "unplugged" else lost.set).start()
    started = time.monotonic()
    cause = {"cut": "was cut", "silent": "does not answer: check the cable", "unplugged": "is gone.*plug it in"}[way]
    with pytest.raises(DeviceError, match=cause):
        engine.step(3)
    assert time.monotonic() - started < 10
    with pytest.raises(DeviceError):
        engine.reset()
    engine.close()


def test_a_token_that_never_ends_is_a_time_out_and_can_be_abandoned(model):
    board = SoftwareBoard(busy_reads=1 << 30)
    image, geometry = compile_model(Model.open(model), board.description.config), Model.open(model).geometry
    engine = AcceleratorEngine(LinkTransport(MemoryPipe(board), timeout=0.1), image, geometry)
    with pytest.raises(DeviceError, match=r"time-out: the accelerator at memory did not reach .* in 0\.1 s"):
        engine.step(3)
    with pytest.raises(DeviceError, match="not open to the host while a token runs"):
        engine.transport.read_memory(0, 4)
    board._busy_reads = 0
    engine.reset()
    golden = GoldenModel(Model.open(model)).step([3])[0]
    assert engine.step(3, logits=True).logits.tolist() == golden.tolist()


def test_a_token_over_a_bad_link_is_golden(model):
    faults = [Faults({place: ("drop", "flip", "repeat")[i % 3] for i, place in enumerate(range(9, 10**6, step))})
              for step in (7001, 5003)]  # fmt: skip
    board = SoftwareBoard()
    image, geometry = compile_model(Model.open(model), board.description.config), Model.open(model).geometry
    transport = LinkTransport(MemoryPipe(board, to_board=faults[0], to_host=faults[1]))
    engine = AcceleratorEngine(transport, image, geometry)
    golden = GoldenModel(Model.open(model))
    for token in (3, 200, 3):
        assert engine.step(token, logits=True).logits.tolist() == golden.step([token])[0].tolist()
    assert transport.repeats > 10


def test_a_stale_bitstream_is_one_sentence(port):
    with SerialTransport(port, build="0x0123456789AB") as transport:
        assert transport.identity.build == BUILD
    with pytest.raises(DeviceError, match=f"holds build {BUILD}, not 3f20: its bitstream is stale; flash it again"):
        SerialTransport(port, build="3f20")
    for wrong in ("", "later", 40 * "0"):
        with pytest.raises(SternaError, match="build must be up to 32 hexadecimal digits"):
            SerialTransport(port, build=wrong)


def test_what_cannot_be_opened_is_closed():
    pipe = MemoryPipe(SoftwareBoard())
    with pytest.raises(DeviceError, match="stale"):
        LinkTransport(pipe, build="77")
    with pytest.raises(DeviceError, match="closed"):
        pipe.read(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "soon"}, "timeout must be a positive number, not 'soon'"),
        ({"timeout": -1}, "timeout must be a positive number"),
        ({"memory_test": "long"}, "memory_test must be one of short, full, none, not 'long'"),
        ({"baud": "0"}, "baud must be a positive number"),
    ],
)
def test_options_are_checked(port, options, message):
    with pytest.raises(SternaError, match=message):
        SerialTransport(port, **options)


def test_a_token_left_running_does_not_stop_the_memory_test():
    board = SoftwareBoard(busy_reads=1 << 30, dram=software_dram(size=1 << 17))
    with open_board(board) as transport:
        transport.write_register("CONTROL", Control.START)
    with open_board(board, memory_test="full") as transport:
        assert transport.read_register("STATUS") == 0


def test_a_range_beyond_the_memory_never_reaches_the_board():
    board = SoftwareBoard()
    with open_board(board) as transport:
        end = transport.memory_bytes
        board.executed.clear()
        for address, size in ((end - 4, 5), (end, 1), (-1, 1), (1 << 64, 1)):
            told = f"bytes {address}..{address + size} are not inside the board's memory of {end} bytes"
            with pytest.raises(DeviceError, match=told):
                transport.read_memory(address, size)
            with pytest.raises(DeviceError, match=told):
                transport.write_memory(address, bytes(size))
        assert not board.executed
        transport.write_memory(end - 4, b"last")
        assert transport.read_memory(end - 4, 4) == b"last"


def test_wait_and_reset():
    board = SoftwareBoard(busy_reads=3)
    with open_board(board) as transport:
        transport.write_register("CONTROL", Control.START)  # without a program: an error
        assert transport.wait(Status.DONE | Status.ERROR) == Status.ERROR
        transport.reset()
        assert transport.read_register("STATUS") == 0


def test_the_rate_of_a_serial_port_is_found(monkeypatch):
    """A board hears nothing but its own rate."""
    tried = []

    class Heard(SerialPipe):
        def __init__(self, port, *, baud):
            super().__init__(port, baud=baud)
            tried.append(baud)

        def read(self, timeout):
            return super().read(timeout) if self.baud == UART_RATES[2] else b""

    monkeypatch.setattr("sterna.link.serial.SerialPipe", Heard)
    monkeypatch.setattr("sterna.link.serial.PROBE_SECONDS", 0.01)
    with PtyBoard(SoftwareBoard()) as plugged:
        assert link_find.probe(f"serial:{plugged.port}").baud == UART_RATES[2]
    assert tried == list(UART_RATES[:3])


def test_a_port_without_a_board_is_one_sentence(monkeypatch):
    monkeypatch.setattr("sterna.link.serial.PROBE_SECONDS", 0.01)
    board = SoftwareBoard()
    board.receive = lambda data: b""  # type: ignore[method-assign]
    with PtyBoard(board) as plugged, pytest.raises(DeviceError, match=r"no Sterna board answers at /dev/\S+ at any of"):
        SerialTransport(plugged.port)


def test_a_closed_serial_port(port):
    pipe = SerialPipe(port, baud=115200)
    pipe.close()
    pipe.close()
    with pytest.raises(DeviceError, match="is closed"):
        pipe.read(0.01)
    with pytest.raises(DeviceError, match="is closed"):
        pipe.write(b"x")


def test_usb(plug, model):
    (device,) = plug(Plugged(SoftwareBoard(), serial=BUILD))
    with sterna.load(model, "usb") as session:
        assert session.forward_integers([3]).tolist() == GoldenModel(Model.open(model)).step([3]).tolist()
        with pytest.raises(DeviceError, match=f"the USB board usb:{BUILD} cannot be opened .*Resource busy"):
            UsbTransport()
    assert device.configured == 1 and not device.claimed
    with open_transport(f"usb:{BUILD}") as transport:
        assert transport.read_memory(0, 5 * 512 - 8)  # whole packets, then an empty one
        for size in range(500, 508):  # of which one is a packet with its frame
            transport.read_memory(0x3000, size)
        assert transport.repeats == 0


def test_usb_device_is_lost(plug, model):
    (device,) = plug(Plugged(SoftwareBoard(), serial=BUILD))
    with sterna.load(model, "usb") as session:
        device.gone = True
        with pytest.raises(DeviceError, match=f"the board usb:{BUILD} is gone .*plug it in"):
            session.forward_integers([3])


def test_usb_silence_is_no_loss(plug):
    plug(Plugged(SoftwareBoard(), serial=BUILD))
    pipe = UsbPipe()
    assert pipe.read(0.01) == b""
    pipe.write(b"~")
    pipe.close()


def test_usb_boards_are_told_apart(plug):
    plug()
    with pytest.raises(DeviceError, match="no USB board 1209:0001 is there"):
        UsbPipe()
    plug(Plugged(SoftwareBoard(), serial="aa", address=7), Plugged(SoftwareBoard(), serial="bb", address=8))
    with pytest.raises(SternaError, match=r"several USB boards are there \(aa, bb\): name one, as in \"usb:aa\""):
        UsbPipe()
    with pytest.raises(DeviceError, match="no USB board cc is there"):
        UsbPipe("cc")
    for name in ("bb", "1-8"):
        pipe = UsbPipe(name)
        assert pipe.name == "usb:bb"
        pipe.close()
        with pytest.raises(DeviceError, match="is closed"):
            pipe.read(0.01)
    plug(Plugged(SoftwareBoard(), serial="aa", address=7), Plugged(SoftwareBoard(), serial="aa", address=8))
    assert link_find.usb_boards() == ("1-7", "1-8")


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


def test_the_rate_is_measured_and_contents_stay():
    with open_board() as transport:
        transport.write_memory(0, b"contents")
        assert measure(transport, size=1 << 15) > 0
        assert transport.read_memory(0, 8) == b"contents"


def test_computed_rates():
    """Against what frames of random bytes take, and the window where the round trip is long."""
    import numpy as np

    from sterna.link.client import writes
    from sterna.link.framing import frame
    from sterna.spec.link import PAYLOAD_BYTES, WINDOW, Space

    data = np.random.default_rng(1).bytes(500 * PAYLOAD_BYTES)
    sizes = [len(frame(request.body(i % 256))) for i, request in enumerate(writes(Space.MEMORY, 0, data))]
    assert np.mean(sizes) == pytest.approx(wire_bytes(), rel=1e-3)
    assert load_rate(1.2e6) == pytest.approx(1.2e6 * 1024 / wire_bytes())
    assert load_rate(1e12, round_trip=1e-3) == pytest.approx(WINDOW * PAYLOAD_BYTES / 1e-3, rel=1e-3)


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
