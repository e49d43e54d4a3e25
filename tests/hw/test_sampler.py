import pytest
from bench import run_bench

from sterna.spec.config import preset
from sterna_hw.sampler import Sampler


@pytest.mark.parametrize("name", ["sim-tiny", "sim-tiny-c4"])
def test_sampler(name: str) -> None:
    built = preset(name)
    run_bench(Sampler(config=built), "cocotb_sampler", parameters={"STERNA_CLUSTER": int(built.clusters > 1)})
