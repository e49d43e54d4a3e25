"""From Hugging Face checkpoints to stored models (docs/model-format.md)."""

from sterna.importer.convert import ImportReport, import_checkpoint

__all__ = ["ImportReport", "import_checkpoint"]
