"""Linear probing: what one linear layer reads from a frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass

from mae.heads.classifier import Classifier
from mae.heads.probe import Probe
from mae.model import Encoder
from mae.train.optim import Recipe


@dataclass(frozen=True)
class LinearProbe(Probe):
    """A linear classifier reads the frozen encoder's class token after a BatchNorm without affine (MAE Table 10).

    With ``pooling="mean"`` it reads the mean of the patch tokens.
    """

    recipe: Recipe
    pooling: str = "class"
    cached: bool = False

    def classifier(self, encoder: Encoder, classes: int) -> Classifier:
        """Put a BatchNorm and a fresh linear layer on the frozen encoder."""
        return Classifier(encoder, classes, pooling=self.pooling, tuned_blocks=0, batch_norm=True, head_std=0.01)
