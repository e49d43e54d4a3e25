"""The cycle model against the RTL, and its program against the compiler's."""

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest
from amaranth.back import rtlil

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint
from test_whole_model import TINY, WIDE

from sterna.cli.main import main
from sterna.compiler.image import compile_model
from sterna.compiler.layout import ColumnBlocks
from sterna.explore.area import multipliers, ram_bits
from sterna.explore.cycles import MemoryRate, token_cycles
from sterna.explore.program import token
from sterna.explore.search import Limits, candidates, evaluate, pareto
from sterna.importer import import_checkpoint
from sterna.importer.synthetic import GEOMETRIES
from sterna.model.geometry import Geometry
from sterna.model.store import Model
from sterna.spec.config import PRESETS, HardwareConfig, preset
from sterna.spec.isa import Opcode, decode
from sterna_hw.accelerator import Accelerator
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
GEOMETRY = Geometry(hidden=256, layers=4, inner=700, vocab=2000, rms_eps=1e-6)
THIRD = MemoryModel(beats_numerator=1, beats_denominator=3)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    found = {"shipped": Model.open(MODEL)}
    for name, sizes in {
        "small": {"hidden": 130, "layers": 3, "inner": 259, "vocab": 211},
        "large": {"hidden": 256, "layers": 2, "inner": 600, "vocab": 1000},
        "reservoir": {
            "hidden": 130,
            "layers": 3,
            "inner": 259,
            "vocab": 211,
            "reservoir": {"seed": 2, "fixed": {"f": [0, 1], "i": [2], "gate": [0]}, "mixer_only": [1]},
        },
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
        (TINY, "reservoir", MemoryModel()),  # words from the generator
        (TINY, "reservoir", THIRD),
        (TALL, "large", MemoryModel()),
        (BROAD, "large", MemoryModel()),
        (BROAD, "large", THIRD),
        (SMALL, "shipped", MemoryModel()),  # the stream
    ],
    ids=lambda value: value.name if hasattr(value, "name") else str(getattr(value, "latency", value)),
)
def test_cycles_are_those_of_the_rtl(models, config, name, memory):
    assert abs(error(models[name], config, memory)) < 0.005


def test_a_round_trip_beyond_bursts_and_buffer_is_less_exact(models):
    assert abs(error(models["small"], TINY, MemoryModel(latency=400))) < 0.05


def error(model, config, memory):
    """Of the predicted cycles, as a share of those measured."""
    with CoSimulation(model, config, memory=memory) as cosim:
        measured = cosim.step(3).cycles
    rate = MemoryRate(bytes_per_cycle=memory.peak_bytes(config.beat_bytes), latency=memory.latency)
    predicted = token_cycles(model.geometry, config, rate)
    print(f"{config.name}: predicted {predicted}, measured {measured}")
    return predicted / measured - 1


@pytest.mark.parametrize("config", [TINY, WIDE, TALL, SMALL], ids=lambda config: config.name)
@pytest.mark.parametrize("name", ["small", "reservoir"])
def test_steps_are_those_of_the_compiler(models, config, name):
    model = models[name]
    image = compile_model(model, config)
    streams = dict(image.segments)
    row = streams[image.embed_address]
    found = [(Opcode.EMBED, decode(row[:32])["count"], None, None, 0)]
    program, position, size = streams[image.program_address], 0, config.word_bytes
    while position < len(program):
        d = decode(program[position : position + 32])
        opcode, cut, words = Opcode(d["opcode"]), None, 0
        if opcode is Opcode.MATMUL:
            cut = ColumnBlocks(d["blocks"], d["tails"])
            words = ColumnBlocks(d["blocks"] - d["generated"], d["tails"]).words(d["count"])
        elif opcode is Opcode.LOAD:
            words = d["count"]
        matmul = opcode is Opcode.MATMUL
        found.append((opcode, d["count"] or 1, cut, d["row_op"] if matmul else None, d["generated"]))
        position += (config.descriptor_words + words) * size
    assert [(s.opcode, s.count, s.cut, s.row_op, s.generated) for s in token(model.geometry, config)] == found


