"""The engine for NVIDIA GPUs: packed ternary weights, kernels compiled at run time, the integers of golden."""
