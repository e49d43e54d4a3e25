"""What the tests of clusters share: the configurations that have them, and models of any size."""

import numpy as np

from sterna.model.geometry import Geometry
from sterna.model.integer import IntegerGLU, IntegerLayer, IntegerModel, IntegerProjection, NormVector
from sterna.model.store import Embedding
from sterna.spec.config import PRESETS, preset
from sterna.spec.numerics import ScaleConstants
from sterna.spec.packing import pack

TINY, MANY = preset("sim-tiny-c4"), preset("u280")
CLUSTERED = [config for config in PRESETS.values() if config.clusters > 1]


def random_model(hidden, inner, vocab, seed):
    """A layer of random integers; what it computes does not matter."""
    rng = np.random.default_rng(seed)
    constants = ScaleConstants(eps_mantissa=1, eps_shift=1, eps_const=1, mantissa=1 << 23, exponent=0)

    def projection(rows, columns):
        packed = pack(rng.integers(-1, 2, (rows, columns), dtype=np.int8))
        weights = rng.integers(-99, 99, columns)
        return IntegerProjection(packed=packed, rows=rows, columns=columns, weight_norm=weights, constants=constants)

    def norm():
        return NormVector(rng.integers(-99, 99, hidden), 0)

    f, i, g, o = (projection(hidden, hidden) for _ in range(4))
    glu = IntegerGLU(norm(), projection(2 * inner, hidden), 3, projection(hidden, inner))
    bound = rng.integers(0, 99, hidden)
    layer = IntegerLayer(norm(), f, i, g, lower_bound=bound, product_shift=3, g_norm=norm(), o=o, glu=glu)
    embedding = Embedding(np.zeros((vocab, hidden), np.uint16), "bfloat16", 12)
    geometry = Geometry(hidden=hidden, layers=1, inner=inner, vocab=vocab, rms_eps=1e-6)
    return IntegerModel(geometry, embedding, 3, 12, (layer,), norm(), projection(vocab, hidden))
