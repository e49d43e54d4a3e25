"""Weights that cost no bandwidth: the words of a fixed projection's full column blocks, computed from their address."""

from __future__ import annotations

from itertools import pairwise

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.spec import generator, packing
from sterna.spec.config import HardwareConfig
from sterna_hw.interfaces import generator_job, word_shape, word_stream

ROUNDS_PER_STAGE = 2  # two additions of 32 bits between registers
STAGES = -(-generator.ROUNDS // ROUNDS_PER_STAGE) + 2  # counter and key, rounds, codes


class Threefry(wiring.Component):
    """Threefry-2x32 of ``spec.generator``, a result a cycle.

    Attributes:
        enable: In The pipeline moves; all is held while it is low.
        key: In Two words of 32 bits, the first in the low half; held while results of it are in the pipeline.
        counter: In Two words likewise.
        result: Out The two words, STAGES - 1 cycles with ``enable`` after their counter.
    """

    def __init__(self) -> None:
        super().__init__({"enable": In(1), "key": In(64), "counter": In(64), "result": Out(64)})

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        keys = [self.key[:32], self.key[32:], self.key[:32] ^ self.key[32:] ^ generator.PARITY]
        low, high = Signal(32), Signal(32)
        with m.If(self.enable):
            m.d.sync += [low.eq(self.counter[:32] + keys[0]), high.eq(self.counter[32:] + keys[1])]
        for number in range(generator.ROUNDS):
            low_sum = (low + high)[:32]
            rotated = high.rotate_left(generator.ROTATIONS[number % len(generator.ROTATIONS)])
            next_low, next_high = low_sum, rotated ^ low_sum
            injection, rest = divmod(number + 1, generator.ROUNDS_PER_INJECTION)
            if not rest:
                next_low = next_low + keys[injection % 3]
                next_high = next_high + keys[(injection + 1) % 3] + injection
            low, high = Signal(32, name=f"low_{number}"), Signal(32, name=f"high_{number}")
            ends_stage = number % ROUNDS_PER_STAGE == ROUNDS_PER_STAGE - 1 or number == generator.ROUNDS - 1
            if ends_stage:
                with m.If(self.enable):
                    m.d.sync += [low.eq(next_low), high.eq(next_high)]
            else:
                m.d.comb += [low.eq(next_low), high.eq(next_high)]
        m.d.comb += self.result.eq(Cat(low, high))
        return m


class WeightGenerator(wiring.Component):
    """The words of full column blocks 0, 1, … of a fixed projection in the lanes' order: a block's rows, then the next.

    Byte g of a word of block b is group ``b * word_bytes + g`` of its row (docs/reservoir.md, "The generator").

    Timing: the first word is offered STAGES + 1 = 10 cycles after the transfer of a job, further ones one a cycle.

    Attributes:
        job: In At least one row and one block; ready while not busy.
        words: Out The words; none is withdrawn.
        busy: Out From the cycle after the transfer of a job until that of its last word, that one included.
    """

    def __init__(self, *, config: HardwareConfig) -> None:
        self._config = config
        super().__init__(
            {
                "job": In(stream.Signature(generator_job())),
                "words": Out(word_stream(config)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Build the module."""
        m = Module()
        copies = self._config.word_bytes // generator.BLOCK_BYTES
        job = Signal(generator_job())
        row, block = Signal(job.rows.shape()), Signal(job.blocks.shape())
        issuing, last = Signal(), Signal()
        advance = Signal()
        m.d.comb += [
            self.job.ready.eq(~self.busy),
            advance.eq(~self.words.valid | self.words.ready),
            last.eq((row == job.rows - 1) & (block == job.blocks - 1)),
        ]
        with m.If(self.job.valid & self.job.ready):
            m.d.sync += [job.eq(self.job.payload), row.eq(0), block.eq(0), issuing.eq(1), self.busy.eq(1)]
        with m.Elif(issuing & advance):
            m.d.sync += row.eq(row + 1)
            with m.If(row == job.rows - 1):
                m.d.sync += [row.eq(0), block.eq(block + 1)]
            with m.If(last):
                m.d.sync += issuing.eq(0)

        # Beside the words: whether there is one, and whether it is the job's last.
        valid = [issuing, *(Signal(name=f"valid_{stage}") for stage in range(STAGES - 1)), self.words.valid]
        ends = [last, *(Signal(name=f"last_{stage}") for stage in range(STAGES))]
        with m.If(advance):
            m.d.sync += [after.eq(before) for flags in (valid, ends) for before, after in pairwise(flags)]
        with m.If(self.words.valid & self.words.ready & ends[-1]):
            m.d.sync += self.busy.eq(0)

        results = []
        for copy in range(copies):
            m.submodules[f"threefry_{copy}"] = threefry = Threefry()
            low = Cat(Const(copy, (copies - 1).bit_length()), block)
            high = job.row + row
            m.d.comb += [
                threefry.enable.eq(advance),
                threefry.key.eq(Cat(job.seed, Const(0, 32 - len(job.seed)), job.stream)),
                threefry.counter.eq(Cat(low, Const(0, 32 - len(low)), high)),
            ]
            results.append(threefry.result)
        random = Signal(word_shape(self._config))
        m.d.comb += random.as_value().eq(Cat(results))
        with m.If(advance):
            for byte, code in zip(random, self.words.payload, strict=True):
                m.d.sync += code.eq(Mux(byte >= packing.CODES, byte - generator.SURPLUS, byte))
        return m
