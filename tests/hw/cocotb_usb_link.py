"""A USB link against a PHY and a host: enumeration, bytes both ways, faults, speed."""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import ClockCycles
from streams import Sink, Source, seeded
from ulpi_phy import now
from usb_bench import attached, enumerate_
from usb_host import MICROFRAME, UsbHost

from sterna.spec.link import USB_ENDPOINT as ENDPOINT
from sterna_hw.link.usb_descriptors import FULL_SPEED_PACKET, HIGH_SPEED_PACKET

DECISION = 14  # cycles that ULPI 1.1 allows a link to begin its answer at high speed
LEAST_RATE = 45  # MB/s


async def ready(dut: Any, *, high_speed: bool = True) -> UsbHost:
    """A device that was plugged in and reset by the host, with streams at rest."""
    for name in ("rx__ready", "tx__valid", "tx__payload"):
        getattr(dut, name).value = 0
    return await attached(dut, high_speed=high_speed)


@cocotb.test()
async def high_speed(dut: Any) -> None:
    host = await ready(dut)
    rng = seeded(dut, "bytes")
    await enumerate_(host)
    assert await host.take(ENDPOINT, most=HIGH_SPEED_PACKET) is None, "data of the device, which has none"
    sink = Sink(dut, "rx", stall=0.4, rng=rng)
    source = Source(dut, "tx", stall=0.1, rng=rng)
    for length in (1, 2, 3, 511, 512, 513, 2000):
        message, reply = rng.randbytes(length), rng.randbytes(length)
        source.send_all(reply)
        await host.write(ENDPOINT, message, packet=HIGH_SPEED_PACKET)
        packets = await host.read(ENDPOINT, length, packet=HIGH_SPEED_PACKET)
        assert b"".join(packets) == reply
        assert bytes((await sink.wait(length))[:length]) == message
        sink.received.clear()
        if length % HIGH_SPEED_PACKET == 0:  # the empty packet that ends the host's transfer
            await host.idle(200)
            assert await host.take(ENDPOINT, most=HIGH_SPEED_PACKET) == b""
    assert host.phy.decision <= DECISION, f"{host.phy.decision} cycles to answer"


@cocotb.test()
async def faults(dut: Any) -> None:
    """Damage on the bus is mended by the protocol: no byte is lost, none comes twice."""
    host = await ready(dut)
    rng = seeded(dut, "bytes")
    await enumerate_(host)
    sink, source = Sink(dut, "rx", stall=0.1, rng=rng), Source(dut, "tx", stall=0.1, rng=rng)
    sent, replies, got = b"", b"", b""
    for damage in ("data", "answer", "token", "in data", "in answer", "in token") * 2:
        message, reply = rng.randbytes(rng.randrange(1, 600)), rng.randbytes(rng.randrange(1, 600))
        sent, replies = sent + message, replies + reply
        source.send_all(reply)
        await host.idle(1_500)
        host.damage = None if damage.startswith("in ") else damage
        before = dict(host.answers)
        await host.write(ENDPOINT, message, packet=HIGH_SPEED_PACKET)
        if damage == "data":
            assert host.answers["silence"] == before.get("silence", 0) + 1, "an answer to a damaged packet"
        if damage.startswith("in "):
            host.damage = damage if damage == "in data" else damage[3:]
        got += b"".join(await host.read(ENDPOINT, len(reply), packet=HIGH_SPEED_PACKET))
        assert host.damage is None, f"{damage} did not happen"
        await host.idle(1_500)
        while (packet := await host.take(ENDPOINT, most=HIGH_SPEED_PACKET)) is not None:
            assert packet == b"", "more than was sent"
    assert got == replies
    await host.idle(3_000)
    assert bytes(sink.received) == sent
    assert host.answers["repeated"] == 2


async def nobody_reads(dut: Any) -> None:
    """The board sends more than any buffer holds to a host that is gone, and is not held up."""
    source = Source(dut, "tx", stall=0)
    source.send_all(bytes(5_000))
    await source.drain()
    source.cancel()


