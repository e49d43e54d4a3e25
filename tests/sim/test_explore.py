"""The cycle model against the RTL, and its program against the compiler's."""

import dataclasses
import json
import re
import sys
from itertools import product
from pathlib import Path

import pytest
from amaranth.back import rtlil

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint
from test_whole_model import TINY, WIDE

from sterna.cli.main import main
from sterna.compiler.image import compile_model
from sterna.compiler.layout import ColumnBlocks
from sterna.engines.engine import Origin, SlotToken
from sterna.errors import SternaError
from sterna.explore import cycles
from sterna.explore.area import Memory, block_rams, memories, multipliers, state_memory
from sterna.explore.boards import NAMES, board_limits
from sterna.explore.cycles import MemoryRate, token_cycles
from sterna.explore.program import token
from sterna.explore.search import SLOTS, Limits, candidates, evaluate, pareto
from sterna.importer import import_checkpoint
from sterna.importer.synthetic import GEOMETRIES
from sterna.model.geometry import Geometry
from sterna.model.reservoir import Reservoir
from sterna.model.store import Model
from sterna.spec.config import PRESETS, HardwareConfig, preset
from sterna.spec.isa import Opcode, decode
from sterna_boards.boards import BOARDS
from sterna_boards.boards.expect import expect
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


CLUSTERS = preset("sim-tiny-c4")


def slots(config, count):
    return dataclasses.replace(config, name=f"{config.name}-{count}-slots", slots=count)


PLAIN = [config for config in PRESETS.values() if config.clusters == 1 and config.beat_bytes < 128]  # small enough
GEOMETRY = Geometry(hidden=256, layers=4, inner=700, vocab=2000, rms_eps=1e-6)
THIRD = MemoryModel(beats_numerator=1, beats_denominator=3)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    found = {"shipped": Model.open(MODEL)}
    for name, sizes in {
        "small": {"hidden": 130, "layers": 3, "inner": 259, "vocab": 211},
        "large": {"hidden": 256, "layers": 2, "inner": 600, "vocab": 1000},
        "shared": {"hidden": 256, "layers": 2, "inner": 608, "vocab": 1000},
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
        (slots(TINY, 2), "small", MemoryModel(latency=100)),  # a row of the embedding for each
        (slots(TINY, 4), "reservoir", MemoryModel()),
        (slots(BROAD, 2), "large", MemoryModel()),
        (CLUSTERS, "shared", MemoryModel()),  # exchanges
        (CLUSTERS, "shared", THIRD),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else str(getattr(value, "latency", value)),
)
def test_cycles_are_those_of_the_rtl(models, config, name, memory):
    assert abs(error(models[name], config, memory)) < 0.005


def test_what_slots_add_is_modelled(models):
    """Not only the sum is right: so are the cycles that the rows of further slots take."""
    predicted = [predict(models["small"], slots(TINY, count), THIRD) for count in (1, 4)]
    measured = [simulate(models["small"], slots(TINY, count), THIRD) for count in (1, 4)]
    added = measured[1] - measured[0]
    assert added > 300 and abs(predicted[1] - predicted[0] - added) < 0.05 * added


def test_a_round_trip_beyond_bursts_and_buffer_is_less_exact(models):
    assert abs(error(models["small"], TINY, MemoryModel(latency=400))) < 0.05


def error(model, config, memory):
    """Of the predicted cycles, as a share of those measured."""
    measured, predicted = simulate(model, config, memory), predict(model, config, memory)
    print(f"{config.name}: predicted {predicted}, measured {measured}")
    return predicted / measured - 1


def simulate(model, config, memory):
    """Cycles of a pass with a sequence in each slot, equal to golden."""
    with CoSimulation(model, config, memory=memory) as cosim:
        return cosim.run({slot: SlotToken(3 + slot, Origin.FRESH) for slot in range(config.slots)}).cycles


def predict(model, config, memory):
    rate = MemoryRate(bytes_per_cycle=memory.peak_bytes(config.beat_bytes, config.clusters), latency=memory.latency)
    return token_cycles(model.geometry, config, rate)


