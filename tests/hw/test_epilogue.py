from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from bench import run_bench

from sterna.spec.config import HardwareConfig, preset
from sterna_hw.embedding_rows import EmbeddingRows
from sterna_hw.epilogue import Epilogue

CONFIG = "sim-tiny"
RENAMED = {"trace": "trace_values"}  # Verilator's own class has a method called trace


class EpilogueTop(wiring.Component):
    """An epilogue whose port names a Verilator top can have."""

    def __init__(self, *, config: HardwareConfig) -> None:
        self._epilogue = Epilogue(config=config)
        super().__init__({RENAMED.get(name, name): member for name, member in self._epilogue.signature.members.items()})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.epilogue = self._epilogue
        for name, member in self._epilogue.signature.members.items():
            inner, outer = getattr(self._epilogue, name), getattr(self, RENAMED.get(name, name))
            if member.is_signature:
                wiring.connect(m, inner, wiring.flipped(outer))
            else:
                m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)
        return m


def test_epilogue() -> None:
    run_bench(EpilogueTop(config=preset(CONFIG)), "cocotb_epilogue", parameters={"STERNA_CONFIG": CONFIG})


def test_embedding_rows() -> None:
    run_bench(EmbeddingRows(config=preset(CONFIG)), "cocotb_embedding_rows", parameters={"STERNA_CONFIG": CONFIG})
