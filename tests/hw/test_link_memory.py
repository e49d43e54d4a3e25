"""The memory port's bookkeeping, cycle by cycle in Amaranth's simulator: who may use it, and how much is under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth.sim import Simulator

from sterna_hw.link.memory_mux import MemoryMux
from sterna_hw.link.ports import MAX_UNANSWERED, MemoryPort


def run(component: Any, bench: Callable[..., Any]) -> None:
    simulator = Simulator(component)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()


def test_memory_is_free_when_the_last_burst_has_ended() -> None:
    mux = MemoryMux(address_width=32, data_bytes=16)
    accelerator, bus = mux.accelerator, mux.bus

    async def bench(ctx: Any) -> None:
        async def pulse(*signals: Any) -> None:
            for signal in signals:
                ctx.set(signal, 1)
            await ctx.tick()
            for signal in signals:
                ctx.set(signal, 0)

        def free() -> bool:
            return bool(ctx.get(mux.free))

        ctx.set(bus.arready, 1)
        ctx.set(bus.awready, 1)
        assert free()
        ctx.set(accelerator.rready, 1)
        ctx.set(accelerator.bready, 1)
        ctx.set(accelerator.arvalid, 1)
        assert not free(), "an address is offered"
        ctx.set(accelerator.arvalid, 0)
        await pulse(accelerator.arvalid)
        await pulse(accelerator.awvalid, accelerator.arvalid)
        await pulse(bus.rvalid)
        assert not free(), "not its last beat"
        await pulse(bus.rvalid, bus.rlast)
        assert not free(), "a read and a write are under way"
        await pulse(bus.bvalid)
        assert not free(), "a read is under way"
        await pulse(bus.rvalid, bus.rlast)
        assert free()

        ctx.set(mux.claimed, 1)  # what the host does is not counted, and the accelerator is kept out
        ctx.set(accelerator.arvalid, 1)
        await ctx.tick()
        assert not ctx.get(bus.arvalid) and not ctx.get(accelerator.arready)
        ctx.set(accelerator.arvalid, 0)
        await pulse(mux.host.arvalid)
        await pulse(mux.host.awvalid)
        assert free()

    run(mux, bench)


def test_writes_under_way_are_limited() -> None:
    port = MemoryPort(address_width=32, data_bytes=16)
    access, bus = port.access, port.bus

    async def bench(ctx: Any) -> None:
        for signal in (bus.awready, bus.wready, access.valid, access.write):
            ctx.set(signal, 1)
        accepted = 0
        for _ in range(6 * MAX_UNANSWERED):
            accepted += ctx.get(bus.awvalid)
            await ctx.tick()
        assert accepted == MAX_UNANSWERED
        ctx.set(access.valid, 0)
        for _ in range(MAX_UNANSWERED):
            assert not ctx.get(access.idle)
            ctx.set(bus.bvalid, 1)
            await ctx.tick()
        ctx.set(bus.bvalid, 0)
        assert ctx.get(access.idle)

    run(port, bench)
