"""Benches of the link's Endpoint; sizes come from the environment (see test_link)."""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from link_endpoint_bench import BEAT, CORE_BYTES, PATIENCE, ROM, SCRATCH, SIZE, prepare
from link_host import (
    BAD_REQUEST,
    BOARD,
    BUS_ERROR,
    BUSY,
    CORE,
    DAMAGED,
    DESCRIPTION,
    DRAM,
    MEMORY,
    NOT_READY,
    OK,
    READ,
    SEQUENCE,
    WRITE,
    framed,
    request,
    stuffed,
)
from streams import cycle


@cocotb.test()
async def random_memory(dut: Any) -> None:
    """Reads and writes of any alignment and length, whatever stalls."""
    bench = await prepare(dut, 0.2)
    for _ in range(40):
        address, length = bench.place()
        if bench.rng.random() < 0.5:
            data = bench.payload(length)
            await bench.host.write(MEMORY, address, data)
            bench.shadow[address : address + length] = data
            assert int(dut.memory_free.value)
        else:
            assert await bench.host.read(MEMORY, address, length) == bench.shadow[address : address + length]
    bench.check_memory()


@cocotb.test()
async def rate(dut: Any) -> None:
    """A byte a cycle from the link, then a byte a cycle and two cycles a beat to the memory."""
    bench = await prepare(dut)
    host, data = bench.host, bytes(1024)
    for kind, limit in ((WRITE, 2 * 1024 + 4 * (1024 // BEAT) + 100), (READ, 2 * 1024 + 20 * (1024 // BEAT) + 100)):
        before = cycle()
        assert (await host.call(kind, MEMORY, 0, 1024, data if kind == WRITE else b""))[0] == OK
        dut._log.info("kind %d: %d cycles a KiB", kind, cycle() - before)
        assert cycle() - before < limit


@cocotb.test()
async def windows(dut: Any) -> None:
    """Sixteen requests sent at once are answered in order."""
    bench = await prepare(dut, 0.1)
    host = bench.host
    for kind in (WRITE, READ, WRITE):
        raw, wanted = b"", []
        for _ in range(16):
            address, length = bench.place()
            length = min(length, 64)
            data = bench.payload(length)
            raw += (
                stuffed(request(kind, MEMORY, host.sequence, length, address, data if kind == WRITE else b"")) + b"\x7e"
            )
            if kind == WRITE:
                bench.shadow[address : address + length] = data
            result = b"" if kind == WRITE else bytes(bench.shadow[address : address + length])
            wanted.append((OK, host.sequence, result))
            host.sequence = (host.sequence + 1) % 256
        host.send(raw)
        assert [await host.reply() for _ in wanted] == wanted
    bench.check_memory()


@cocotb.test()
async def registers(dut: Any) -> None:
    """Every register space, one and several registers at a time."""
    bench = await prepare(dut, 0.2)
    host, rng = bench.host, bench.rng
    core = bytearray(rng.randbytes(CORE_BYTES))
    bench.core.write(0, bytes(core))
    dram: dict[int, int] = {}
    order: list[tuple[int, int]] = []
    for _ in range(30):
        count = rng.choice((1, 1, 2, rng.randint(1, 20)))
        data = bench.payload(4 * count)
        offset = 4 * rng.randint(0, CORE_BYTES // 4 - count)
        if rng.random() < 0.5:
            await host.write(CORE, offset, data)
            core[offset : offset + len(data)] = data
        else:
            assert await host.read(CORE, offset, 4 * count) == core[offset : offset + 4 * count]
        base = rng.choice((0x800, 0xFFFF_FFFC // 4 - 40, 0x1000_0000)) + rng.randint(0, 10)
        if rng.random() < 0.5:
            await host.write(DRAM, 4 * base, data)
            written = [(base + i, int.from_bytes(data[4 * i : 4 * i + 4], "little")) for i in range(count)]
            dram.update(written)
            order += written
        else:
            wanted = b"".join(dram.get(base + i, 0).to_bytes(4, "little") for i in range(count))
            assert await host.read(DRAM, 4 * base, 4 * count) == wanted
        value = rng.getrandbits(32)
        await host.write_register(BOARD, SCRATCH, value)
        assert await host.read_register(BOARD, SCRATCH) == value
    assert not bench.claims, "the accelerator would lose the memory"
    assert bench.core.read(0, CORE_BYTES) == bytes(core)
    assert bench.wishbone.writes == order


@cocotb.test()
async def board(dut: Any) -> None:
    """The board's registers by the offsets of the specification, and the description."""
    bench = await prepare(dut)
    host, rng = bench.host, bench.rng
    words = [int.from_bytes((await host.read(BOARD, 4 * i, 4)), "little") for i in range(6)]
    assert words == [0x424E5253, 0x0001_0000, 0x4455_6677, 0x0011_2233, 0x89AB_CDEF, 0x0123_4567]
    for locked, ready, failed in ((0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1)):
        dut.memory_locked.value, dut.memory_ready.value, dut.memory_failed.value = locked, ready, failed
        await ClockCycles(dut.clk, 4)
        assert await host.read_register(BOARD, 24) == locked | ready << 1 | failed << 2
    overflows = rng.randint(3, 20)
    dut.overflow.value = 1
    await ClockCycles(dut.clk, overflows)
    dut.overflow.value = 0
    assert await host.read_register(BOARD, 32) == overflows
    first, before = await host.read_register(BOARD, 36), cycle()
    await ClockCycles(dut.clk, rng.randint(100, 1000))
    assert abs(await host.read_register(BOARD, 36) - first - (cycle() - before)) < 50

    whole = len(ROM).to_bytes(4, "little") + ROM + bytes(-len(ROM) % 4)
    got = b""
    while len(got) < len(whole):
        got += await host.read(DESCRIPTION, len(got), min(4 * rng.randint(1, 256), len(whole) - len(got)))
    assert got == whole


@cocotb.test()
async def refusals(dut: Any) -> None:
    """What cannot be done is not done, and the answer says why."""
    bench = await prepare(dut)
    host = bench.host
    data = bytes(range(1, 9))
    bench.core.write(0, bytes(CORE_BYTES))
    end = 4 + -(-len(ROM) // 4) * 4
    table = [
        *((kind, MEMORY, 0, 4, b"") for kind in (0, 3, 15)),
        *((READ, space, 0, 4, b"") for space in (5, 8, 15)),
        (0, BOARD, 0, 0, b""),
        *((READ, space, 0, 0, b"") for space in range(5)),
        *((WRITE, space, 0, 0, b"") for space in range(5)),
        (READ, MEMORY, 0, 1025, b""),
        (READ, MEMORY, 0, 0xFFFF, b""),
        *(
            (READ, space, address, length, b"")
            for space in (1, 2, 3, 4)
            for address, length in ((1, 4), (2, 4), (0, 6))
        ),
        *((WRITE, space, 1 << 32, 4, data[:4]) for space in (1, 2, 3, 4)),
        (WRITE, CORE, 2, 4, data[:4]),
        (READ, CORE, CORE_BYTES, 4, b""),
        (READ, CORE, 0x8000_0000, 4, b""),
        (READ, CORE, CORE_BYTES - 4, 8, b""),
        (WRITE, BOARD, 0, 4, data[:4]),
        (READ, BOARD, SCRATCH + 4, 4, b""),
        (READ, BOARD, 64 + SCRATCH, 4, b""),
        (WRITE, BOARD, 64 + SCRATCH, 4, data[:4]),
        (WRITE, DESCRIPTION, 0, 4, data[:4]),
        (READ, DESCRIPTION, end, 4, b""),
        (READ, DESCRIPTION, end - 4, 8, b""),
        (READ, DESCRIPTION, 0x8000_0000, 4, b""),
    ]
    for kind, space, address, length, payload in table:
        where = (kind, space, hex(address), length)
        assert await host.call(kind, space, address, length, payload) == (BAD_REQUEST, b""), where
    assert bench.core.read(0, CORE_BYTES) == bytes(CORE_BYTES) and not bench.wishbone.writes
    assert await host.read_register(BOARD, SCRATCH) == 0
    for address, length in ((SIZE, 1), (SIZE - 3, 4), (1 << 32, 4), ((1 << 32) - 2, 4), (1 << 40, 4), (1 << 63, 1)):
        assert await host.call(READ, MEMORY, address, length) == (BUS_ERROR, b"")
        assert await host.call(WRITE, MEMORY, address, length, data[:length]) == (BUS_ERROR, b"")
    for ready, free, status in ((0, 1, NOT_READY), (1, 0, BUSY), (0, 0, NOT_READY)):
        dut.memory_ready.value, dut.memory_free.value = ready, free
        assert await host.call(READ, MEMORY, 0, 8) == (status, b"")
        assert await host.call(WRITE, MEMORY, 0, 8, data) == (status, b"")
        await host.write_register(CORE, 8, status)
        assert await host.read_register(CORE, 8) == status
    dut.memory_ready.value = dut.memory_free.value = 1
    assert await host.read(MEMORY, 0, 8) == bench.shadow[:8]
    assert await host.read_register(BOARD, 28) == 0
    bench.check_memory()


@cocotb.test()
async def sequence_rule(dut: Any) -> None:
    """Repeated, lost and skipped numbers, against a model of the rule; a repeated write keeps its status."""
    bench = await prepare(dut, 0.05)
    host, rng = bench.host, bench.rng
    await host.sync(rng.randrange(256))
    expected, done = host.sequence, {}
    for _ in range(150):
        step = rng.choice((0, 0, 0, -1, -1, -2, -16, -17, 1, 2, 100, rng.randint(-16, -1)))
        number = (expected + step) % 256
        kind = rng.choice((READ, WRITE))
        value = rng.getrandbits(32)
        refused = rng.random() < 0.3
        address = SIZE if refused else 4 * rng.randrange(SIZE // 4)
        behind = (expected - number) % 256
        if 1 <= behind <= 16 and number not in done:
            continue
        host.send(
            framed(request(kind, MEMORY, number, 4, address, value.to_bytes(4, "little") if kind == WRITE else b""))
        )
        status, answered, result = await host.reply()
        if behind > 16:
            assert (status, answered, result) == (SEQUENCE, expected, b"")
            continue
        wanted = BUS_ERROR if refused else OK
        if behind and kind == WRITE:
            wanted = done[number]
        elif kind == WRITE and not refused:
            bench.shadow[address : address + 4] = value.to_bytes(4, "little")
        read = bytes(bench.shadow[address : address + 4]) if kind == READ and not refused else b""
        assert (status, answered, result) == (wanted, number, read), behind
        if kind == READ or not behind:
            done[number] = wanted
        if not behind:
            expected = (expected + 1) % 256
            done.pop((expected - 17) % 256, None)
    bench.check_memory()


@cocotb.test()
async def damaged(dut: Any) -> None:
    """Frames with flipped, missing and added bytes do nothing, are counted, and do not hurt the next one."""
    bench = await prepare(dut)
    host, rng = bench.host, bench.rng
    count = 0
    for turn in range(60):
        address, length = bench.place()
        length = rng.choice((length, min(length, 30)))
        kind = rng.choice((READ, WRITE))
        body = request(kind, MEMORY, host.sequence, length, address, bench.payload(length) if kind == WRITE else b"")
        raw = bytearray(stuffed(body))
        place = rng.randrange(len(raw))
        match turn % 5:
            case 0:
                raw[place] ^= 1 << rng.randrange(8)
            case 1:
                del raw[place : place + rng.randint(1, 8)]
            case 2:
                raw.insert(place, rng.randrange(256))
            case 3:  # right CRC, wrong length; what is left of the header before must not be taken for the missing part
                assert await host.call(READ, MEMORY, (1 << 64) - 1, 4) == (BUS_ERROR, b"")
                raw = bytearray(stuffed(rng.choice((body + b"x", body[:-1], body[: rng.randint(1, 11)]))))
            case 4:  # longer than any frame, whatever its length says
                more = (1025, 1026, 1034, 1037, 1100, 3000)[turn // 5 % 6]
                header = (request(WRITE, MEMORY, host.sequence, more, 0), body[:12])[turn // 30]
                raw = bytearray(stuffed(header + bench.payload(more)))
        host.send(b"\x7e" + raw + b"\x7e")
        host.send(framed(request(0, 0, 77, 0, 0)))  # flags may have been made or lost: SYNC ends it
        replies = 0
        while (reply := await host.reply())[0] != OK:
            assert reply == (DAMAGED, host.sequence, b"")
            replies += 1
        assert reply == (OK, 77, b"")
        assert replies >= 1 or (turn % 5 == 1 and len(raw) == 0)
        host.sequence = 78
        count += replies
        assert await host.read_register(BOARD, 28) == count
    bench.check_memory()


@cocotb.test()
async def flags(dut: Any) -> None:
    """One flag between frames is enough, many do no harm, and neither does what came before the first."""
    bench = await prepare(dut)
    host = bench.host
    first = request(READ, BOARD, host.sequence, 4, 0)
    second = request(READ, BOARD, host.sequence + 1 & 255, 4, 4)
    host.send(b"\x7e" * 5 + stuffed(first) + b"\x7e" + stuffed(second) + b"\x7e" * 7)
    assert await host.reply() == (OK, first[1], bytes.fromhex("53524e42"))
    assert await host.reply() == (OK, second[1], bytes.fromhex("00000100"))
    await host.silent(100)


@cocotb.test()
async def restart(dut: Any) -> None:
    """A frame that was begun is forgotten without an answer."""
    bench = await prepare(dut)
    host = bench.host
    for tail in (b"", b"\x7d", b"abc"):
        host.send(b"\x7e" + bytes(20) + tail)
        await host.source.drain()
        dut.restart.value = 1
        await RisingEdge(dut.clk)
        dut.restart.value = 0
        assert await host.read_register(BOARD, 0) == 0x424E5253
    assert await host.read_register(BOARD, 28) == 0


@cocotb.test()
async def bus_errors(dut: Any) -> None:
    """An error response anywhere in a request is reported, and only with that request."""
    bench = await prepare(dut, 0.1)
    host, rng = bench.host, bench.rng
    for _ in range(8):
        address, length = bench.place()
        bad = rng.choice((address, address + length - 1, rng.randrange(address, address + length)))
        bench.read_memory.bad = bench.memory.bad = (bad,)
        assert await host.call(READ, MEMORY, address, length) == (BUS_ERROR, b"")
        data = bench.payload(length)
        assert await host.call(WRITE, MEMORY, address, length, data) == (BUS_ERROR, b"")
        bench.read_memory.bad = bench.memory.bad = ()
        await host.write(MEMORY, address, data)
        bench.shadow[address : address + length] = data
        assert await host.read(MEMORY, address, length) == data
    bench.check_memory()


@cocotb.test()
async def silent_buses(dut: Any) -> None:
    """A bus that does not answer is an error after a while, blocks nothing else, and works again once it answers."""
    bench = await prepare(dut)
    host = bench.host
    pauses = (
        (READ, bench.read_memory.ar_channel),
        (READ, bench.read_memory.r_channel),
        (WRITE, bench.memory.aw_channel),
        (WRITE, bench.memory.w_channel),
        (WRITE, bench.memory.b_channel),
    )
    for kind, channel in pauses:
        channel.pause = True
        for length in (5, 300):
            data = bench.payload(length)
            before = cycle()
            assert await host.call(kind, MEMORY, 60, length, data if kind == WRITE else b"") == (BUS_ERROR, b"")
            assert PATIENCE < cycle() - before < PATIENCE + 900
            assert int(dut.memory_claimed.value), "the accelerator must not get in between"
            assert await host.read_register(BOARD, 0) == 0x424E5253
        channel.pause = False
        await ClockCycles(dut.clk, 100)
        data = bench.payload(400)
        await host.write(MEMORY, 60, data)
        assert await host.read(MEMORY, 60, 400) == data
        await ClockCycles(dut.clk, 20)
        assert not int(dut.memory_claimed.value)

    bench.wishbone.mute = True
    for _ in range(2):
        assert await host.call(READ, DRAM, 8, 4) == (BUS_ERROR, b"")
        assert await host.read_register(BOARD, 0) == 0x424E5253
    bench.wishbone.mute = False
    await ClockCycles(dut.clk, 20)
    await host.write_register(DRAM, 8, 0x1234_5678)
    assert await host.read_register(DRAM, 8) == 0x1234_5678
