"""System under Verilator: a model is loaded, run and read back over the byte links alone."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from bench import run_bench

sys.path.append(str(Path(__file__).resolve().parents[1] / "sw"))
from checkpoints import write_checkpoint

from sterna.compiler.image import compile_model
from sterna.golden.model import GoldenModel
from sterna.importer import import_checkpoint
from sterna.model.store import Model
from sterna.spec.board import BoardDescription, DramDescription
from sterna.spec.config import HardwareConfig, preset
from sterna_hw.system import System

TINY = preset("sim-tiny")
TOKENS = (3, 0, 6)
BUILD_ID = 0xFEDC_BA98_7654_3210_8899_AABB_CCDD_EEFF


def description(config: HardwareConfig) -> BoardDescription:
    dram = DramDescription(
        kind="DDR3",
        bytes=1 << 16,
        data_bytes=config.beat_bytes,
        byte_lanes=2,
        phases=2,
        phy={},
        registers={},
        init_sequence=(),
    )
    return BoardDescription(board="bench", clock=75_000_000, links=("uart:12000000", "usb"), config=config, dram=dram)


def test_system(tmp_path: Path) -> None:
    import_checkpoint(
        write_checkpoint(tmp_path / "source", seed=7, hidden=13, layers=1, inner=25, vocab=7), tmp_path / "model"
    )
    model = Model.open(tmp_path / "model")
    image, golden = compile_model(model, TINY), GoldenModel(model)
    case = {
        "segments": [(address, bytes(contents).hex()) for address, contents in image.segments],
        "registers": {
            "PROGRAM_ADDRESS": image.program_address,
            "PROGRAM_BEATS": image.program_beats,
            "EMBED_ADDRESS": image.embed_address,
            "EMBED_BEATS": image.embed_beats,
            "VOCABULARY": image.vocabulary,
            "LOGITS_ADDRESS": image.logits_address,
        },
        "tokens": TOKENS,
        "logits": [np.asarray(golden.step([token])[0], "<i4").tobytes().hex() for token in TOKENS],
        "config_hash": TINY.hash,
        "build_id": hex(BUILD_ID),
        "description": description(TINY).pack().hex(),
    }
    (tmp_path / "case.json").write_text(json.dumps(case))
    system = System(config=TINY, description=description(TINY), build_id=BUILD_ID, links=2)
    run_bench(system, "cocotb_system", parameters={"CASE": tmp_path / "case.json", "MEMORY_BYTES": 1 << 16})


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize(
    "options, text",
    [
        ({"description": description(preset("ecpix5"))}, "the description is of ecpix5, the accelerator of sim-tiny"),
        ({"build_id": 1 << 128}, "build_id must have at most 128 bits"),
        ({"links": 3}, "links must be 1 or 2, not 3"),
    ],
)
def test_what_cannot_be_built(options: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text) as caught:
        System(**{"config": TINY, "description": description(TINY), "build_id": 0, **options})
    del caught
    gc.collect()  # the component that was not made complains when it goes
