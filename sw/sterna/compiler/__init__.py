"""From a model to the memory image that a configuration of the accelerator runs (docs/program.md)."""
