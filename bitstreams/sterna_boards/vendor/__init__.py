"""Boards whose bitstreams only the vendor's tool makes: everything for it is emitted here, and sized with Yosys."""
