"""Boards as devices: opened, lost, refused, and in ``sterna.load``."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from boards import Faults, open_board
from checkpoints import write_checkpoint

pytest.importorskip("serial", reason="needs pip install 'sterna[board]'")

import sterna
from sterna.cli.main import main
from sterna.compiler.image import compile_model
from sterna.emulator.board import SoftwareBoard
from sterna.emulator.dram import software_dram
from sterna.emulator.pipes import MemoryPipe, PtyBoard
from sterna.engines.accelerator import AcceleratorEngine
from sterna.engines.transport import parse_device
from sterna.errors import DeviceError, SternaError
from sterna.explore.program import image_bytes
from sterna.golden.model import GoldenModel
from sterna.link import find as link_find
from sterna.link.rates import load_rate, measure, wire_bytes
from sterna.link.serial import SerialPipe, SerialTransport
from sterna.link.transport import LinkTransport
from sterna.model.store import Model
from sterna.spec.config import preset
from sterna.spec.link import UART_RATES
from sterna.spec.registers import Control, Status

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
    assert [bar[0] for bar in bars] == ["checking", "read leveling", "memory test", "compiling", "loading"]
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


@pytest.mark.parametrize("config", ["sim-tiny", "ulx3s", "ecpix5"])
def test_the_size_of_an_image_by_geometry_alone(model, config):
    stored = Model.open(model)
    image = compile_model(stored, preset(config))
    assert image_bytes(stored.geometry, preset(config)) == sum(len(contents) for _, contents in image.segments)


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
