"""Boards whose bitstreams only Vivado makes: everything for it is emitted here, and sized with Yosys."""
