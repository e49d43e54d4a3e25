"""The memories under Verilator, each against a plain list."""

from __future__ import annotations

import dataclasses
import json

import pytest
from amaranth import Module
from amaranth.lib import wiring
from bench import run_bench

from sterna.spec.config import HardwareConfig, preset
from sterna_hw.memories import ActivationMemory, ParameterMemory, StateMemory, VectorMemory

NAMES = {"vector": VectorMemory, "state": StateMemory, "parameter": ParameterMemory, "activation": ActivationMemory}


class Memories(wiring.Component):
    """All four side by side, so that one build serves all tests."""

    def __init__(self, *, config: HardwareConfig) -> None:
        self._parts = {name: kind(config=config) for name, kind in NAMES.items()}
        super().__init__({name: wiring.Out(part.signature) for name, part in self._parts.items()})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, part in self._parts.items():
            m.submodules[name] = part
            wiring.connect(m, wiring.flipped(getattr(self, name)), part)
        return m


SMALL = dataclasses.replace(
    preset("sim-tiny"), word_bytes=16, vector_depth=24, param_depth=48, activation_depth=96, state_depth=21
)


@pytest.mark.parametrize(("vector_width", "clusters"), [(1, 1), (2, 1), (8, 1), (2, 8)])  # 8 = word_bytes / 2
def test_memories(vector_width: int, clusters: int) -> None:
    config = dataclasses.replace(SMALL, vector_width=vector_width, clusters=clusters, generator=clusters == 1)
    run_bench(
        Memories(config=config),
        "cocotb_memories",
        parameters={"STERNA_TEST_CONFIG": json.dumps(dataclasses.asdict(config))},
    )
