"""Board twins: the top level that is synthesised, with its primitives, memory chip and serial line as models."""
