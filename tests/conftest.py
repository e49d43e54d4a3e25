"""Tests run side by side, so numerical libraries take one core each.

OpenBLAS and OpenMP wait by spinning: where another process has the core, the golden model is eighteen times slower with
two threads than with one. Set before the first import of NumPy, here and in the workers that inherit the environment.
"""

import os

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(name, "1")
