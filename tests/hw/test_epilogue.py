"""The epilogue and the embedding rows under Verilator."""

from bench import run_bench

from sterna.spec.config import preset
from sterna_hw.embedding_rows import EmbeddingRows
from sterna_hw.epilogue import Epilogue

CONFIG = "sim-tiny"


def test_epilogue() -> None:
    run_bench(Epilogue(config=preset(CONFIG)), "cocotb_epilogue", parameters={"STERNA_CONFIG": CONFIG})


def test_embedding_rows() -> None:
    run_bench(EmbeddingRows(config=preset(CONFIG)), "cocotb_embedding_rows", parameters={"STERNA_CONFIG": CONFIG})
