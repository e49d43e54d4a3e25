"""Compiled loops of the fast CPU engine: the integers of docs/numerics.md, one sequence at a time."""
