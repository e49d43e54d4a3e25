"""Several memory ports: a memory and a window of the host's addresses for each, stalls of their own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amaranth.back import verilog
from standin import Bug, StandInClusters
from test_harness import ENDED, LOGITS, PROGRAM, VOCABULARY, start

from sterna.errors import DeviceError, SternaError
from sterna.spec.config import PRESETS
from sterna.spec.registers import Control, ErrorCause, Status
from sterna_sim.banked import HBM32
from sterna_sim.build import library
from sterna_sim.device import Device
from sterna_sim.memory import Ddr3Model, MemoryModel
from sterna_sim.native import memory_config
from sterna_sim.transport import VerilatorTransport

CONFIG = PRESETS["sim-tiny-c4"]
CLUSTERS, WINDOW = CONFIG.clusters, CONFIG.channel_bytes
BEATS = 300


@pytest.fixture(scope="module")
def text() -> str:
    return verilog.convert(StandInClusters(config=CONFIG), name="sterna", strip_internal_attrs=True)


@pytest.fixture
def open_clusters(text):
    opened = []

    def open_one(**options) -> VerilatorTransport:
        opened.append(VerilatorTransport(CONFIG, verilog=text, **options))
        return opened[-1]

    yield open_one
    for transport in opened:
        transport.close()


def fill(transport) -> np.ndarray:
    """Random words of a beat in the memory of each cluster, [clusters, beats]; the low word of each beat."""
    words = np.random.default_rng(1).integers(0, 1 << 32, (CLUSTERS, BEATS, CONFIG.beat_bytes // 4), np.uint32)
    for cluster in range(CLUSTERS):
        transport.write_memory(cluster * WINDOW + PROGRAM, words[cluster].tobytes())
    return words[..., 0]


@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_each_port_has_its_own_memory(open_clusters, stall):
    transport = open_clusters(memory=MemoryModel(stall=stall))
    words = fill(transport)
    start(transport, beats=BEATS, control=Control.START | Control.FRESH | Control.LOGITS)
    assert transport.wait(ENDED) == Status.DONE
    for cluster in range(CLUSTERS):
        np.testing.assert_array_equal(transport.take_trace(cluster), (words[cluster] << 8).view(np.int32) >> 8)
        total = words[cluster].sum(dtype=np.uint32)
        logits = np.frombuffer(transport.read_memory(cluster * WINDOW + LOGITS, 4 * VOCABULARY), "<u4")
        np.testing.assert_array_equal(logits, total + np.arange(VOCABULARY, dtype=np.uint32))
    traffic = transport.traffic
    assert traffic.read_beats == CLUSTERS * BEATS
    assert traffic.write_beats == CLUSTERS * VOCABULARY * 4 // CONFIG.beat_bytes


def test_ports_stall_out_of_step(open_clusters):
    """Each port alone would take about BEATS / 0.7 cycles; in step they would all end in the same one."""
    transport = open_clusters(memory=MemoryModel(stall=0.3, seed=2))
    fill(transport)
    start(transport, beats=BEATS)
    transport.run(BEATS // 2)
    read = [len(transport.take_trace(cluster)) for cluster in range(CLUSTERS)]
    assert min(read) > 0 and len(set(read)) > 1


def test_the_host_sees_a_window_for_each(open_clusters):
    transport = open_clusters(memory=MemoryModel(size=1 << 20))
    for cluster in range(CLUSTERS):
        transport.write_memory(cluster * WINDOW + (1 << 20) - 4, bytes([cluster] * 4))
    assert transport.read_memory(2 * WINDOW + (1 << 20) - 4, 4) == b"\2" * 4
    for address in (WINDOW + (1 << 20) - 3, WINDOW - 4, CLUSTERS * WINDOW, CLUSTERS * WINDOW - 4):
        with pytest.raises(DeviceError, match="outside the simulated memory"):
            transport.read_memory(address, 4)
        with pytest.raises(DeviceError, match="outside the simulated memory"):
            transport.write_memory(address, bytes(4))


@pytest.mark.parametrize("failing", [0, 2])
def test_an_error_is_of_one_window(open_clusters, failing):
    transport = open_clusters()
    first = failing * WINDOW + PROGRAM
    transport.fail_reads(range(first, first + CONFIG.beat_bytes))
    start(transport, beats=BEATS)
    assert Status.ERROR in transport.wait(ENDED)
    cause = ErrorCause(transport.read_register("ERROR_CAUSE"))  # the stand-in's of cluster 0
    assert cause == (ErrorCause.BUS_READ if failing == 0 else ErrorCause.NONE)
    transport.reset()
    transport.fail_reads(range(failing * WINDOW, failing * WINDOW + PROGRAM))  # nothing that is read
    start(transport, beats=BEATS)
    assert transport.wait(ENDED) == Status.DONE


def test_a_broken_rule_names_the_port(open_clusters):
    transport = open_clusters(memory=MemoryModel(stall=0.5, seed=5))
    with pytest.raises(DeviceError, match=r"cycle \d+, memory port [0-3]: AR changed or dropped"):
        start(transport, beats=BEATS, bug=Bug.DROP_AR)
        transport.wait(ENDED)


def test_memories_must_be_as_many_as_ports(text, open_clusters):
    with pytest.raises(SternaError, match="the DDR3 memory has one port, the accelerator 4"):
        open_clusters(memory=Ddr3Model())
    with pytest.raises(SternaError, match=r"this memory has ports: 32, the accelerator: 4"):
        HBM32.peak_bytes(64, CLUSTERS)
    with pytest.raises(DeviceError, match="built for 4 ports, not 3"):
        Device(library(text, ports=CLUSTERS), [memory_config(MemoryModel())] * 3, window=WINDOW)


def test_the_peak_is_that_of_all_ports():
    memory = MemoryModel(beats_numerator=1, beats_denominator=2)
    assert memory.peak_bytes(8, 4) == 4 * memory.peak_bytes(8) == 16
    assert dataclasses.replace(memory, stall=0.5).peak_bytes(8, 4) == 16
