"""What the sequencer is tested with: random programs, the units around it, and what a program has to cause."""

from __future__ import annotations

import dataclasses
import os
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import cocotb
from cocotb.triggers import RisingEdge
from streams import Source, seeded

from sterna.spec import isa
from sterna.spec.config import preset
from sterna.spec.isa import Opcode, RowOp
from sterna.spec.registers import ErrorCause, Stall
from sterna_hw.interfaces import generator_job, lanes_job, row_job, segment, token_request, vector_job

CONFIG = dataclasses.replace(preset(os.environ["STERNA_CONFIG"]), slots=int(os.environ["STERNA_SLOTS"]))
WORD, PER_WORD = CONFIG.word_bytes, CONFIG.params_per_word
LAYOUTS = {"lanes": lanes_job(), "generator": generator_job(), "rows": row_job(), "vector": vector_job()}
GENERATOR = ("eps_const", "eps_mantissa", "scale_mantissa", "count", "generated")  # fields of its job, in order
REPORTS = {ErrorCause.BUS_READ: "stream_error", ErrorCause.BUS_WRITE: "writer_error", ErrorCause.BAD_TRIT: "bad_trit"}


@dataclass
class Step:
    """A descriptor with its payload words, and those that the generator makes after the first ``tails`` of them."""

    fields: dict[str, int]
    payload: list[int] = field(default_factory=list)
    tails: int = 0
    made: list[int] = field(default_factory=list)

    @property
    def eaten(self) -> list[int]:
        """What its unit takes."""
        return self.payload[: self.tails] + self.made + self.payload[self.tails :]

    def words(self) -> list[int]:
        raw = isa.encode(**self.fields)
        raw += bytes(-len(raw) % WORD)
        return [int.from_bytes(raw[at : at + WORD], "little") for at in range(0, len(raw), WORD)] + self.payload


END = Step({"opcode": Opcode.END})


