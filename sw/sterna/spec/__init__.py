"""The specification as data and integer functions: no torch, no Amaranth, only NumPy.

Everything that two sides must agree on stands here once: widths and rounding (:mod:`.numerics`), trit
packing (:mod:`.packing`), descriptors (:mod:`.isa`), registers (:mod:`.registers`) and the geometry of a
build (:mod:`.config`). Gateware, golden model, compiler, driver, tests and the tables in ``docs/`` derive from it.
"""
