"""Training of HGRNBit models: tokenizer, token files, straight-through training, export to Hugging Face directories."""

from sterna.train.config import PRESETS, TrainConfig, preset
from sterna.train.trainer import Progress, Trainer

__all__ = ["PRESETS", "Progress", "TrainConfig", "Trainer", "preset"]
