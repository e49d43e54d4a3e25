"""The ternary lanes: packed trits and 8-bit activations in, row sums out."""

from sterna_hw.lanes.lanes import FIRST_WORD, TernaryLanes, job_cycles, pipeline_depth

__all__ = ["FIRST_WORD", "TernaryLanes", "job_cycles", "pipeline_depth"]
