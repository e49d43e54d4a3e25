"""The ternary lanes under Verilator, in several geometries."""

from __future__ import annotations

import dataclasses
import json

import pytest
from bench import run_bench

from sterna.spec.config import preset
from sterna_hw.lanes import TernaryLanes, job_cycles

TINY = preset("sim-tiny")
CONFIGS = {
    "word8-rows4": TINY,
    "word8-rows1": dataclasses.replace(TINY, tile_rows=20, max_rows_per_word=1, activation_depth=80),
    # A row of 65520 columns: the sums use all 24 bits. The tile is no multiple of the rows in a word.
    "word16-rows2": dataclasses.replace(TINY, word_bytes=16, tile_rows=37, max_rows_per_word=2, activation_depth=65536),
    # Blocks of more words than a table takes to build.
    "word32-rows4": dataclasses.replace(TINY, word_bytes=32, tile_rows=600, activation_depth=4096),
    "word64-rows16": dataclasses.replace(
        TINY, word_bytes=64, tile_rows=70, max_rows_per_word=16, activation_depth=2048
    ),
    # Without tables of sums: as on the clusters of a large memory, and with every other rank of tail blocks.
    "select-word8-rows2": preset("sim-tiny-c4"),
    "select-word8-rows1": dataclasses.replace(
        TINY, tile_rows=20, max_rows_per_word=1, activation_depth=80, sum_tables=False
    ),
    "select-word32-rows8": dataclasses.replace(
        TINY, word_bytes=32, tile_rows=130, max_rows_per_word=8, activation_depth=4096, sum_tables=False
    ),
    "select-word64-rows16": dataclasses.replace(
        TINY, word_bytes=64, tile_rows=70, max_rows_per_word=16, activation_depth=2048, sum_tables=False
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_lanes(name: str) -> None:
    config = CONFIGS[name]
    run_bench(
        TernaryLanes(config=config),
        "cocotb_lanes",
        parameters={"STERNA_TEST_CONFIG": json.dumps(dataclasses.asdict(config))},
    )


def test_job_cycles_by_hand() -> None:
    assert job_cycles(TINY, rows=1, blocks=1, tails=0) == 250 + 1 + 9 + 1
    assert job_cycles(TINY, rows=64, blocks=2, tails=0b10) == 250 + 2 * 250 + 64 + 9 + 1
    large = dataclasses.replace(TINY, word_bytes=32, tile_rows=600)
    assert job_cycles(large, rows=600, blocks=3, tails=0b11) == 250 + 300 + 250 + 600 + 600 + 600 + 11 + 1


def test_job_cycles_by_hand_without_tables() -> None:
    config = preset("u280")
    assert job_cycles(config, rows=1, blocks=1, tails=0) == 7 + 1 + 13 + 1
    assert job_cycles(config, rows=80, blocks=2, tails=0b111) == 7 + 40 + 20 + 10 + 80 + 80 + 13 + 1
    assert job_cycles(config, rows=32, blocks=1, tails=0b111) == 7 + 16 + 8 + 7 + 32 + 13 + 1  # the build behind four
    # Three words are too few to follow five, or be followed, without three cycles between.
    assert job_cycles(config, rows=20, blocks=1, tails=0b110) == 7 + (5 + 3) + 7 + 20 + 13 + 1
