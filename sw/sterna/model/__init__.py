"""Models on disk: importing a checkpoint, the stored format, and reading it (docs/model-format.md)."""

from sterna.model.geometry import Geometry
from sterna.model.importer import import_checkpoint
from sterna.model.store import Embedding, Layer, Model, Projection

__all__ = ["Embedding", "Geometry", "Layer", "Model", "Projection", "import_checkpoint"]
