from bench import run_bench

from sterna_hw.sigma import Sigma


def test_sigma() -> None:
    run_bench(Sigma(), "cocotb_sigma")
