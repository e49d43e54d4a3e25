"""Sterna's accelerator under Verilator: build, C++ harness with a memory model, and the transport to drive it."""
