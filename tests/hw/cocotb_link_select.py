"""Benches of LinkSelect: two hosts, and an endpoint that is played by the bench."""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from streams import Sink, Source, seeded, start

FLAG = 0x7E
STALL_CYCLES = 1 << 8


async def prepare(dut: Any) -> tuple[Any, list[Source], list[Sink], Source, Sink, list[int]]:
    """Both links, what the endpoint sends and receives, and after how many bytes it was told to restart."""
    rng = seeded(dut)
    dut.listening.value = 1
    links = [Source(dut, f"received{i}", 0.2, rng) for i in range(2)]
    replies = [Sink(dut, f"sent{i}", 0.2, rng, check=False) for i in range(2)]
    sent = Source(dut, "sent", 0.2, rng)
    received = Sink(dut, "received", 0.2, rng, check=False)
    restarts: list[int] = []
    await start(dut)

    async def watch() -> None:
        while True:
            await RisingEdge(dut.clk)
            if int(dut.restart.value):
                restarts.append(len(received.received))

    cocotb.start_soon(watch())
    return rng, links, replies, sent, received, restarts


async def settle(dut: Any) -> None:
    await ClockCycles(dut.clk, 60)


@cocotb.test()
async def takes_turns(dut: Any) -> None:
    """Frames of the one and of the other arrive whole, each answered where it came from."""
    rng, links, replies, sent, received, restarts = await prepare(dut)
    current, wanted, answers = 0, [], [[], []]
    for _ in range(40):
        link = rng.randrange(2)
        body = [rng.randrange(FLAG) for _ in range(rng.randint(1, 12))]
        frame = [FLAG, *body, FLAG]
        links[1 - current].send_all(rng.randrange(FLAG) for _ in range(rng.choice((0, 3))))  # noise
        await links[1 - current].drain()
        links[link].send_all(frame)
        await links[link].drain()
        await settle(dut)
        assert restarts == ([len(wanted)] if link != current else [])
        restarts.clear()
        wanted += frame
        current = link
        answer = [rng.randrange(256) for _ in range(5)]
        dut.listening.value = 0
        sent.send_all(answer)
        await sent.drain()
        await settle(dut)
        dut.listening.value = 1
        answers[link] += answer
        assert [sink.received for sink in replies] == answers
    assert received.received == wanted


@cocotb.test()
async def waits_for_the_reply(dut: Any) -> None:
    """While the endpoint is at work no byte is taken from any link, so the reply cannot go astray."""
    _, links, replies, sent, _, restarts = await prepare(dut)
    links[0].send_all([FLAG, 1, FLAG])
    await links[0].drain()
    await settle(dut)
    dut.listening.value = 0
    dut.received__ready.value = 0
    before = links[1].sent
    links[1].send_all([5, FLAG, 2, FLAG])
    sent.send_all([10, 11, 12])
    await sent.drain()
    await ClockCycles(dut.clk, 300)
    assert links[1].sent == before and not restarts
    assert replies[0].received == [10, 11, 12] and not replies[1].received
    dut.listening.value = 1
    await links[1].drain()
    assert len(restarts) == 1


@cocotb.test()
async def a_host_that_went_away(dut: Any) -> None:
    """A reply that no one takes is dropped after a while, and the next one goes its way."""
    rng, links, replies, sent, _, _ = await prepare(dut)
    replies[0].stall = 1.0
    dut.listening.value = 0
    sent.send_all(range(50))
    await ClockCycles(dut.clk, STALL_CYCLES // 2)
    assert sent.sent == 0
    await sent.drain(STALL_CYCLES * 4)
    await settle(dut)
    assert len(replies[0].received) <= 1
    dut.listening.value = 1
    links[1].send_all([FLAG, 1, FLAG])
    await links[1].drain()
    await settle(dut)
    dut.listening.value = 0
    sent.send_all([7, 8, 9])
    await settle(dut)
    assert replies[1].received == [7, 8, 9]

    # A link that is slow, but takes bytes, loses none.
    replies[1].stall = 0.9
    data = [rng.randrange(256) for _ in range(20)]
    sent.send_all(data)
    assert (await replies[1].wait(23))[3:] == data