@pytest.mark.parametrize("rate", [1.3, 5.0, 7.9])
@pytest.mark.parametrize("config", [TINY, SERIAL, BROAD], ids=lambda config: config.name)
def test_layers_that_are_known_take_what_they_would(config, rate, monkeypatch):
    """A pass in one piece, in which nothing is known, takes as many cycles."""
    memory = MemoryRate(bytes_per_cycle=rate)
    reservoir = Reservoir(fixed={}, mixer_only=(1, 3, 5))  # every other layer is another
    geometries = (GEOMETRY, dataclasses.replace(GEOMETRY, layers=7, reservoir=reservoir))
    found = [token_cycles(geometry, config, memory) for geometry in geometries]
    monkeypatch.setattr(cycles, "parts", lambda *sizes: [tuple(token(*sizes))])
    assert found == [token_cycles(geometry, config, memory) for geometry in geometries]


def test_area_is_not_that_of_clusters():
    with pytest.raises(SternaError, match="area is known"):
        list(memories(CLUSTERS))


@pytest.mark.parametrize(
    ("name", "config"),
    [*product(("small", "reservoir"), (TINY, WIDE, TALL, SMALL)), ("shared", CLUSTERS)],
    ids=lambda value: getattr(value, "name", value),
)
def test_steps_are_those_of_the_compiler(models, name, config):
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


@pytest.mark.parametrize(
    "config",
    [*(c for c in PRESETS.values() if c.clusters == 1), WIDE, SERIAL, TALL, BROAD, slots(TINY, 3)],
    ids=lambda config: config.name,
)
def test_memory_and_multipliers_are_those_of_the_netlist(config):
    netlist = rtlil.convert(Accelerator(config=config))
    found = re.findall(r"^\s*memory width (\d+) size (\d+) ", netlist, re.MULTILINE)
    expected = [(m.width, m.depth) for m in memories(config) for _ in range(m.count)]
    assert sorted((int(width), int(depth)) for width, depth in found) == sorted(expected)
    products = re.findall(r"cell \$mul .*?parameter \\A_WIDTH (\d+).*?parameter \\B_WIDTH (\d+)", netlist, re.DOTALL)
    assert len(products) == multipliers(config)


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (Memory(24, 2048), 3),  # 9 bits by 2,048
        (Memory(36, 512), 1),
        (Memory(37, 512), 2),
        (Memory(128, 1184), 12),  # 36 bits by 512, three deep
        (Memory(24, 2368), 4),  # 9 by 2,048, and what is left in one of 36 by 512
        (Memory(24, 48), 0),  # the longest ring of eight slots
        (Memory(24, 128), 1),
        (Memory(1, 16384, 3), 3),
    ],
)
def test_block_rams_of_a_memory(memory, expected):
    assert memory.block_rams == expected


def test_block_rams_are_those_of_the_bitstreams():
    """Accelerators in the reports of ``make bitstream``."""
    assert [block_rams(preset(name)) for name in ("ecpix5", "butterstick", "ulx3s")] == [138, 187, 43]


def test_state_in_ultra_rams():
    config = preset("kv260")
    assert state_memory(config).ultra_rams == 7  # three of 24 bits side by side, 4,096 deep: as Yosys maps it
    assert Memory(73, 4097).ultra_rams == 4
    without = block_rams(config) - block_rams(config, state_in_ultra_rams=True)
    assert without == state_memory(config).block_rams == 120


