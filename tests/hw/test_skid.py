"""The register in a stream: order, rate, and that nothing passes through it in a cycle."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from sterna_hw.link.skid import Skid


def simulate(bench: Any) -> None:
    skid = Skid(8)
    simulator = Simulator(skid)
    simulator.add_clock(1e-8)

    async def run(ctx: Any) -> None:
        await bench(ctx, skid)

    simulator.add_testbench(run)
    simulator.run()


@pytest.mark.parametrize(("offers", "takes"), [(1, 1), (1, 0.4), (0.4, 1), (0.6, 0.6)])
def test_everything_leaves_once_and_in_order(offers: float, takes: float) -> None:
    rng = random.Random(f"{offers} {takes}")
    sent = [rng.randrange(256) for _ in range(400)]

    async def bench(ctx: Any, skid: Skid) -> None:
        i, o = skid.i, skid.o
        left, received, offered = list(sent), [], None
        cycles = 0
        while len(received) < len(sent):
            if not ctx.get(i.valid) and left and rng.random() < offers:
                ctx.set(i.valid, 1)
                ctx.set(i.payload, left[0])
            ctx.set(o.ready, rng.random() < takes)
            if ctx.get(o.valid):
                assert offered is None or ctx.get(o.payload) == offered, "an offered payload has changed"
                offered = None if ctx.get(o.ready) else ctx.get(o.payload)
                if ctx.get(o.ready):
                    received.append(ctx.get(o.payload))
            else:
                assert offered is None, "an offer was withdrawn"
            taken = ctx.get(i.valid) and ctx.get(i.ready)
            await ctx.tick()
            if taken:
                left.pop(0)
                ctx.set(i.valid, 0)
                if left and offers == 1:
                    ctx.set(i.valid, 1)
                    ctx.set(i.payload, left[0])
            cycles += 1
        assert received == sent
        if offers == takes == 1:
            assert cycles == len(sent) + 1

    simulate(bench)


def test_two_are_held_and_nothing_passes_through() -> None:
    async def bench(ctx: Any, skid: Skid) -> None:
        i, o = skid.i, skid.o
        ctx.set(i.valid, 1)
        assert ctx.get(i.ready) and not ctx.get(o.valid)
        for held in (1, 2):
            ctx.set(i.payload, held)
            await ctx.tick()
            assert ctx.get(o.valid) and ctx.get(o.payload) == 1 and ctx.get(i.ready) == (held < 2)
        for ready in (0, 1):
            ctx.set(o.ready, ready)
            assert not ctx.get(i.ready)
        await ctx.tick()
        assert ctx.get(o.payload) == 2 and ctx.get(i.ready)

    simulate(bench)
