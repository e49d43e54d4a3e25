"""How a model is shared among clusters: every trit in one of them, at the column where its activation arrives."""

import dataclasses

import numpy as np
import pytest
from cluster_models import CLUSTERED, TINY, random_model
from hypothesis import given, settings
from hypothesis import strategies as st

from sterna.compiler.arrangement import Arrangement
from sterna.compiler.image import compile_model
from sterna.emulator.exchange import Activations, agree
from sterna.errors import SternaError
from sterna.spec import isa
from sterna.spec.config import preset
from sterna.spec.packing import TRITS_PER_BYTE, unpack

SIZES = {"hidden": 48, "inner": 80, "vocab": 100}


def column_of(element, length, config):
    """The formula of docs/program.md, the other way round."""
    cluster, place = divmod(element, length // config.clusters)
    row, lane = divmod(place, config.vector_width)
    return row * config.word_bytes + cluster * config.vector_width + lane


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([*CLUSTERED, preset("sim-tiny")]), st.integers(1, 40), st.integers(0, 99))
def test_activations_arrive_at_the_columns_that_read_them(config, rows, seed):
    """What the clusters hold, exchanged as they do, stands in the order that the compiler gives the columns."""
    length = rows * config.clusters * config.vector_width
    values = np.random.default_rng(seed).integers(-128, 128, length)
    shares = [Arrangement.share(length, config, cluster) for cluster in range(config.clusters)]
    assert np.array_equal(np.concatenate([share.held for share in shares]), np.arange(length))
    gathered = agree([Activations(values[share.held]) for share in shares], vector_width=config.vector_width)
    for share in shares:
        assert np.array_equal(gathered.values, share.in_columns(values))
    if config.clusters > 1:
        assert np.array_equal(gathered.values[column_of(np.arange(length), length, config)], values)


def matrices(program, config):
    """Of each MATMUL of a program its row operation and trits, int8 [rows, columns], read byte by byte."""
    size, position = config.word_bytes, 0
    while position < len(program):
        d = isa.decode(program[position : position + isa.DESCRIPTOR_BYTES])
        position += config.descriptor_words * size
        if d["opcode"] == isa.Opcode.LOAD:
            position += d["count"] * size
        if d["opcode"] != isa.Opcode.MATMUL:
            continue
        shared = [2 << i for i in range(4) if d["tails"] >> i & 1]
        first = d["blocks"] * config.lanes
        segments = []  # rows a word, first column
        for rows in shared:
            segments.append((rows, first))
            first += config.lanes // rows
        segments += [(1, block * config.lanes) for block in range(d["blocks"])]
        trits = np.zeros((d["count"], first), np.int8)
        for rows, column in segments:
            width = size // rows
            words = -(-d["count"] // rows)
            codes = np.frombuffer(program[position : position + words * size], np.uint8).reshape(-1, width, 1)
            position += words * size
            digits = unpack(codes, TRITS_PER_BYTE).transpose(0, 2, 1).reshape(len(codes), -1)
            assert not digits[d["count"] :].any()
            trits[:, column : column + width * TRITS_PER_BYTE] = digits[: d["count"]]
        yield d["row_op"], trits


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([1, 2, 4]),
    st.sampled_from([2, 7, 64]),
    st.sampled_from([1, 2, 8]),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 30),
    st.integers(0, 99),
)
def test_every_trit_is_in_exactly_one_cluster(width, tile_rows, shared, hidden, inner, vocab, seed):
    """Builds of eight, four and two clusters, any cut into tiles and tail blocks."""
    clusters = TINY.word_bytes // width
    config = dataclasses.replace(
        TINY, vector_width=width, clusters=clusters, tile_rows=tile_rows, max_rows_per_word=shared
    )
    step = config.clusters * config.vector_width
    model = random_model(hidden * step, inner * step, vocab * config.clusters, seed)
    image = compile_model(model, config)
    programs = dict(image.segments)
    found: dict[int, list[np.ndarray]] = {}
    for cluster in range(config.clusters):
        own: dict[int, list[np.ndarray]] = {}
        for row_op, trits in matrices(programs[cluster * config.channel_bytes], config):
            own.setdefault(row_op, []).append(trits)
        for row_op, tiles in own.items():
            if row_op == isa.RowOp.RESIDUAL:  # o, then down
                count = hidden * config.vector_width
                rows = np.cumsum([len(tile) for tile in tiles]).tolist().index(count) + 1
                found.setdefault(-1, []).append(np.concatenate(tiles[:rows]))
                tiles = tiles[rows:]
            found.setdefault(row_op, []).append(np.concatenate(tiles))
    (layer,) = model.layers
    gate, up = np.split(unpack(layer.glu.gate.packed, hidden * step), 2)
    expected = {isa.RowOp.SILU: gate, isa.RowOp.MUL: up}
    for row_op, projection in (
        (isa.RowOp.FORGET, layer.f),
        (isa.RowOp.RECUR, layer.i),
        (isa.RowOp.OUTGATE, layer.g),
        (-1, layer.o),
        (isa.RowOp.RESIDUAL, layer.glu.down),
        (isa.RowOp.LOGIT, model.head),
    ):
        expected[row_op] = unpack(projection.packed, projection.columns)
    assert found.keys() == expected.keys()
    for row_op, trits in expected.items():
        there = np.concatenate(found[row_op])  # cluster by cluster, which is row by row
        columns = trits.shape[1]
        assert np.array_equal(there[:, column_of(np.arange(columns), columns, config)], trits)
        assert np.count_nonzero(there) == np.count_nonzero(trits)  # padding is zeros


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 52}, "hidden 52, and the 4 clusters of configuration sim-tiny-c4 share multiples of 8"),
        ({"inner": 84}, "inner 84, and the 4 clusters of configuration sim-tiny-c4 share multiples of 8"),
        ({"vocab": 99}, "vocab 99, and the 4 clusters of configuration sim-tiny-c4 share multiples of 4"),
    ],
)
def test_sizes_that_clusters_cannot_share_are_refused(change, message):
    with pytest.raises(SternaError, match=message):
        compile_model(random_model(**SIZES | change, seed=1), TINY)
