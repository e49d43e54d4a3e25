"""The compiler through the emulator: programs of odd geometries give the golden integers on every configuration."""

import dataclasses

import numpy as np
import pytest
from checkpoints import write_checkpoint

from sterna.compiler.account import account
from sterna.compiler.image import compile_model
from sterna.compiler.layout import ColumnBlocks, generated_order, tile_words
from sterna.compiler.program import ProgramWriter
from sterna.emulator.interpreter import Interpreter, ProgramError
from sterna.errors import SternaError
from sterna.golden.model import GoldenModel, Trace
from sterna.importer import import_checkpoint
from sterna.model.integer import IntegerModel
from sterna.model.store import Model
from sterna.spec import isa
from sterna.spec.config import PRESETS, HardwareConfig, preset
from sterna.spec.generator import fixed_rows
from sterna.spec.packing import unpack
from sterna.spec.registers import ErrorCause

RESIDUALS = ("embedding", "residual")  # ends of the names of traced residuals
ODD = HardwareConfig(
    name="odd",
    beat_bytes=4,
    word_bytes=16,
    vector_width=8,
    tile_rows=48,
    max_rows_per_word=8,
    activation_depth=1024,
    vector_depth=1024,
    param_depth=1024,
    state_depth=512,
    prefetch_words=64,
    burst_beats=16,
)
GEOMETRIES = [
    {"hidden": 48, "layers": 2, "inner": 80, "vocab": 97},
    {"hidden": 7, "layers": 1, "inner": 13, "vocab": 11},
    {"hidden": 130, "layers": 3, "inner": 259, "vocab": 211},
]
FIXED = {"f": [0, 1], "i": [2], "g": [1], "gate": [0], "o": [2], "down": [0]}
RESERVOIR = {"seed": (1 << 32) - 3, "shared": False, "fixed": FIXED, "mixer_only": [1]}


def stored(tmp_path, **geometry) -> Model:
    import_checkpoint(write_checkpoint(tmp_path / "source", seed=1, **geometry), tmp_path / "model")
    return Model.open(tmp_path / "model")


def stream(image, config, token):
    (_, program), (_, embedding) = image.segments
    row = image.embed_beats * config.beat_bytes
    return np.frombuffer(embedding[token * row : (token + 1) * row] + program, np.uint8)


def in_order(trace, order):
    """The row results of a golden trace as an image with this order of the residual gives them."""
    return np.concatenate([v[0][order] if name.endswith(RESIDUALS) else v[0] for name, v in trace.results])


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: "-".join(map(str, g.values())))
@pytest.mark.parametrize("config", [preset("sim-tiny"), preset("sim-small"), ODD], ids=lambda c: c.name)
def test_program_gives_the_golden_integers(tmp_path, geometry, config):
    model = stored(tmp_path, **geometry)
    image = compile_model(model, config)
    golden, interpreter = GoldenModel(model), Interpreter(config)
    for index, token in enumerate(np.random.default_rng(2).integers(0, geometry["vocab"], 4)):
        trace = Trace()
        logits = golden.step([token], trace=trace)
        result = interpreter.run(stream(image, config, token), fresh=index == 0)
        expected = np.concatenate([values[0] for _, values in trace.results])
        assert np.array_equal(np.concatenate(result.trace), expected)
        assert np.array_equal(result.logits, logits[0])
        assert result.saturations == trace.saturations


@pytest.fixture(scope="module")
def reservoir(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("reservoir"), **GEOMETRIES[2], reservoir=RESERVOIR)


