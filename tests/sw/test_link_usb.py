"""Boards on USB, at the level of libusb: opened, told apart, lost."""

from __future__ import annotations

import functools

import pytest
from checkpoints import write_checkpoint

pytest.importorskip("serial", reason="needs pip install 'sterna[board]'")
import usb.core  # goes with pyserial
from usb_backend import FakeBackend, Plugged

import sterna
from sterna.cli.main import main
from sterna.emulator.board import SoftwareBoard
from sterna.engines.transport import open_transport
from sterna.errors import DeviceError, SternaError
from sterna.golden.model import GoldenModel
from sterna.link import find as link_find
from sterna.link.usb import UsbPipe, UsbTransport
from sterna.model.store import Model

BUILD = "0123456789abcdeffedcba9876543210"
VOCAB = 257


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("boards")
    write_checkpoint(path / "checkpoint", hidden=24, layers=2, inner=40, vocab=VOCAB, seed=3)
    assert main(["import", str(path / "checkpoint"), str(path / "model")]) == 0
    return path / "model"


@pytest.fixture
def plug(monkeypatch):
    """Puts boards into USB sockets."""

    def plug(*devices):
        backend = FakeBackend(*devices)
        monkeypatch.setattr(usb.core, "find", functools.partial(usb.core.find, backend=backend))
        return devices

    return plug


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
