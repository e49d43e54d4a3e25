"""The ternary lanes: packed trits and 8-bit activations in, row sums out."""

from sterna_hw.lanes.blocks import build_cycles
from sterna_hw.lanes.lanes import TernaryLanes, first_word, job_cycles, pipeline_depth

__all__ = ["TernaryLanes", "build_cycles", "first_word", "job_cycles", "pipeline_depth"]