@pytest.mark.parametrize(
    "config", [preset("sim-tiny"), dataclasses.replace(ODD, generator=True, max_rows_per_word=1)], ids=lambda c: c.name
)
def test_generated_trits_leave_memory_and_change_no_integer(reservoir, config):
    """With tail blocks that are stored, and with a last full block that is; several tiles; every kind of projection."""
    model = reservoir
    image = compile_model(model, config)
    whole = compile_model(model, dataclasses.replace(config, generator=False))
    rows = 2 * 130 + 130 + 130 + 2 * 259  # of f, i, g and gate
    assert image.generated_bytes == rows * (130 // config.lanes) * config.word_bytes
    assert whole.generated_bytes == 0 and whole.residual_order is None
    assert (whole.program_beats - image.program_beats) * config.beat_bytes == image.generated_bytes
    found = account(image, config)
    assert found.total == (image.program_beats + image.embed_beats) * config.beat_bytes
    assert found.trits + found.generated == image.weight_bytes
    assert found.padding == account(whole, config).padding
    golden, interpreter = GoldenModel(model), Interpreter(config)
    for index, token in enumerate((3, 210, 0)):
        trace = Trace()
        logits = golden.step([token], trace=trace)
        result = interpreter.run(stream(image, config, token), fresh=index == 0)
        assert np.array_equal(np.concatenate(result.trace), in_order(trace, image.residual_order))
        assert np.array_equal(result.logits, logits[0])
        assert result.saturations == trace.saturations


@pytest.mark.parametrize("hidden", [40, 130])
def test_what_has_no_fixed_trits_that_read_the_residual_is_compiled_as_ever(tmp_path, hidden):
    fixed = {"o": [0], "down": [0]} if hidden == 130 else {"f": [0]}  # the other is no block of the build wide
    model = stored(tmp_path, hidden=hidden, layers=1, inner=47, vocab=11, reservoir={"seed": 1, "fixed": fixed})
    config = preset("sim-small")
    image, whole = (compile_model(model, dataclasses.replace(config, generator=g)) for g in (True, False))
    assert image.residual_order is None and image == whole


@pytest.mark.parametrize("generated", [0, 1, 2])
def test_left_out_words_are_what_the_generator_makes(generated):
    columns, rows = 187, range(7, 20)
    order = generated_order(columns, ODD)
    assert sorted(order) == list(range(columns))
    packed = fixed_rows(5, 9, rows, columns)
    words = tile_words(unpack(packed, columns)[:, order], ODD)
    kept = tile_words(unpack(packed, columns)[:, order], ODD, generated=generated)
    made = packed[:, : ODD.word_bytes * generated].reshape(len(rows), generated, ODD.word_bytes)
    made = made.transpose(1, 0, 2).reshape(-1, ODD.word_bytes)
    tails = len(words) - len(rows) * ColumnBlocks.of(columns, ODD).blocks
    assert np.array_equal(words[tails : tails + len(made)], made)
    assert np.array_equal(np.concatenate([words[:tails], words[tails + len(made) :]]), kept)


def test_generated_blocks_are_legal_where_there_is_a_generator_and_no_more_than_the_blocks():
    matmul = isa.decode(isa.encode(opcode=isa.Opcode.MATMUL, count=1, blocks=2, generated=2))
    assert isa.is_legal(matmul, generator=True) and not isa.is_legal(matmul, generator=False)
    assert not isa.is_legal(matmul | {"generated": 3}, generator=True)


@pytest.mark.parametrize("config", [*PRESETS.values(), ODD], ids=lambda c: c.name)
@pytest.mark.parametrize("columns", [1, 79, 80, 81, 160, 200, 512, 1000])
def test_column_blocks_cover_the_columns_with_less_padding_than_a_segment(config, columns):
    cut = ColumnBlocks.of(columns, config)
    assert cut.blocks >= 1
    smallest = config.lanes // config.max_rows_per_word
    waste = cut.columns(config) - columns
    assert 0 <= waste < (smallest if columns > config.lanes else config.lanes)
    words = tile_words(np.ones((13, columns), np.int8), config)
    assert words.shape == (cut.words(13), config.word_bytes)


def test_every_column_reaches_its_place():
    """One weight at a time, read back through the emulator's view of the words."""
    config, columns, rows = ODD, 107, 3
    cut = ColumnBlocks.of(columns, config)
    assert cut.tails
    activations = np.arange(1, columns + 1)
    interpreter = Interpreter(config)
    interpreter.activations[:columns] = activations
    for column in range(columns):
        trits = np.zeros((rows, columns), np.int8)
        trits[1, column] = -1
        data = tile_words(trits, config)
        sums = interpreter._matmul(
            {"count": rows, "blocks": cut.blocks, "tails": cut.tails, "generated": 0}, _words(data)
        )
        assert sums.tolist() == [0, -(column + 1), 0]


def _words(data):
    from sterna.emulator.interpreter import _Stream

    return _Stream(data.reshape(-1), data.shape[1])


@pytest.mark.parametrize("memory", ["vector_depth", "param_depth", "state_depth", "activation_depth"])
def test_model_that_does_not_fit_is_refused_by_name(tmp_path, memory):
    model = stored(tmp_path, hidden=48, layers=2, inner=80, vocab=97)
    with pytest.raises(SternaError, match=memory):
        compile_model(model, dataclasses.replace(preset("sim-tiny"), **{memory: 16}))


@pytest.mark.parametrize("shift", [-1, 48, 63])
@pytest.mark.parametrize("name", ["product_shift", "glu_shift", "embed_shift"])
def test_shifts_beyond_the_specification_are_refused(tmp_path, name, shift):
    model = IntegerModel.from_model(stored(tmp_path, hidden=48, layers=1, inner=80, vocab=97))
    if name == "embed_shift":
        model = dataclasses.replace(model, embed_shift=shift)
    else:
        layer = model.layers[0]
        change = {name: shift} if name == "product_shift" else {"glu": dataclasses.replace(layer.glu, glu_shift=shift)}
        model = dataclasses.replace(model, layers=(dataclasses.replace(layer, **change),))
    with pytest.raises(SternaError, match=f"right shift of {shift} bits, 0..47"):
        compile_model(model, preset("sim-small"))


def test_vocabulary_may_exceed_the_vector_addresses(tmp_path):
    """Logits have no place in vector memory, so their number is not bound by its 16-bit addresses."""
    config = preset("sim-tiny")
    model = IntegerModel.from_model(stored(tmp_path, hidden=3, layers=1, inner=5, vocab=(1 << 16) + 100))
    tiles = [isa.decode(chunk) for chunk in ProgramWriter(model, config).chunks()][-1 - 2 * 1026 : -1 : 2]
    assert all(tile["row_op"] == isa.RowOp.LOGIT for tile in tiles)
    assert sum(tile["count"] for tile in tiles) == (1 << 16) + 100
    assert [tile["first"] for tile in tiles] == [1] + [0] * 1025


def test_bad_programs_stop_with_their_cause(tmp_path):
    config = preset("sim-small")
    model = stored(tmp_path, hidden=48, layers=1, inner=80, vocab=97)
    good = stream(compile_model(model, config), config, 3)

    def cause(data):
        with pytest.raises(ProgramError) as caught:
            Interpreter(config).run(data, fresh=True)
        return caught.value.cause

    assert cause(good[: -config.word_bytes]) == ErrorCause.STREAM_END
    assert cause(np.zeros(config.word_bytes, np.uint8)) == ErrorCause.BAD_OPCODE
    assert cause(np.concatenate([good, good[: config.word_bytes]])) == ErrorCause.STREAM_END
    for fields in ({"opcode": 5, "count": 1}, {"opcode": 5, "count": 1, "blocks": 1, "row_op": 8}, {"opcode": 3}):
        descriptor = np.frombuffer(isa.encode(**fields), np.uint8)
        assert cause(np.pad(descriptor, (0, 32 * config.word_bytes))) == ErrorCause.BAD_OPCODE
    corrupt = good.copy()
    corrupt[-2 * config.word_bytes] = 243  # the last word of trits before END
    assert cause(corrupt) == ErrorCause.BAD_TRIT


def test_account_adds_up_to_the_bytes_that_are_read(tmp_path):
    config = preset("sim-small")
    model = stored(tmp_path, hidden=48, layers=2, inner=80, vocab=97)
    image = compile_model(model, config)
    found = account(image, config)
    assert found.total == (image.program_beats + image.embed_beats) * config.beat_bytes
    vectors = 9 * -(-48 * 2 // 32) + -(-80 * 2 // 32)  # nine of hidden, one of inner, in words of 32 bytes
    assert found.parameters == (2 * vectors + 2 * 3) * 32
    assert found.trits == image.weight_bytes and 0 < found.bound < 1


def test_descriptor_round_trip_and_range():
    data = isa.encode(opcode=isa.Opcode.QUANT, count=300, scale_exponent=-37)
    assert isa.decode(data)["scale_exponent"] == -37 and isa.decode(data)["count"] == 300
    with pytest.raises(ValueError, match="does not fit"):
        isa.encode(count=1 << 16)
    with pytest.raises(ValueError, match="no field"):
        isa.encode(colour=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"word_bytes": 24}, "word_bytes must be a power of two, not 24"),
        ({"slots": 17}, "slots must be 1"),
        ({"vector_width": 16}, "vector_width must be at most"),
        ({"tile_rows": 1 << 16}, "tile_rows must be"),
        ({"vector_depth": 1 << 17}, "vector_depth must be at most 65536"),
        ({"state_depth": 0}, "depths must be positive"),
        ({"max_rows_per_word": 32, "word_bytes": 32}, "max_rows_per_word must be at most 16"),
        ({"activation_depth": 100}, "activation_depth must be a multiple"),
        ({"vector_depth": 97}, "vector_depth must be a multiple"),
        ({"param_depth": 1027}, "param_depth must be a multiple"),
        ({"prefetch_words": 4, "burst_beats": 14}, "prefetch_words must hold a burst"),
        ({"burst_beats": 256, "beat_bytes": 32, "word_bytes": 32, "prefetch_words": 256}, "must fit 4096 bytes"),
        ({"outstanding": 0}, "outstanding must be"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_impossible_configurations_are_refused(change, message):
    with pytest.raises(SternaError, match=message):
        dataclasses.replace(ODD, **change)
