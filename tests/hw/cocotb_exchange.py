"""Bench of ``Exchange``: random offers of every cluster, each agreed once and by all, and rows from shares."""

from __future__ import annotations

import os
import random
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from streams import cycle, seeded, start

from sterna.spec import numerics
from sterna.spec.config import PRESETS
from sterna_hw.exchange import GATHER_LATENCY, agreement_latency

CONFIG = PRESETS[os.environ.get("STERNA_CONFIG", "sim-tiny-c4")]
COUNT, WIDTH = CONFIG.clusters, CONFIG.vector_width
SQUARES = numerics.SQUARES_WIDTH
MASK = (1 << SQUARES) - 1
ROUNDS = 60


class Cluster:
    """What a cluster does with its ports: offers, waits, and takes the offer back a cycle after the agreement."""

    def __init__(self, dut: Any, number: int, rng: random.Random) -> None:
        self._dut, self._prefix, self._rng = dut, f"clusters__{number}", rng
        self.agreed: list[tuple[int, int, int, int]] = []  # cycle, S1, S2, largest
        self.offered: list[tuple[int, int, int, int]] = []  # the same, of its own

    def pin(self, name: str) -> Any:
        return getattr(self._dut, f"{self._prefix}__{name}")

    def value(self, bits: int) -> int:
        """Of any size, so that each cluster is the largest in turn and sums wrap."""
        return self._rng.choice([0, (1 << bits) - 1, self._rng.getrandbits(self._rng.randint(1, bits))])

    async def run(self, pause: int) -> None:
        """``ROUNDS`` offers, each after a random pause of at least the cycle in which the last one is taken back."""
        edge = RisingEdge(self._dut.clk)
        for _ in range(ROUNDS):
            self.pin("offer_valid").value = 0
            for _ in range(self._rng.randint(1, pause)):
                await edge
                assert not int(self.pin("agreed_valid").value), "an agreement without an offer"
            s1, s2, top = self.value(SQUARES), self.value(SQUARES), self.value(numerics.PRODUCT_BITS)
            self.pin("offer_valid").value = 1
            self.pin("offer_sums").value = s1 | s2 << SQUARES
            self.pin("offer_top").value = top
            self.offered.append((cycle(), s1, s2, top))
            await edge
            while not int(self.pin("agreed_valid").value):
                await edge
            sums = int(self.pin("agreed_sums").value)
            self.agreed.append((cycle(), sums & MASK, sums >> SQUARES, int(self.pin("agreed_top").value)))
        self.pin("offer_valid").value = 0
        for _ in range(3 * agreement_latency(COUNT)):
            await edge
            assert not int(self.pin("agreed_valid").value), "an agreement after the last offer"


def idle(dut: Any) -> list[Cluster]:
    clusters = [Cluster(dut, number, seeded(dut, number)) for number in range(COUNT)]
    for cluster in clusters:
        cluster.pin("offer_valid").value = cluster.pin("share__enable").value = 0
    return clusters


@cocotb.test()
@cocotb.parametrize(pause=[1, 3, 40])
async def each_offer_is_agreed_once(dut: Any, pause: int) -> None:
    clusters = idle(dut)
    await start(dut)
    tasks = [cocotb.start_soon(cluster.run(pause)) for cluster in clusters]
    for task in tasks:
        await task
    for number in range(ROUNDS):
        offers = [cluster.offered[number] for cluster in clusters]
        last, *_ = max(offers)
        s1, s2 = (sum(offer[place] for offer in offers) & MASK for place in (1, 2))
        wanted = (last + 1 + agreement_latency(COUNT), s1, s2, max(offer[3] for offer in offers))
        assert {cluster.agreed[number] for cluster in clusters} == {wanted}, f"round {number}"


@cocotb.test()
async def an_offer_withdrawn_by_a_reset_leaves_nothing(dut: Any) -> None:
    """Clusters are reset one after the other while some wait; then all make new offers."""
    clusters = idle(dut)
    await start(dut)
    rng, edge = seeded(dut, "reset"), RisingEdge(dut.clk)
    for _ in range(10):
        waiting = rng.sample(clusters, rng.randint(1, COUNT - 1))
        for cluster in waiting:
            cluster.pin("offer_valid").value = 1
            cluster.pin("offer_sums").value = cluster.pin("offer_top").value = (1 << 39) - 1
        for _ in range(rng.randint(1, 12)):
            await edge
        for cluster in waiting:
            cluster.pin("offer_valid").value = 0
            for _ in range(rng.randint(0, 2)):
                await edge
                assert not int(clusters[0].pin("agreed_valid").value)
        for value, cluster in enumerate(clusters):
            cluster.pin("offer_valid").value = 1
            cluster.pin("offer_sums").value = cluster.pin("offer_top").value = value
        await edge
        while not int(clusters[0].pin("agreed_valid").value):
            await edge
        assert int(clusters[-1].pin("agreed_sums").value) == COUNT * (COUNT - 1) // 2
        assert int(clusters[-1].pin("agreed_top").value) == COUNT - 1
        for cluster in clusters:
            cluster.pin("offer_valid").value = 0
        await edge


@cocotb.test()
async def shares_become_whole_rows(dut: Any) -> None:
    clusters = idle(dut)
    await start(dut)
    rng, edge = seeded(dut, "shares"), RisingEdge(dut.clk)
    rows = CONFIG.activation_depth // CONFIG.word_bytes
    sent: list[tuple[int, int] | None] = []
    for _ in range(400):
        await edge
        expected = sent[-1 - GATHER_LATENCY] if len(sent) > GATHER_LATENCY else None
        for cluster in clusters:
            assert int(cluster.pin("gathered__enable").value) == (expected is not None)
            if expected:
                found = int(cluster.pin("gathered__address").value), int(cluster.pin("gathered__data").value)
                assert found == expected
        shares, address = [rng.getrandbits(8 * WIDTH) for _ in clusters], rng.randrange(rows)
        enable = rng.random() < 0.6
        for cluster, share in zip(clusters, shares, strict=True):
            cluster.pin("share__enable").value = enable
            cluster.pin("share__address").value = address
            cluster.pin("share__data").value = share
        row = sum(share << 8 * WIDTH * number for number, share in enumerate(shares))
        sent.append((address, row) if enable else None)