def random_step(rng: random.Random, opcode: Opcode) -> Step:
    fields = {f.name: rng.getrandbits(f.width) for f in isa.FIELDS if not f.signed and "reserved" not in f.name}
    fields |= {"opcode": opcode, "row_op": rng.choice(list(RowOp)), "count": rng.choice([1, 2, rng.randint(1, 30)])}
    fields["blocks"] = rng.randrange(1, 1 << 12)
    fields["scale_exponent"] = rng.randrange(-2048, 2048)
    if opcode is Opcode.LOAD:
        fields["target"] = PER_WORD * rng.randrange((1 << 10) // PER_WORD)
    count = {
        Opcode.LOAD: fields["count"],
        Opcode.EMBED: -(-fields["count"] // PER_WORD),
        Opcode.MATMUL: rng.randint(1, 20),  # the bench's lanes take any number
    }.get(opcode, 0)
    payload = [rng.getrandbits(8 * WORD) for _ in range(count)]
    if opcode is not Opcode.MATMUL:
        return Step(fields, payload)
    fields["generated"] = rng.choice([0, rng.randint(1, fields["blocks"])]) if CONFIG.generator else 0
    made = [rng.getrandbits(8 * WORD) for _ in range(rng.randint(1, 20))] if fields["generated"] else []
    return Step(fields, payload, rng.randint(0, count), made)


def random_program(rng: random.Random) -> list[Step]:
    kinds = [Opcode.LOAD, Opcode.EMBED, Opcode.SUMSQ, Opcode.QUANT, Opcode.MATMUL]
    return [random_step(rng, rng.choice(kinds)) for _ in range(rng.randint(1, 12))]


def request(**values: Any) -> int:
    return token_request(CONFIG).const({"vocabulary": 100, **values}).as_bits()


def active(values: dict[str, Any]) -> list[int]:
    """The slots that take part in a token."""
    modes = values.get("modes", [{}] * CONFIG.slots)
    return [slot for slot, mode in enumerate(modes) if not mode.get("idle")]


class Bench:
    """Units around the sequencer: each takes its job and its words when it likes and reports the end some time later.

    ``events`` is what came out, in order: ("segment", payload), ("load", address, word), ("job", name, payload),
    ("word", name, word), ("scores",), ("done",).
    """

    def __init__(self, dut: Any, name: str, stall: float) -> None:
        self.dut, self.rng = dut, seeded(dut, name)
        self.events: list[tuple[Any, ...]] = []
        self.eaters: deque[Step] = deque()  # MATMUL and EMBED of the program that have not begun
        self.request = Source(dut, "request", 0, self.rng)
        self.words = Source(dut, "words", stall, self.rng)
        self.stall = stall
        self.seen: set[Stall] = set()  # reasons that were checked
        self.embeds: dict[int, int] = {}  # slots of each EMBED of the token, by the number of events before it
        inputs = ("rows_done", "vector_done", "writer_idle", *REPORTS.values())
        inputs += ("segment__ready", "lanes_words__ready", "embed_words__ready")
        inputs += ("vector_stall", "lanes_stall", "writer_stall")
        inputs += ("generating", "lanes_full", "generated_words__valid")
        inputs += tuple(f"{job}_job__ready" for job in ("embed", "lanes", "generator", "rows", "vector"))
        for signal in inputs:
            getattr(dut, signal).value = 0
        dut.stream_idle.value = dut.writer_idle.value = 1
        cocotb.start_soon(self._run())

    def luck(self) -> int:
        return int(self.rng.random() >= self.stall)

    async def _run(self) -> None:
        dut, edge = self.dut, RisingEdge(self.dut.clk)
        jobs = ("embed", "lanes", "generator", "rows", "vector")
        step, made = END, 0  # of the unit that eats; words that the generator has made for it
        taken: set[str] = set()
        offered = False  # the generator offers a word
        left, wait = 0, -1  # words of the running job; cycles until its end
        while True:
            for job in jobs:
                getattr(dut, f"{job}_job__ready").value = self.luck()
            dut.segment__ready.value = self.luck()
            generating = {"lanes", "generator"} <= taken and made < len(step.made)
            full = len(step.eaten) - left >= step.tails if "lanes" in taken else self.luck()
            offered = generating and (offered or self.luck())
            dut.generating.value, dut.lanes_full.value = int(generating), int(full)
            dut.generated_words__valid.value = int(offered)
            if generating:
                dut.generated_words__payload.value = step.made[made]
            waiting = bool(step.made) and "generator" not in taken  # the lanes build tables in that time
            for unit in ("lanes", "embed"):
                getattr(dut, f"{unit}_words__ready").value = int(
                    unit in taken and not waiting and left > 0 and self.luck()
                )
            dut.rows_done.value = int(wait == 0 and "rows" in taken)
            dut.vector_done.value = int(wait == 0 and "vector" in taken)
            running = set(taken)
            if wait == 0:
                taken.clear()
            wait -= 1
            for unit in ("vector", "lanes"):
                getattr(dut, f"{unit}_stall").value = self.rng.choice(list(Stall))
            dut.writer_stall.value = int(self.rng.random() < 0.2)
            await edge
            self.check_stall(running)
            if int(dut.rst.value):
                taken.clear()
                step, left, wait = END, 0, -1
                continue
            if int(dut.segment__valid.value) and int(dut.segment__ready.value):
                self.events.append(("segment", int(dut.segment__payload.value)))
            if int(dut.load__enable.value):
                self.events.append(("load", int(dut.load__address.value), int(dut.load__data.value)))
            if int(dut.scores_start.value):
                self.events.append(("scores",))
            for job in jobs:
                if int(getattr(dut, f"{job}_job__valid").value) and int(getattr(dut, f"{job}_job__ready").value):
                    self.events.append(("job", job, int(getattr(dut, f"{job}_job__payload").value)))
                    assert job in ("rows", "generator") or not taken - {"rows", "generator"}, "two jobs at once"
                    taken.add(job)
                    if job == "embed":
                        self.embeds[len(self.events)] = int(dut.embed_slots.value)
                    if job in ("lanes", "embed"):
                        step, made = self.eaters.popleft(), 0
                        left = len(step.eaten)
                    if job == "vector":
                        wait = self.rng.randint(0, 9)
            for unit in ("lanes", "embed"):
                if int(getattr(dut, f"{unit}_words__valid").value) and int(getattr(dut, f"{unit}_words__ready").value):
                    self.events.append(("word", unit, int(getattr(dut, f"{unit}_words__payload").value)))
                    left -= 1
            if offered and int(dut.generated_words__ready.value):
                made, offered = made + 1, False
            if taken & {"lanes", "embed"}:
                assert int(dut.embedding.value) == ("embed" in taken)
                if "rows" in taken and left == 0 and wait < 0:
                    wait = self.rng.randint(0, 9)
            if int(dut.done.value):
                self.events.append(("done",))

    def check_stall(self, running: set[str]) -> None:
        """What the sequencer reports in this cycle, wherever the bench knows it."""
        dut, known = self.dut, None
        if "lanes" in running:
            known = Stall.WRITER if int(dut.writer_stall.value) else int(dut.lanes_stall.value)
        elif "vector" in running:
            known = int(dut.vector_stall.value)
        elif "embed" in running:
            known = Stall.EMBED
        elif int(dut.load__enable.value):
            known = Stall.LOAD
        elif int(dut.scores_start.value):
            known = Stall.FETCH
        elif int(dut.done.value):
            known = Stall.END
        if known is not None and int(dut.busy.value):
            assert int(dut.stall.value) == known, f"{Stall(int(dut.stall.value))!r}, not {Stall(known)!r}"
            self.seen.add(Stall(known))

    async def until(self, *, error: bool = False, limit: int = 3000) -> None:
        """Wait for the end of the token or for an error."""
        for _ in range(limit):
            await RisingEdge(self.dut.clk)
            if error and int(self.dut.error.value):
                return
            assert error or not int(self.dut.error.value), ErrorCause(int(self.dut.error.value))
            if self.events and self.events[-1] == ("done",):
                assert not error, "the token ended well"
                return
        raise AssertionError(f"neither end nor error after {limit} cycles: {self.events[-3:]}")

    async def reset(self) -> None:
        self.request.cancel()
        self.words.cancel()
        self.dut.rst.value = 1
        for _ in range(2):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)
        assert not int(self.dut.error.value) and not int(self.dut.busy.value)
        self.events.clear()
        self.request = Source(self.dut, "request", 0, self.rng)
        self.words = Source(self.dut, "words", self.stall, self.rng)

    async def run(self, program: list[Step], **values: Any) -> None:
        """Run a program and check everything that comes out."""
        await self.offer(program, **values)
        self.dut.stream_idle.value = 0
        await self.words.drain()
        self.dut.stream_idle.value = 1
        await self.until()
        expected = [("segment", payload) for payload in segments(**values)]
        for step in program:
            expected += outcome(step)
        if program[-1] is not END:
            assert values["prefix"]
        assert [mask for _, mask in sorted(self.embeds.items())] == embed_masks(program, active(values))
        assert split(self.events) == split([*expected, ("done",)])
        modes = token_request(CONFIG)["modes"].shape.const(values.get("modes", []))
        assert int(self.dut.modes.value) == modes.as_bits()
        await RisingEdge(self.dut.clk)
        assert not int(self.dut.busy.value)

    async def offer(self, program: list[Step], **values: Any) -> None:
        """Ask for a token, then put its words at the door."""
        self.events.clear()
        self.embeds.clear()
        self.eaters = deque(step for step in program if step.fields["opcode"] in (Opcode.EMBED, Opcode.MATMUL))
        self.request.send(request(**values))
        await self.request.drain()
        for step in program:
            self.words.send_all(step.words())


def segments(**values: Any) -> list[int]:
    layout, beat = segment(CONFIG), CONFIG.beat_bytes
    mask, beats = (1 << CONFIG.address_width) - 1, values.get("embed_beats", 0)
    tokens = values.get("tokens", [0] * CONFIG.slots)
    rows = [values.get("embed_address", 0) + tokens[slot] * beats * beat for slot in active(values)]
    pieces = [(row & mask, beats) for row in rows]
    pieces.append((values.get("program_address", 0) & mask, values.get("program_beats", 0)))
    return [layout.const({"address": address, "beats": beats}).as_bits() for address, beats in pieces]


def outcome(step: Step) -> list[tuple[Any, ...]]:
    """What a descriptor makes the sequencer do, by docs/program.md."""
    f, opcode = step.fields, step.fields["opcode"]

    def job(name: str, **values: int) -> tuple[Any, ...]:
        return ("job", name, LAYOUTS[name].const(values).as_bits())

    rows_fields = ("row_op", "first", "source", "target", "param", "state", "shift")
    rows = job("rows", **{name: f[name] for name in rows_fields}) if "row_op" in f else ()
    match opcode:
        case Opcode.LOAD:
            depth = CONFIG.param_depth // PER_WORD
            first = f["target"] // PER_WORD
            return [("load", (first + n) % depth, word) for n, word in enumerate(step.payload)]
        case Opcode.EMBED:
            return [("job", "embed", f["count"]), rows, *(("word", "embed", word) for word in step.payload)]
        case Opcode.MATMUL:
            scores = [("scores",)] if f["first"] and f["row_op"] == RowOp.LOGIT else []
            lanes = job("lanes", rows=f["count"], blocks=f["blocks"], tails=f["tails"])
            made = dict(zip(("seed", "stream", "row", "rows", "blocks"), (f[name] for name in GENERATOR), strict=True))
            made["seed"] &= (1 << 32) - 1
            jobs = [lanes, job("generator", **made), rows] if f["generated"] else [lanes, rows]
            return [*scores, *jobs, *(("word", "lanes", word) for word in step.eaten)]
        case Opcode.SUMSQ | Opcode.QUANT:
            same = [name for name in vector_job().members if name != "quantise"]
            return [job("vector", quantise=opcode is Opcode.QUANT, **{name: f[name] for name in same})]
    return []


def embed_masks(program: list[Step], slots: list[int]) -> list[int]:
    """Whose rows each EMBED makes: a slot's each, then everybody's."""
    count = sum(step.fields["opcode"] == Opcode.EMBED for step in program)
    return ([1 << slot for slot in slots] + [(1 << CONFIG.slots) - 1] * count)[:count]


def split(events: list[tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], ...]:
    """The segments, the jobs of epilogue and generator, and the rest, which come in an order each.

    The program may be asked for late, when words of the row have left the stream; the epilogue takes its job any time
    before its unit's last word or after it, the generator before its first.
    """
    segments = [event for event in events if event[0] == "segment"]
    rows = [event for event in events if event[:2] == ("job", "rows")]
    made = [event for event in events if event[:2] == ("job", "generator")]
    return segments, rows, made, [event for event in events if event not in segments + rows + made]


def values_of(rng: random.Random) -> dict[str, Any]:
    return {
        "modes": [{"idle": rng.randrange(2) if CONFIG.slots > 1 else 0} for _ in range(CONFIG.slots)],
        "tokens": [rng.randrange(100) for _ in range(CONFIG.slots)],
        "embed_beats": rng.choice([1, 7, 4000]),
        "embed_address": CONFIG.beat_bytes * rng.getrandbits(20),
        "program_address": CONFIG.beat_bytes * rng.getrandbits(20),
        "program_beats": rng.getrandbits(31),
    }
