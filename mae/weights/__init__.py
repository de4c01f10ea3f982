"""Encoder weights from elsewhere: own checkpoints, the official MAE and VideoMAE, timm, transformers, mmpretrain."""

from mae.weights.fit import Fit, adapt, load
from mae.weights.names import Weights, read

__all__ = ["Fit", "Weights", "adapt", "load", "read"]
