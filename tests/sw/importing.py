"""What the tests of the importer share: a small checkpoint, and importing it well or being refused."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints import make_tensors

from sterna.errors import SternaError
from sterna.importer import import_checkpoint
from sterna.model.store import Model

ONES = np.ones(37, np.float32)
SIZES = {"hidden": 37, "layers": 3, "inner": 53, "vocab": 101, "seed": 5}
GATE = "model.layers.1.mlp.gate_proj.weight"


def imported(source, target, **options) -> Model:
    import_checkpoint(source, target, calibrate=False, **options)
    model = Model.open(target)
    model.verify()
    return model


def refused(source, target, message, **options):
    """The import fails with a sentence that matches, and leaves nothing behind."""
    before = sorted(target.parent.iterdir()) if target.parent.is_dir() else []
    with pytest.raises(SternaError, match=message) as caught:
        import_checkpoint(source, target, calibrate=False, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert (sorted(target.parent.iterdir()) if target.parent.is_dir() else []) == before


def spoilt(name, value, place=-1):
    values = make_tensors(**SIZES)[name]
    values.reshape(-1)[place] = value
    return {name: values}


def rewrite(path, change):
    path.write_bytes(change(path.read_bytes()))
