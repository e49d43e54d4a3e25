"""Training of HGRNBit models: tokenizer, token files, straight-through training, export to Hugging Face directories."""

from sterna.train.config import TrainConfig
from sterna.train.configfile import PRESETS, preset
from sterna.train.log import Progress
from sterna.train.trainer import Trainer

__all__ = ["PRESETS", "Progress", "TrainConfig", "Trainer", "preset"]