@pytest.fixture(scope="module")
def found():
    """Some builds for a small model, with their figures."""
    everything = list(candidates(GEOMETRY, beat_bytes=8))
    configs = [config for number, config in enumerate(everything) if number // len(SLOTS) % 10 == 0]
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
        assert b.tokens_per_second == b.slots * 100e6 / b.cycles
        assert b.efficiency == -(-GEOMETRY.ternary_weights // 5) / (4 * b.cycles)


@pytest.mark.parametrize("names", [("luts",), ("block_rams",), ("multipliers",), ("slots",), ("lanes", "slots")])
def test_limits_are_kept(found, names):
    middle = {name: sorted(getattr(c, name) for c in found)[len(found) // 2] for name in names}
    limits, memory = Limits(**middle), MemoryRate(bytes_per_cycle=4)
    kept = list(evaluate([c.config for c in found], GEOMETRY, memory, clock_mhz=100, limits=limits))
    for before, after in zip(found, kept, strict=True):
        assert after == (before if all(getattr(before, name) <= most for name, most in middle.items()) else None)
    assert 0 < kept.count(None) < len(kept)


def test_ultra_rams_take_the_state(found):
    limits = Limits(ultra_rams=2)
    configs = [c.config for c in found]
    kept = list(evaluate(configs, GEOMETRY, MemoryRate(bytes_per_cycle=4), clock_mhz=100, limits=limits))
    for before, after in zip(found, kept, strict=True):
        assert (after is None) == (before.slots > 2)
        if after:
            assert after.ultra_rams == after.slots and after.block_rams < before.block_rams


def test_slots_share_a_pass(found):
    """The same build with more slots: more tokens a second, never more than slots times as many, and more area."""
    of = {dataclasses.replace(c.config, slots=1): c for c in found if c.slots == 1}
    others = [
        (c, of[single]) for c in found if (single := dataclasses.replace(c.config, slots=1)) in of and c.slots > 1
    ]
    assert len(others) > 50
    for many, one in others:
        assert one.cycles < many.cycles < 1.5 * one.cycles
        assert many.tokens_per_second == many.slots * 100e6 / many.cycles
        assert many.luts > one.luts and many.block_rams > one.block_rams and many.multipliers > one.multipliers


COMMAND = ["explore", "8m", "--clock", "100", "--bandwidth", "400", "--beat-bytes", "8"]


def test_command_prints_the_front(capsys):
    assert main([*COMMAND, "--lanes", "40", "--slots", "2"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    columns = (
        "tokens/s roofline slots lanes vector rows/word tile~rows prefetch LUT~sites block~RAMs ultra~RAMs multipliers"
    )
    assert header.split() == columns.replace("~", " ").split()
    assert main([*COMMAND, "--lanes", "40", "--slots", "2", "--json"]) == 0
    builds = json.loads(capsys.readouterr().out)["builds"]
    assert len(lines) == len(builds) > 3
    for line, build in zip(lines, builds, strict=True):
        assert line.split()[0] == f"{build['tokens_per_second']:.2f}"
        config = HardwareConfig(**build["config"])
        rate = MemoryRate(bytes_per_cycle=4)
        assert build["cycles"] == token_cycles(GEOMETRIES["8m"], config, rate)
        assert config.lanes == build["lanes"] <= 40 and config.slots == build["slots"] <= 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--block-rams", "10"], "no build fits"),
        (["--bandwidth", "4000"], "wider --beat-bytes"),
        (["--clock", "0"], "must be above 0"),
        (["--beat-bytes", "12"], "power of two"),
        (["--latency", "-1"], "latency"),
        (["--luts", "0"], "must be above 0"),
        (["--board", "abacus"], "there is no board 'abacus'"),
        (["--slots", "1", "--plot", "builds.xyz"], "no pictures of kind 'xyz'"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(arguments, text, capsys):
    assert main([*COMMAND, *arguments]) == 2
    error = capsys.readouterr().err
    assert text in error and error.startswith("sterna: ") and error.count("\n") == 1


def test_a_board_is_needed_or_its_figures(capsys):
    assert main(["explore", "8m", "--clock", "100"]) == 2
    assert "--board" in capsys.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_the_build_of_a_board_is_within_its_limits(name):
    """What is shipped for a board fits it, and explore finds nothing faster for one sequence that is no larger."""
    board = board_limits(name)
    config = preset(name)
    assert board.beat_bytes == config.beat_bytes
    (shipped,) = evaluate([config], GEOMETRIES["8m"], board.memory, clock_mhz=board.clock_mhz, limits=board.limits)
    if name in BOARDS:
        assert shipped is not None
        assert board.clock_mhz * 1e6 == BOARDS[name].clock
        expected = expect(BOARDS[name], "8m", GEOMETRIES["8m"]).tokens_per_second
        assert shipped.tokens_per_second == pytest.approx(expected)


def test_options_change_a_board(capsys, tmp_path):
    command = ["explore", "8m", "--board", "ulx3s", "--slots", "1", "--json"]
    assert main(command) == 0
    plain = json.loads(capsys.readouterr().out)
    file = tmp_path / "builds.svg"
    assert main([*command, "--clock", "60", "--luts", "9000", "--plot", str(file)]) == 0
    changed = json.loads(capsys.readouterr().out)
    assert plain["limits"]["luts"] > 9000 == changed["limits"]["luts"]
    assert max(build["luts"] for build in changed["builds"]) <= 9000
    assert plain["limits"]["block_rams"] == changed["limits"]["block_rams"]
    # The memory is as fast as before: at a faster clock a token waits more cycles for it.
    assert changed["builds"][0]["cycles"] > 1.15 * plain["builds"][0]["cycles"]
    assert b"<svg" in file.read_bytes() and len(list(tmp_path.iterdir())) == 1
