"""Memories whose controllers open rows ahead: rates against published ones, times, order, data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sterna.errors import SternaError
from sterna_sim.banked import HBM2, HBM32, ZYNQ_DDR4, BankedModel
from sterna_sim.memory import MODELS
from sterna_sim.traffic import Bursts, Traffic

BEATS = 1 << 17
# Wang et al., "Benchmarking High Bandwidth Memory on FPGAs" (arXiv 2005.04324): 425 GB/s of the 460.8 that 32 ports of
# HBM have at their pins, 18 GB/s of 19.2 of a DDR4-2400 of 64 bits, both read in sequence on an Alveo U280.
PUBLISHED = {"hbm": 425 / 460.8, "hbm32": 425 / 460.8, "zynq-ddr4": 18 / 19.2}


def sequential(model: BankedModel, beats: int = BEATS) -> Bursts:
    return Bursts.sequential(beats, burst=min(64, beats, 4096 // model.port_bytes), port_bytes=model.port_bytes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_rates_are_the_stated_ones_and_near_published_ones(name):
    model = MODELS[name]
    assert isinstance(model, BankedModel)
    rate = Traffic(name).run(sequential(model)).bytes_per_cycle
    assert model.ports * rate == pytest.approx(model.peak_bytes(model.port_bytes, model.ports), rel=1e-3)
    assert rate / model.port_bytes == pytest.approx(PUBLISHED[name], rel=0.02)
    places = Bursts.random(BEATS // 8, burst=1, port_bytes=model.port_bytes)
    assert Traffic(name).run(places).bytes_per_cycle / model.port_bytes == pytest.approx(model.random, rel=0.01)


@pytest.mark.parametrize("model", [ZYNQ_DDR4, HBM2], ids=["zynq-ddr4", "hbm"])
def test_what_takes_time(model):
    """Latency and opening of the first beat, refreshes and nothing else in a stream, a row after a row of one bank."""
    cycles = model.cycles()
    first = Traffic(model).run(sequential(model, 1))
    assert first.reads[0] == pytest.approx(cycles["latency"] + cycles["trrd"] + cycles["trcd"], abs=2)
    quiet = dataclasses.replace(model, trefi=1e6)
    run = Traffic(quiet).run(sequential(model, 4096))
    assert run.cycles <= 4096 + first.reads[0] + 4
    span = model.interleave_bytes * model.banks * model.channels
    same_bank = Bursts(np.arange(512, dtype=np.uint32) * np.uint32(span), np.ones(512, np.uint16))
    gaps = np.diff(Traffic(quiet).run(same_bank).reads.astype(np.int64))
    row_cycle = max(cycles["tras"], cycles["trcd"] + cycles["read_recovery"]) + cycles["trp"]
    assert set(gaps) == {row_cycle}


def test_refreshes_take_their_share():
    share = {}
    for trfc in (0.1, 350, 700):
        model = dataclasses.replace(ZYNQ_DDR4, trfc=trfc)
        share[trfc] = 1 - Traffic(model).run(sequential(model)).bytes_per_cycle / 64
    assert share[350] - share[0.1] == pytest.approx(350 / 7800, rel=0.03)
    assert share[700] - share[0.1] == pytest.approx(700 / 7800, rel=0.03)


def test_channels_out_of_step_lose_little_more_than_one_alone():
    """Each refreshes on its own; requests in flight cover the difference."""
    one = dataclasses.replace(HBM2, channels=1)
    alone = Traffic(one).run(sequential(one)).bytes_per_cycle / one.port_bytes
    both = Traffic(HBM2).run(sequential(HBM2)).bytes_per_cycle / HBM2.port_bytes
    assert 0.995 * alone < both <= alone + 1e-3
    shallow = dataclasses.replace(HBM2, beats_in_flight=32)
    assert Traffic(shallow).run(sequential(HBM2)).bytes_per_cycle / HBM2.port_bytes < 0.95 * alone


def test_ports_refresh_out_of_step():
    """Each has the same rate, and its refreshes a 32nd of the interval after those of the port before.

    A burst's times are known when it is accepted, so a pause is seen up to a burst late.
    """
    reads = sequential(HBM32, 1 << 14)
    interval = HBM32.cycles()["refresh_interval"]
    first, ports = [], (0, 8, 16, 24)
    for port in ports:
        beats = Traffic(HBM32, port=port).run(reads).reads.astype(np.int64)
        pauses = np.nonzero(np.diff(beats) > 20)[0]
        np.testing.assert_allclose(np.diff(beats[pauses]), interval, atol=64)
        assert len(beats) / beats[-1] == pytest.approx(HBM32.sequential, rel=0.01)
        first.append(int(beats[pauses[0]]))
    np.testing.assert_allclose(first, [first[0] + port * interval // 32 for port in ports], atol=64)


def test_a_slower_channel_sets_the_rate():
    slow = dataclasses.replace(ZYNQ_DDR4, channel_rate=12_800_000_000)
    assert Traffic(slow).run(sequential(slow)).bytes_per_cycle / 64 == pytest.approx(2 / 3 * 0.955, rel=0.01)
    with pytest.raises(SternaError, match="its part of the port takes 19200000000"):
        dataclasses.replace(ZYNQ_DDR4, channel_rate=20_000_000_000)


@pytest.mark.parametrize("model", [ZYNQ_DDR4, HBM2], ids=["zynq-ddr4", "hbm"])
def test_data_is_what_memory_holds(model):
    rng = np.random.default_rng(3)
    traffic = Traffic(model)
    written = rng.integers(0, 256, (256, model.port_bytes), np.uint8)
    writes = Bursts.sequential(256, burst=16, start=1 << 20, port_bytes=model.port_bytes)
    reads = Bursts.sequential(512, burst=16, port_bytes=model.port_bytes)
    before = traffic.contents[: 512 * model.port_bytes].copy()
    run = traffic.run(reads, writes, data=written)
    np.testing.assert_array_equal(run.data.reshape(-1), before)
    assert np.all(np.diff(run.reads.astype(np.int64)) > 0)
    found = traffic.contents[1 << 20 : (1 << 20) + written.size]
    np.testing.assert_array_equal(found, written.reshape(-1))


def test_the_port_must_fit():
    with pytest.raises(SternaError, match="a port of 64 bytes, the accelerator one of 16"):
        ZYNQ_DDR4.peak_bytes(16)
