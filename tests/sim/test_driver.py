"""The driver against the stand-in, whose answers are known."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import pytest
from standin import Bug

from sterna.engines.accelerator import AcceleratorEngine
from sterna.engines.engine import Engine
from sterna.engines.memory import CHUNK
from sterna.errors import DeviceError, SternaError
from sterna.model.geometry import Geometry
from sterna.spec.image import ImageTensor
from sterna.spec.registers import ERROR_TEXT, VERSION, Control, ErrorCause, Stall

GEOMETRY = Geometry(hidden=8, layers=1, inner=8, vocab=64, rms_eps=1e-6)
BEATS = 100


@dataclass(frozen=True)
class Image:
    segments: list[tuple[int, bytes]]
    tensors: tuple[ImageTensor, ...] = ()
    program_address: int = 0x8000
    program_beats: int = BEATS
    prefix_beats: int = BEATS // 2
    embed_address: int = 0x1_0000
    embed_beats: int = Bug.NONE  # chooses a bug of the stand-in
    logits_address: int = 0x2_0000
    vocabulary: int = GEOMETRY.vocab


@pytest.fixture
def image(config):
    return Image([(0x8000, random.Random(2).randbytes(BEATS * config.beat_bytes)), (0x1_0000, b"rows")])


@pytest.fixture
def total(image):
    """What the stand-in makes of the program."""
    return int(np.frombuffer(image.segments[0][1], "<u4")[::4].sum(dtype=np.uint32))


def _u32(value):
    return value & 0xFFFF_FFFF


def test_steps(open_standin, image, total):
    accelerator = AcceleratorEngine(open_standin(), image, GEOMETRY)
    engine: Engine = accelerator
    assert engine.geometry is GEOMETRY
    first = engine.step(5)
    assert first.sampled == _u32(total + 5)
    assert first.logits is None
    assert first.counters["read_beats"] == BEATS
    assert first.counters["cycles"] > BEATS
    assert set(first.counters) == {"cycles", "read_beats", "saturations"}
    stalls = accelerator.stalls()
    assert stalls.pop(Stall.MEMORY) == accelerator.transport.read_register("STALL_MEMORY") > 0
    assert set(stalls.values()) == {0}  # the stand-in has no other
    second = engine.step(np.int64(6), logits=True)
    assert second.sampled == _u32(2 * total + 11)  # the state was carried
    np.testing.assert_array_equal(
        second.logits.view(np.uint32), np.arange(64, dtype=np.uint32) + np.uint32(second.sampled)
    )
    assert second.logits.dtype == np.int32
    engine.reset()
    assert engine.step(5).sampled == first.sampled
    engine.close()
    with pytest.raises(DeviceError, match="closed"):
        engine.step(5)


def test_loading_reports_progress(open_standin, image):
    big = replace(image, segments=[*image.segments, (0x10_0000, bytes(CHUNK + 5))])
    sizes = []
    transport = open_standin()
    AcceleratorEngine(transport, big, GEOMETRY, progress=sizes.append)
    assert sizes == [BEATS * 16, 4, CHUNK, 5]
    for address, contents in big.segments:
        assert transport.read_memory(address, len(contents)) == contents


@pytest.mark.parametrize("token", [-1, 64, 1 << 40])
def test_token_outside_the_vocabulary_starts_nothing(open_standin, image, token, total):
    engine = AcceleratorEngine(open_standin(), image, GEOMETRY)
    before = engine.transport.read_register("TOKENS")
    with pytest.raises(SternaError, match=f"token id {token} is outside the vocabulary of 64"):
        engine.step(token)
    assert engine.transport.read_register("TOKENS") == before
    assert engine.step(0).sampled == total  # and does no harm


@pytest.mark.parametrize("cause", [ErrorCause.BUS_READ, ErrorCause.BUS_WRITE])
def test_error_names_the_cause_and_reset_recovers(open_standin, image, total, cause):
    engine = AcceleratorEngine(open_standin(), image, GEOMETRY)
    transport = engine.transport
    engine.step(1)
    if cause is ErrorCause.BUS_READ:
        transport.fail_reads(range(0x8000 + 64 * 16, 0x8000 + 65 * 16))
    else:
        transport.fail_writes(range(0x2_0000, 0x2_0010))
    with pytest.raises(DeviceError, match=rf"token 2: {ERROR_TEXT[cause]} \({cause.name}\)"):
        engine.step(2, logits=True)
    transport.fail_reads(None)
    transport.fail_writes(None)
    with pytest.raises(DeviceError, match="reset"):
        engine.step(2)
    engine.reset()
    assert engine.step(3).sampled == _u32(total + 3)


def test_time_out_and_recovery(open_standin, image, total):
    engine = AcceleratorEngine(open_standin(quiet_limit=2000), image, GEOMETRY)
    engine.transport.write_register("EMBED_BEATS", Bug.HANG)
    with pytest.raises(DeviceError, match="time-out"):
        engine.step(1)
    engine.reset()  # CONTROL.RESET is enough; the addresses are written again
    assert engine.step(1).sampled == _u32(total + 1)


def test_recovery_in_the_middle_of_a_token(open_standin, image, total):
    """Bursts are in flight when the token is abandoned."""
    transport = open_standin()
    engine = AcceleratorEngine(transport, image, GEOMETRY, timeout=0.5)
    transport.write_register("PROGRAM_BEATS", 1 << 30)
    with pytest.raises(DeviceError, match="time-out"):
        engine.step(1)
    engine.reset()
    assert engine.step(1).sampled == _u32(total + 1)


def test_protocol_error_recovers_through_the_reset_pin(open_standin, image, total):
    engine = AcceleratorEngine(open_standin(), image, GEOMETRY)
    engine.transport.write_register("EMBED_BEATS", Bug.FIXED_BURST)
    with pytest.raises(DeviceError, match="not INCR"):
        engine.step(1)
    engine.reset()
    assert engine.step(1).sampled == _u32(total + 1)


def test_configuration_mismatch_names_both(config, standin_verilog, image):
    from sterna_sim.transport import VerilatorTransport

    other = replace(config, name="other", tile_rows=64)
    transport = VerilatorTransport(other, verilog=standin_verilog)
    with pytest.raises(DeviceError, match=rf"0x{config.hash:08X}.*0x{other.hash:08X} \(other\)"):
        AcceleratorEngine(transport, image, GEOMETRY)
    with pytest.raises(DeviceError, match="closed"):
        transport.read_register("MAGIC")


@pytest.mark.parametrize(
    ("register", "value", "text"), [("MAGIC", 0, "MAGIC"), ("VERSION", VERSION + (1 << 16), r"version 4\.0.*3\.0")]
)
def test_foreign_devices_are_refused(open_standin, image, monkeypatch, register, value, text):
    transport = open_standin()
    read = transport.read_register
    monkeypatch.setattr(transport, "read_register", lambda name: value if name == register else read(name))
    with pytest.raises(DeviceError, match=text):
        AcceleratorEngine(transport, image, GEOMETRY)


def test_unknown_error_cause(open_standin, image, monkeypatch):
    engine = AcceleratorEngine(open_standin(), image, GEOMETRY)
    transport = engine.transport
    transport.fail_reads(range(0, 1 << 20))
    read = transport.read_register
    monkeypatch.setattr(transport, "read_register", lambda name: 99 if name == "ERROR_CAUSE" else read(name))
    with pytest.raises(DeviceError, match="unknown error cause 99"):
        engine.step(0)


def test_control_bits(open_standin, image, monkeypatch):
    engine = AcceleratorEngine(open_standin(), image, GEOMETRY)
    transport = engine.transport
    written = []
    write = transport.write_register

    def record(name, value):
        if name == "CONTROL":
            written.append(Control(value))
        write(name, value)

    monkeypatch.setattr(transport, "write_register", record)
    engine.step(0)
    engine.step(0, logits=True)
    engine.reset()
    engine.step(0)
    fresh = Control.START | Control.FRESH
    assert written == [fresh, Control.START | Control.LOGITS, fresh]
