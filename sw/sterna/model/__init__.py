"""Stored models: the format, reading it, and the integer constants that follow from it (docs/model-format.md)."""
