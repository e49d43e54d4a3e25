from bench import run_bench

from sterna.spec.config import preset
from sterna_hw.sampler import Sampler


def test_sampler() -> None:
    run_bench(Sampler(config=preset("sim-tiny")), "cocotb_sampler")