@pytest.mark.parametrize("config", [*PRESETS.values(), WIDE, SERIAL, TALL, BROAD], ids=lambda config: config.name)
def test_memory_and_multipliers_are_those_of_the_netlist(config):
    netlist = rtlil.convert(Accelerator(config=config))
    memories = re.findall(r"^\s*memory width (\d+) size (\d+) ", netlist, re.MULTILINE)
    assert sum(int(width) * int(size) for width, size in memories) == ram_bits(config)
    products = re.findall(r"cell \$mul .*?parameter \\A_WIDTH (\d+).*?parameter \\B_WIDTH (\d+)", netlist, re.DOTALL)
    assert len(products) == multipliers(config)


@pytest.fixture(scope="module")
def found():
    """Some builds for a small model, with their figures."""
    configs = list(candidates(GEOMETRY, beat_bytes=8))[::3]
    return list(evaluate(configs, GEOMETRY, MemoryRate(bytes_per_cycle=4), clock_mhz=100, limits=Limits()))


def test_the_front_holds_what_nothing_beats(found):
    best = pareto(found)
    assert 3 < len(best) < len(found)
    for candidate in found:
        beaten = [b for b in best if all(x <= y for x, y in zip(b.costs, candidate.costs, strict=True))]
        assert beaten, "a build that nothing on the front beats"
        assert candidate not in best or beaten == [candidate]
    assert [b.costs[0] for b in best] == sorted(b.costs[0] for b in best)
    for b in best:
        assert b.tokens_per_second == 100e6 / b.cycles
        assert b.efficiency == -(-GEOMETRY.ternary_weights // 5) / (4 * b.cycles)


def test_limits_are_kept(found):
    middle = sorted(found, key=lambda c: c.ram_kbit)[len(found) // 2]
    limits = Limits(lanes=40, ram_kbit=middle.ram_kbit, multipliers=middle.multipliers)
    kept = evaluate([c.config for c in found], GEOMETRY, MemoryRate(bytes_per_cycle=4), clock_mhz=100, limits=limits)
    for before, after in zip(found, kept, strict=True):
        fits = before.lanes <= 40 and before.ram_kbit <= middle.ram_kbit and before.multipliers <= middle.multipliers
        assert after == (before if fits else None)


COMMAND = ["explore", "8m", "--clock", "100", "--bandwidth", "400", "--beat-bytes", "8"]


def test_command_prints_the_front(capsys):
    assert main([*COMMAND, "--lanes", "40"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == [
        "tokens/s",
        "roofline",
        "lanes",
        "vector",
        "rows/word",
        "tile",
        "rows",
        "prefetch",
        "RAM",
        "kbit",
        "multipliers",
    ]
    assert main([*COMMAND, "--lanes", "40", "--json"]) == 0
    builds = json.loads(capsys.readouterr().out)["builds"]
    assert len(lines) == len(builds) > 3
    for line, build in zip(lines, builds, strict=True):
        assert line.split()[0] == f"{build['tokens_per_second']:.2f}"
        config = HardwareConfig(**build["config"])
        rate = MemoryRate(bytes_per_cycle=4)
        assert build["cycles"] == token_cycles(GEOMETRIES["8m"], config, rate)
        assert config.lanes == build["lanes"] <= 40


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--ram-kbit", "10"], "no build fits"),
        (["--bandwidth", "4000"], "wider --beat-bytes"),
        (["--clock", "0"], "must be above 0"),
        (["--beat-bytes", "12"], "power of two"),
        (["--latency", "-1"], "latency"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(arguments, text, capsys):
    assert main([*COMMAND, *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error and error.startswith("sterna: ") and error.count("\n") == 1
