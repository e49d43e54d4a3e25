"""The cycle model against the RTL, and its program against the compiler's."""

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint
from test_whole_model import TINY, WIDE

from sterna.compiler.image import compile_model
from sterna.compiler.layout import ColumnBlocks
from sterna.explore.cycles import MemoryRate, token_cycles
from sterna.explore.program import token
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.spec.config import preset
from sterna.spec.isa import Opcode, decode
from sterna_sim.cosim import CoSimulation
from sterna_sim.demo import MODEL
from sterna_sim.memory import MemoryModel

SMALL = preset("sim-small")
# Its buffer is smaller than a row of the embedding.
SERIAL = dataclasses.replace(TINY, name="serial", vector_width=1, max_rows_per_word=1, prefetch_words=32)
TALL = dataclasses.replace(TINY, name="tall", tile_rows=512, max_rows_per_word=8, prefetch_words=512, outstanding=8)
BROAD = dataclasses.replace(
    TINY, name="broad", word_bytes=32, vector_width=8, tile_rows=256, prefetch_words=64, burst_beats=64
)
THIRD = MemoryModel(beats_numerator=1, beats_denominator=3)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    found = {"shipped": Model.open(MODEL)}
    for name, sizes in {
        "small": {"hidden": 130, "layers": 3, "inner": 259, "vocab": 211},
        "large": {"hidden": 256, "layers": 2, "inner": 600, "vocab": 1000},
    }.items():
        path = tmp_path_factory.mktemp(name)
        import_checkpoint(write_checkpoint(path / "source", seed=7, **sizes), path / "model")
        found[name] = Model.open(path / "model")
    return found


@pytest.mark.parametrize(
    ("config", "name", "memory"),
    [
        (TINY, "small", MemoryModel()),  # tables of small tiles
        (TINY, "small", THIRD),
        (WIDE, "small", MemoryModel()),  # two bursts in flight do not cover the latency
        (WIDE, "small", MemoryModel(latency=2)),
        (SERIAL, "small", MemoryModel(latency=10)),  # vector passes
        (TALL, "large", MemoryModel()),
        (BROAD, "large", MemoryModel()),
        (BROAD, "large", THIRD),
        (SMALL, "shipped", MemoryModel()),  # the stream
    ],
    ids=lambda value: value.name if hasattr(value, "name") else str(getattr(value, "latency", value)),
)
def test_cycles_are_those_of_the_rtl(models, config, name, memory):
    model = models[name]
    with CoSimulation(model, config, memory=memory) as cosim:
        measured = cosim.step(3).cycles
    rate = MemoryRate(bytes_per_cycle=memory.peak_bytes(config.beat_bytes), latency=memory.latency)
    predicted = token_cycles(model.geometry, config, rate)
    print(f"{config.name}, {name}: predicted {predicted}, measured {measured}")
    assert abs(predicted - measured) < 0.005 * measured


@pytest.mark.parametrize("config", [TINY, WIDE, TALL, SMALL], ids=lambda config: config.name)
def test_steps_are_those_of_the_compiler(models, config):
    model = models["small"]
    image = compile_model(model, config)
    streams = dict(image.segments)
    row = streams[image.embed_address]
    found = [(Opcode.EMBED, decode(row[:32])["count"], None, None)]
    program, position, size = streams[image.program_address], 0, config.word_bytes
    while position < len(program):
        d = decode(program[position : position + 32])
        opcode, cut, words = Opcode(d["opcode"]), None, 0
        if opcode is Opcode.MATMUL:
            cut = ColumnBlocks(d["blocks"], d["tails"])
            words = cut.words(d["count"])
        elif opcode is Opcode.LOAD:
            words = d["count"]
        matmul = opcode is Opcode.MATMUL
        found.append((opcode, d["count"] or 1, cut, d["row_op"] if matmul else None))
        position += (config.descriptor_words + words) * size
    assert [(s.opcode, s.count, s.cut, s.row_op) for s in token(model.geometry, config)] == found
