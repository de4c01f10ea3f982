"""Weights from elsewhere: own checkpoints, the official MAE and VideoMAE, timm, transformers, mmpretrain."""

from mae.weights.fit import Fit, adapt, adapt_decoder, load
from mae.weights.names import Weights, read, read_decoder

__all__ = ["Fit", "Weights", "adapt", "adapt_decoder", "load", "read", "read_decoder"]
