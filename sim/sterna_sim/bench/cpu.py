"""The CPU engine beside the float32 PyTorch model, in turns on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from sterna.cli import bench_cpu
from sterna_sim.bench.cases import STORED, CpuCase

TOKENS, REPEATS = 4, 5


@dataclass(frozen=True, kw_only=True)
class CpuMeasurement:
    """Times are medians in milliseconds a token; ``ratio`` is the median of the ratios of the repeats."""

    model: str
    threads: int
    engine: float
    pytorch: float
    ratio: float
    packed_bytes: int
    engine_bytes: int  # resident
    pytorch_bytes: int


def measure(case: CpuCase) -> CpuMeasurement:
    """Time both; a token of the engine is compared with golden.

    Raises:
        SternaError: PyTorch is not installed, or the engine's integers are not golden's.
    """
    name = str(STORED.get(case.model, case.model))
    found = bench_cpu.measure(name, tokens=TOKENS, repeats=REPEATS, calibrate=False)
    return CpuMeasurement(
        model=case.model,
        threads=found["threads"],
        engine=found["cpu_ms_per_token"]["median"],
        pytorch=found["reference_ms_per_token"]["median"],
        ratio=found["speed_ratio"],
        packed_bytes=found["packed_bytes"],
        engine_bytes=found["cpu_resident_bytes"],
        pytorch_bytes=found["reference_resident_bytes"],
    )
