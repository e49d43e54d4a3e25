"""The float32 PyTorch reference of HGRNBit: the yardstick of every integer engine, and what the trainer trains."""

from sterna.reference.checkpoint import load_reference, load_trainable, save_checkpoint
from sterna.reference.config import HGRNBitConfig
from sterna.reference.modeling import HGRNBitForCausalLM

__all__ = [
    "HGRNBitConfig",
    "HGRNBitForCausalLM",
    "load_reference",
    "load_trainable",
    "save_checkpoint",
]
