"""The engine for NVIDIA GPUs: packed ternary weights, the integers of docs/numerics.md, kernels compiled at run time."""