@cocotb.test()
async def anew(dut: Any) -> None:
    """A configuration that is set again, a bus reset, a pulled cable: each time both ways begin with DATA0."""
    host = await ready(dut)
    rng = seeded(dut, "bytes")
    await enumerate_(host)
    for again in ("configuration", "reset", "cable", None):
        sink, source = Sink(dut, "rx", stall=0, rng=rng), Source(dut, "tx", stall=0, rng=rng)
        message, reply = rng.randbytes(20), rng.randbytes(30)
        source.send_all(reply)
        await host.write(ENDPOINT, message, packet=HIGH_SPEED_PACKET)
        assert await host.read(ENDPOINT, len(reply), packet=HIGH_SPEED_PACKET) == [reply]
        assert bytes(await sink.wait(len(message))) == message
        source.cancel()
        sink.cancel()
        if again == "configuration":
            await host.set_configuration()
        elif again:
            if again == "cable":
                host.phy.unplug()
                await ClockCycles(dut.usb_clk, 1_000)
                await nobody_reads(dut)
                host.phy.plug()
                await ClockCycles(dut.usb_clk, 3_000)
            await host.reset()
            await nobody_reads(dut)
            await enumerate_(host)
            await host.idle(1_000)
            assert await host.take(ENDPOINT, most=HIGH_SPEED_PACKET) is None, "bytes from before"


@cocotb.test()
async def back_pressure(dut: Any) -> None:
    """What is not taken waits in the host: NAK, then PING until there is room, and nothing is lost."""
    host = await ready(dut)
    rng = seeded(dut, "bytes")
    await enumerate_(host)
    message = rng.randbytes(6_000)
    accepted = 0
    while await host.out(ENDPOINT, message[accepted : accepted + HIGH_SPEED_PACKET]):
        accepted += HIGH_SPEED_PACKET
    assert 2 * HIGH_SPEED_PACKET <= accepted < len(message)
    assert not await host.out(ENDPOINT, message[accepted : accepted + HIGH_SPEED_PACKET])
    assert host.answers["NAK"] == 1
    assert host.answers["PING NAK"] == 1
    sink = Sink(dut, "rx", stall=0.5, rng=rng)
    await host.write(ENDPOINT, message[accepted:], packet=HIGH_SPEED_PACKET)
    assert bytes(await sink.wait(len(message))) == message


@cocotb.test()
async def speed(dut: Any) -> None:
    """Bytes in a microframe both ways, with nothing in the way on the side of the system."""
    host = await ready(dut)
    rng = seeded(dut, "bytes")
    await enumerate_(host)
    sink = Sink(dut, "rx", stall=0, rng=rng)
    for direction in ("out", "in"):
        message = rng.randbytes(30 * HIGH_SPEED_PACKET)
        await host.idle(MICROFRAME)
        if direction == "in":
            source = Source(dut, "tx", stall=0, rng=rng)
            source.send_all(message)
            await host.idle(1_000)
        start = now()
        if direction == "out":
            await host.write(ENDPOINT, message, packet=HIGH_SPEED_PACKET)
            assert bytes(await sink.wait(len(message))) == message
            sink.cancel()
        else:
            assert b"".join(await host.read(ENDPOINT, len(message), packet=HIGH_SPEED_PACKET)) == message
        cycles = now() - start
        rate = len(message) / cycles * 60
        dut._log.info("%s: %.0f bytes a microframe, %.1f MB/s", direction, len(message) / cycles * MICROFRAME, rate)
        assert rate > LEAST_RATE
    assert "NAK" not in host.answers, host.answers


@cocotb.test()
async def full_speed(dut: Any) -> None:
    """At a host that does not chirp: endpoints of 64 bytes."""
    host = await ready(dut, high_speed=False)
    rng = seeded(dut, "bytes")
    await enumerate_(host)
    sink, source = Sink(dut, "rx", stall=0.3, rng=rng), Source(dut, "tx", stall=0.3, rng=rng)
    for length in (1, 63, 64, 128, 200):
        message, reply = rng.randbytes(length), rng.randbytes(length)
        source.send_all(reply)
        await host.write(ENDPOINT, message, packet=FULL_SPEED_PACKET)
        packets = await host.read(ENDPOINT, length, packet=FULL_SPEED_PACKET - 1)
        assert b"".join(packets) == reply
        assert bytes((await sink.wait(length))[:length]) == message
        sink.received.clear()
