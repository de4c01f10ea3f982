"""Weights from elsewhere: own checkpoints, the official MAE and VideoMAE, timm, transformers, mmpretrain."""

from mae.weights.fit import Fit, adapt, adapt_decoder, load
from mae.weights.names import Weights, read, read_decoder
from mae.weights.trained import Trained, trained

__all__ = ["Fit", "Trained", "Weights", "adapt", "adapt_decoder", "load", "read", "read_decoder", "trained"]
