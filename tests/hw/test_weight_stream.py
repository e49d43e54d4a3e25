"""WeightStream under Verilator: order, bursts, bandwidth, flush, errors."""

from __future__ import annotations

import pytest
from bench import run_bench

from sterna.spec.config import HardwareConfig
from sterna_hw.weight_stream import WeightStream


def config(beat: int, word: int, **changes: int) -> HardwareConfig:
    values = {
        "vector_width": 2,
        "tile_rows": 64,
        "activation_depth": 1024,
        "vector_depth": 1024,
        "param_depth": 1024,
        "state_depth": 512,
        "prefetch_words": 64,
        "burst_beats": 16,
        "outstanding": 4,
    }
    return HardwareConfig(name=f"beat{beat}-word{word}", beat_bytes=beat, word_bytes=word, **{**values, **changes})


@pytest.mark.parametrize(
    "built",
    [
        config(8, 8),
        config(16, 32, burst_beats=13, prefetch_words=32, address_width=40),  # fills up to one beat less than a burst
        config(4, 16),
    ],
    ids=lambda built: built.name,
)
def test_weight_stream(built: HardwareConfig) -> None:
    run(built)


def run(built: HardwareConfig) -> None:
    fields = ("beat_bytes", "word_bytes", "address_width", "burst_beats", "outstanding", "prefetch_words")
    parameters = {name.upper(): getattr(built, name) for name in fields}
    run_bench(WeightStream(config=built), "cocotb_weight_stream", parameters=parameters)


def test_the_smallest_buffer_never_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bursts that are no whole words, in a buffer of one burst and a word; full rate is not to be had with it."""
    monkeypatch.setenv("STERNA_COCOTB_FILTER", "random_segments|flush_anywhere|room")
    run(config(4, 16, burst_beats=13, prefetch_words=4))
