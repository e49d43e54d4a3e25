"""The sequencer between a stream of words and units that take their time, against the descriptors that were sent."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from sequencer_bench import CONFIG, END, REPORTS, Bench, Step, random_program, random_step, request, values_of
from streams import start

from sterna.spec import isa
from sterna.spec.isa import Opcode
from sterna.spec.registers import ErrorCause, Stall


@cocotb.test(timeout_time=10, timeout_unit="ms")
async def programs(dut: Any) -> None:
    """Every field of every descriptor reaches its unit, payloads theirs, one descriptor at a time."""
    bench = Bench(dut, "programs", 0.0)
    await start(dut)
    for stall in (0.0, 0.3, 0.7):
        bench.stall = bench.words.stall = stall
        for _ in range(8):
            await bench.run([*random_program(bench.rng), END], **values_of(bench.rng))
        await bench.run([random_step(bench.rng, opcode) for opcode in list(Opcode)[1:-1]] + [END])
    assert bench.seen == set(Stall)


async def fails(bench: Bench, cause: ErrorCause, program: list[Step], **values: Any) -> None:
    """The program ends in ``cause``; after that nothing is accepted until reset, then all is well."""
    await bench.offer(program, **values)
    await bench.until(error=True)
    assert int(bench.dut.error.value) == cause
    bench.request.send(request())
    for _ in range(20):
        await RisingEdge(bench.dut.clk)
        assert int(bench.dut.error.value) == cause and not int(bench.dut.busy.value)
        assert not int(bench.dut.request__ready.value), "a token is taken after an error"
    assert ("done",) not in bench.events
    for name in REPORTS.values():
        getattr(bench.dut, name).value = 0
    await bench.reset()
    await bench.run([random_step(bench.rng, Opcode.QUANT), END])


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def illegal_descriptors(dut: Any) -> None:
    bench = Bench(dut, "illegal", 0.2)
    await start(dut)
    cases = [{"opcode": opcode, "count": 1} for opcode in (0, *range(len(Opcode), 16))]
    for opcode in list(Opcode)[1:-1]:
        cases.append(random_step(bench.rng, opcode).fields | {"count": 0})
    for opcode in (Opcode.MATMUL, Opcode.EMBED):
        cases += [random_step(bench.rng, opcode).fields | {"row_op": row_op} for row_op in (8, 15)]
    fields = random_step(bench.rng, Opcode.MATMUL).fields
    fields["blocks"] = min(fields["blocks"], (1 << 12) - 2)
    cases.append(fields | {"blocks": 0})
    most = fields["blocks"] if CONFIG.generator else 0
    cases.append(fields | {"generated": most + 1})
    for fields in cases:
        assert not isa.is_legal(isa.decode(isa.encode(**fields)), generator=CONFIG.generator)
        dut.stream_idle.value = 0  # words are on their way
        await fails(bench, ErrorCause.BAD_OPCODE, [Step(fields)])
        assert not [event for event in bench.events if event[0] == "job" and event[1] != "vector"]


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def tokens_beyond_the_vocabulary(dut: Any) -> None:
    bench = Bench(dut, "vocabulary", 0.0)
    await start(dut)
    for token in (100, 101, (1 << 32) - 1):
        for slot in range(CONFIG.slots):
            tokens = [token if number == slot else 99 for number in range(CONFIG.slots)]
            await fails(bench, ErrorCause.BAD_TOKEN, [], tokens=tokens)
            if CONFIG.slots > 1:  # nobody reads the token of an idle slot
                modes = [{"idle": int(number == slot)} for number in range(CONFIG.slots)]
                await bench.run([END], tokens=tokens, modes=modes, embed_beats=3)
    await bench.run([END], tokens=[99] * CONFIG.slots, embed_beats=3)


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def reports_of_units(dut: Any) -> None:
    """At any time of a token, in END too."""
    bench = Bench(dut, "reports", 0.2)
    await start(dut)
    for cause, name in REPORTS.items():
        for delay in (3, 8, 20):

            async def report(name: str = name, delay: int = delay) -> None:
                for _ in range(delay):
                    await RisingEdge(dut.clk)
                getattr(dut, name).value = 1

            cocotb.start_soon(report())
            dut.stream_idle.value = 0
            await fails(bench, cause, [random_step(bench.rng, Opcode.MATMUL)])


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def the_last_write_may_fail(dut: Any) -> None:
    """An error that comes with the writer's last answer is not lost to the end of the token."""
    bench = Bench(dut, "last write", 0.0)
    await start(dut)
    for delay in range(8):
        dut.writer_idle.value = 0

        async def answer(delay: int = delay) -> None:
            for _ in range(10 + delay):
                await RisingEdge(dut.clk)
            dut.writer_idle.value = dut.writer_error.value = 1

        cocotb.start_soon(answer())
        await fails(bench, ErrorCause.BUS_WRITE, [END])


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def the_writer_is_waited_for(dut: Any) -> None:
    bench = Bench(dut, "writer", 0.0)
    await start(dut)
    dut.writer_idle.value = 0
    await bench.offer([END])
    for _ in range(50):
        await RisingEdge(dut.clk)
    assert ("done",) not in bench.events and int(dut.busy.value)
    assert int(dut.stall.value) == Stall.WRITER
    dut.writer_idle.value = 1
    await bench.until()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def the_program_is_asked_for_late(dut: Any) -> None:
    """Words of the row leave the stream before it takes the program; no token ends, and no other begins, without it."""
    bench = Bench(dut, "late", 0.0)
    await start(dut)
    bench.stall = 0.95  # of everything but the words
    for program in ([END], [random_step(bench.rng, Opcode.EMBED), END]) * 5:
        await bench.run(program, **values_of(bench.rng))


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def programs_without_an_end(dut: Any) -> None:
    """The stream runs dry in a fetch or in any payload; while more may come there is no error."""
    bench = Bench(dut, "no end", 0.0)
    await start(dut)
    for opcode in (Opcode.LOAD, Opcode.EMBED, Opcode.MATMUL, Opcode.SUMSQ):
        step = random_step(bench.rng, opcode)
        dut.stream_idle.value = 0
        await bench.offer([dataclasses.replace(step, payload=step.payload[:-1])])
        if opcode in (Opcode.EMBED, Opcode.MATMUL):
            bench.eaters = deque([step])  # the unit wants the word that is missing
        for _ in range(100):
            await RisingEdge(dut.clk)
            assert not int(dut.error.value)
        dut.stream_idle.value = 1
        await bench.until(error=True, limit=100)
        assert int(dut.error.value) == ErrorCause.STREAM_END
        await bench.reset()


