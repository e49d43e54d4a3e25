"""The C++ harness against the stand-in: cycles to the exact number, injected errors, broken protocol, time-outs."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from standin import Bug

from sterna.errors import DeviceError, SternaError
from sterna.spec.registers import Control, ErrorCause, Status
from sterna_sim.memory import MemoryModel

ENDED = Status.DONE | Status.ERROR
PROGRAM, LOGITS, VOCABULARY = 0x4000, 0x20_0000, 256


def start(transport, *, beats=256, address=PROGRAM, bug=Bug.NONE, control=Control.START | Control.FRESH, token=0):
    values = {
        "PROGRAM_ADDRESS": address,
        "PROGRAM_BEATS": beats,
        "EMBED_BEATS": bug,
        "VOCABULARY": VOCABULARY,
        "LOGITS_ADDRESS": LOGITS,
        "TOKEN": token,
        "CONTROL": control,
    }
    for name, value in values.items():
        transport.write_register(name, value)


def fill(transport, beats, *, seed=1):
    """Random beats at PROGRAM; returns their low words."""
    data = random.Random(seed).randbytes(beats * transport.config.beat_bytes)
    transport.write_memory(PROGRAM, data)
    return np.frombuffer(data, "<u4").reshape(beats, -1)[:, 0]


def run(transport, **options):
    start(transport, **options)
    status = transport.wait(ENDED)
    assert status == Status.DONE
    return transport.read_register("CYCLES")


def test_reads_every_beat_in_order(open_standin):
    transport = open_standin()
    words = fill(transport, 1000)
    run(transport, beats=1000)
    assert transport.read_register("SAMPLED") == int(words.sum(dtype=np.uint32))
    trace = transport.take_trace()
    assert trace.dtype == np.int32
    np.testing.assert_array_equal(trace, (words.astype(np.uint32) << 8).view(np.int32) >> 8)
    assert len(transport.take_trace()) == 0
    run(transport, beats=3)
    run(transport, beats=2)
    assert len(transport.take_trace()) == 2  # START forgets the trace of the token before


def test_traffic_is_counted(open_standin):
    transport = open_standin()
    run(transport, beats=300, control=Control.START | Control.LOGITS)
    traffic = transport.traffic
    burst = transport.config.burst_beats
    assert (traffic.read_bursts, traffic.read_beats) == (-(-300 // burst), 300)
    assert (traffic.write_bursts, traffic.write_beats) == (4, VOCABULARY * 4 // transport.config.beat_bytes)
    assert transport.read_register("READ_BEATS") == 300


# Cycles of the stand-in's own between START and DONE: one before it asks, one to notice the last beat, one in END.
# Latency counts from the cycle of the address handshake.
OWN_CYCLES = 3


@pytest.mark.parametrize("latency", [1, 2, 24, 100])
@pytest.mark.parametrize("beats", [1, 64, 1000])
def test_latency_and_full_rate_are_exact(open_standin, latency, beats):
    transport = open_standin(memory=MemoryModel(latency=latency))
    assert run(transport, beats=beats) == OWN_CYCLES + latency + beats
    assert transport.read_register("STALL_MEMORY") == OWN_CYCLES + latency - 2


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 2), (2, 3), (7, 16), (127, 128)])
def test_rate_is_exact(open_standin, numerator, denominator):
    beats = 1024
    memory = MemoryModel(latency=24, beats_numerator=numerator, beats_denominator=denominator)
    transport = open_standin(memory=memory)
    cycles = run(transport, beats=beats)
    # The first beat is ready by the time the latency is over; each of the others waits its turn.
    spacing = Fraction(beats - 1) / memory.peak
    assert OWN_CYCLES + 24 + 1 + spacing - 1 <= cycles <= OWN_CYCLES + 24 + 1 + spacing + 1
    assert memory.peak_bytes(16) == 16 * numerator / denominator


def test_refresh_takes_its_share(open_standin):
    memory = MemoryModel(refresh_interval=100, refresh_cycles=7)
    beats = 9300
    cycles = run(open_standin(memory=memory), beats=beats)
    assert memory.peak == Fraction(93, 100)
    assert abs(cycles - (beats / memory.peak + OWN_CYCLES + 24)) <= 14


def test_stalls_slow_down_and_change_nothing_else(open_standin):
    results = {}
    for stall, seed in ((0.0, 1), (0.3, 1), (0.3, 1), (0.3, 2)):
        transport = open_standin(memory=MemoryModel(stall=stall, seed=seed))
        fill(transport, 2000)
        cycles = run(transport, beats=2000, control=Control.START | Control.LOGITS | Control.FRESH)
        outcome = (transport.read_register("SAMPLED"), transport.read_memory(LOGITS, 4 * VOCABULARY))
        results.setdefault(outcome, []).append(cycles)
    (cycles,) = results.values()
    assert cycles[1] == cycles[2] != cycles[3]  # the seed decides
    # A beat is presented with probability 0.7 a cycle.
    assert 0.95 < cycles[1] / (cycles[0] / 0.7) < 1.05


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_writes(open_standin, stall):
    transport = open_standin(memory=MemoryModel(stall=stall))
    transport.write_memory(LOGITS - 16, b"\xee" * (4 * VOCABULARY + 32))
    run(transport, beats=1, control=Control.START | Control.LOGITS, token=7)
    sampled = transport.read_register("SAMPLED")
    expected = np.arange(sampled, sampled + VOCABULARY, dtype="<u4").tobytes()
    assert transport.read_memory(LOGITS - 16, 4 * VOCABULARY + 32) == b"\xee" * 16 + expected + b"\xee" * 16


def test_write_rate_and_latency(open_standin):
    """A write burst of 16 beats costs its beats at the rate, the latency of its response, and a few own cycles."""
    bursts = VOCABULARY * 4 // 16 // 16
    base = run(open_standin(memory=MemoryModel(latency=10)), beats=1, control=Control.START | Control.LOGITS)
    slow = run(open_standin(memory=MemoryModel(latency=30)), beats=1, control=Control.START | Control.LOGITS)
    assert slow - base == 20 * (bursts + 1)  # each burst, and the one read
    half = MemoryModel(latency=10, beats_denominator=2)
    halved = run(open_standin(memory=half), beats=1, control=Control.START | Control.LOGITS)
    assert halved - base == 15 * bursts


def test_read_error_is_answered_and_clears(open_standin):
    transport = open_standin()
    beat = transport.config.beat_bytes
    transport.fail_reads(range(PROGRAM + 100 * beat, PROGRAM + 101 * beat))
    start(transport, beats=100)
    assert transport.wait(ENDED) == Status.DONE  # ends just before
    start(transport, beats=101)
    assert transport.wait(ENDED) == Status.ERROR
    assert transport.read_register("ERROR_CAUSE") == ErrorCause.BUS_READ
    transport.fail_reads(None)
    transport.write_register("CONTROL", Control.RESET)
    run(transport, beats=101)


def test_write_error_is_answered_and_stores_nothing(open_standin):
    transport = open_standin()
    transport.write_memory(LOGITS, b"\xee" * 4 * VOCABULARY)
    transport.fail_writes(range(LOGITS + 64, LOGITS + 80))
    start(transport, control=Control.START | Control.LOGITS)
    assert transport.wait(ENDED) == Status.ERROR
    assert transport.read_register("ERROR_CAUSE") == ErrorCause.BUS_WRITE
    assert transport.read_memory(LOGITS + 64, 16) == b"\xee" * 16
    assert transport.read_memory(LOGITS + 48, 16) != b"\xee" * 16


def test_reading_outside_memory_is_a_bus_error(open_standin):
    transport = open_standin(memory=MemoryModel(size=1 << 20))
    start(transport, address=(1 << 20) - 4096, beats=4096 // 16)
    assert transport.wait(ENDED) == Status.DONE
    start(transport, address=1 << 20, beats=1)
    assert transport.wait(ENDED) == Status.ERROR
    with pytest.raises(DeviceError, match="outside the simulated memory"):
        transport.read_memory((1 << 20) - 1, 2)


@pytest.mark.parametrize(
    ("bug", "text"),
    [
        (Bug.CROSS_4K, "AR burst of 64 beats at 0x4f80 crosses a 4 KiB boundary"),
        (Bug.DROP_AR, "AR changed or dropped before it was accepted"),
        (Bug.MISALIGNED, "AR address 0x4f81 is not aligned"),
        (Bug.FIXED_BURST, "AR burst type 0 is not INCR"),
        (Bug.NARROW, "AR size 3 is not the beat of 16 bytes"),
        (Bug.CHANGE_W, "W changed or dropped before it was accepted"),
        (Bug.EARLY_WLAST, "WLAST is 1 with 15 beats of the burst to come"),
    ],
)
def test_broken_protocol_is_reported(open_standin, bug, text):
    transport = open_standin(memory=MemoryModel(stall=0.5, seed=5))
    options = {"address": PROGRAM + 0xF80, "beats": 256, "control": Control.START | Control.LOGITS}
    with pytest.raises(DeviceError, match=rf"cycle \d+: {text}"):
        start(transport, bug=bug, **options)
        transport.wait(ENDED)
    with pytest.raises(DeviceError, match=text):  # it stays until reset
        transport.read_register("STATUS")
    transport.reset()
    run(transport, **options)


class TestTimeouts:
    def test_quiet_memory_port(self, open_standin):
        transport = open_standin(quiet_limit=1000)
        start(transport, bug=Bug.HANG)
        with pytest.raises(DeviceError, match=r"time-out.*nothing passed the memory port for 1000 cycles.*BUSY"):
            transport.wait(ENDED)
        transport.reset()
        run(transport)

    def test_cycles(self, open_standin):
        transport = open_standin(cycle_limit=5000)
        start(transport, beats=100_000)
        with pytest.raises(DeviceError, match=r"time-out.*the limit is 5000 cycles"):
            transport.wait(ENDED)

    def test_wall_seconds(self, open_standin):
        transport = open_standin()
        start(transport, beats=50_000_000, address=0)
        with pytest.raises(DeviceError, match=r"time-out.*the limit is 0\.1 s"):
            transport.wait(ENDED, timeout=0.1)


def test_two_devices_at_once(open_standin):
    first, second = open_standin(), open_standin()
    first.write_memory(PROGRAM, b"\x01" * 16)
    second.write_memory(PROGRAM, b"\x02" * 16)
    run(first, beats=1)
    run(second, beats=1)
    assert first.read_register("SAMPLED") == 0x01010101
    assert second.read_register("SAMPLED") == 0x02020202


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"latency": 0}, "latency"),
        ({"beats_numerator": 3, "beats_denominator": 2}, "beats_numerator"),
        ({"stall": 1.0}, "stall"),
        ({"refresh_interval": 10, "refresh_cycles": 10}, "refresh"),
        ({"size": 100}, "size"),
    ],
)
def test_memory_model_is_checked(options, text):
    with pytest.raises(SternaError, match=text):
        MemoryModel(**options)
