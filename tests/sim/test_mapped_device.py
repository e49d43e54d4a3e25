"""Boards that the host maps: the transport contract over a striped memory, the windows on files, what is refused."""

from __future__ import annotations

import json
import random
from dataclasses import asdict

import conformance
import pytest

from sterna.emulator.transport import EmulatorTransport
from sterna.errors import DeviceError, SternaError
from sterna.link.mapped import MappedTransport, open_window
from sterna.link.windows import MappedWindow, QueueWindow, StripedWindow
from sterna.spec.config import PRESETS
from sterna.spec.registers import REGISTERS, Access

CONFIG = PRESETS["sim-small"]
PART = 1 << 20
BASES = (0x10_0000, 0x80_0000, 0x40_0000, 0x20_0000)
NAMES = {register.offset: register for register in REGISTERS}


class Registers:
    """The emulator's registers, by offset."""

    size = 256

    def __init__(self, device):
        self._device = device

    def read(self, offset, size):
        assert size == 4
        return self._device.read_register(NAMES[offset].name).to_bytes(4, "little")

    def write(self, offset, data):
        assert NAMES[offset].access is Access.RW and len(data) == 4
        self._device.write_register(NAMES[offset].name, int.from_bytes(data, "little"))

    def close(self):
        pass


class Memory:
    """The emulator's memory as the ports of a striped one see it, byte by byte."""

    size = 1 << 24

    def __init__(self, device):
        self._device = device

    def _wide(self, address):
        port = next(i for i, base in enumerate(BASES) if base <= address < base + PART)
        beat, byte = divmod(address - BASES[port], CONFIG.beat_bytes // len(BASES))
        return beat * CONFIG.beat_bytes + port * (CONFIG.beat_bytes // len(BASES)) + byte

    def read(self, offset, size):
        return b"".join(self._device.read_memory(self._wide(at), 1) for at in range(offset, offset + size))

    def write(self, offset, data):
        for index, byte in enumerate(bytes(data)):
            self._device.write_memory(self._wide(offset + index), bytes([byte]))

    def close(self):
        pass


def device_file(tmp_path, **changes):
    fields = {
        "config": asdict(CONFIG),
        "registers": {"kind": Registers},
        "memory": {"kind": Memory},
        "stripe": {"bases": list(BASES), "part": PART},
    } | changes
    path = tmp_path / "device.json"
    path.write_text(json.dumps(fields, default=lambda kind: kind.__name__))
    return path


@pytest.fixture
def factory(tmp_path):
    def open_one():
        device = EmulatorTransport(CONFIG, size=1 << 23)
        return MappedTransport(device_file(tmp_path), opener=lambda entry: globals()[entry["kind"]](device))

    return open_one


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, factory):
    check(factory, range(0x1_0000, 0x1_8000))


def test_a_file_stands_for_memory(tmp_path):
    """Both kinds of window on plain files: whole pieces, single words, closing."""
    rng = random.Random(7)
    mapped, queue = tmp_path / "mapped", tmp_path / "queue"
    for path in (mapped, queue):
        path.write_bytes(bytes(8192))
    windows = (MappedWindow(mapped, 8192), QueueWindow(reads=queue, writes=queue, base=4096, size=4096))
    for window in windows:
        shadow = bytearray(4096)
        for size in (4, 1, 7, 64, 1000):
            for offset in (0, 4, 5, 1024):
                piece = rng.randbytes(size)
                window.write(offset, piece)
                shadow[offset : offset + size] = piece
                assert window.read(offset, size) == piece
        assert window.read(0, 4096) == shadow
        window.close()
        window.close()
        for use in (lambda window=window: window.read(0, 4), lambda window=window: window.write(0, b"four")):
            with pytest.raises(DeviceError, match="closed"):
                use()
    assert queue.read_bytes()[:4096] == bytes(4096)


def test_a_queue_that_stops_is_an_error(tmp_path):
    short = tmp_path / "short"
    short.write_bytes(b"only this")
    with pytest.raises(DeviceError, match="gave 9 of 16 bytes"):
        QueueWindow(reads=short, writes=short, base=0, size=16).read(0, 16)


@pytest.mark.parametrize(
    "open_it",
    [
        lambda folder: MappedWindow(folder / "none", 4096),
        lambda folder: QueueWindow(reads=folder / "none", writes=folder / "none", base=0, size=1),
    ],
)
def test_a_missing_driver_is_named(tmp_path, open_it):
    with pytest.raises(DeviceError, match="is the driver loaded"):
        open_it(tmp_path)


def test_a_file_that_describes_no_device_is_refused(tmp_path):
    for text in ("{", "[]", json.dumps({"config": {}}), device_file(tmp_path, stripe={}).read_text()):
        path = tmp_path / "other.json"
        path.write_text(text)
        with pytest.raises(SternaError, match="no device file"):
            MappedTransport(path)
    with pytest.raises(SternaError, match="lacks"):
        open_window({"reads": "x"})


def test_stripes_of_one_part_are_the_memory_itself(tmp_path):
    path = tmp_path / "memory"
    path.write_bytes(bytes(1024))
    window = StripedWindow(MappedWindow(path, 1024), bases=[0], part=1024, beat_bytes=16)
    window.write(3, b"some bytes over a beat")
    assert path.read_bytes()[3:25] == b"some bytes over a beat"
    window.close()