@cocotb.test(timeout_time=5, timeout_unit="ms")
async def prefixes_of_programs(dut: Any) -> None:
    """A token without END ends after a descriptor, and only there; with END it is a token as ever."""
    bench = Bench(dut, "prefix", 0.0)
    await start(dut)
    for _ in range(5):
        program = random_program(bench.rng)
        await bench.run(program, prefix=1, **values_of(bench.rng))
        await bench.run([*program, END], prefix=1, **values_of(bench.rng))
    step = random_step(bench.rng, Opcode.LOAD)
    await bench.offer([dataclasses.replace(step, payload=step.payload[:-1])], prefix=1)
    await bench.until(error=True, limit=200)
    assert int(dut.error.value) == ErrorCause.STREAM_END
    await bench.reset()
    if len(step.words()) - len(step.payload) > 1:  # in the middle of a descriptor
        await bench.offer([], prefix=1)
        bench.words.send(step.words()[0])
        await bench.until(error=True, limit=200)
        assert int(dut.error.value) == ErrorCause.STREAM_END
        await bench.reset()


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def words_after_the_end(dut: Any) -> None:
    """They would be taken for the descriptors of the next token."""
    bench = Bench(dut, "surplus", 0.0)
    await start(dut)
    for late in range(8):  # before END has ended, and after
        await bench.offer([END])
        await bench.words.drain()
        for _ in range(late):
            await RisingEdge(dut.clk)
        bench.words.send(0)
        for _ in range(5):
            await RisingEdge(dut.clk)
        assert int(dut.error.value) == ErrorCause.STREAM_END
        await bench.reset()
