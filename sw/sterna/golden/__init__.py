"""The golden model: docs/numerics.md as NumPy. Every other engine must return these integers."""
