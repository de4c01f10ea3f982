"""Linear probing: what one linear layer reads from a frozen encoder."""

from __future__ import annotations

from dataclasses import dataclass

from mae.heads.classifier import Classifier
from mae.heads.probe import Probe
from mae.model import Encoder
from mae.train.optim import Recipe
from mae.train.parts import check_shares


@dataclass(frozen=True)
class LinearProbe(Probe):
    """A linear classifier reads the frozen encoder's class token after a BatchNorm without affine (MAE Table 10).

    With ``pooling="mean"`` it reads the mean of the patch tokens. ``norm_groups`` is the number of equal groups of a
    batch that are normalised each by itself, as many devices do that train together; one is the whole batch.
    """

    recipe: Recipe
    pooling: str = "class"
    cached: bool = False
    norm_groups: int = 1

    def __post_init__(self) -> None:
        if self.norm_groups < 1:
            raise ValueError(f"norm_groups={self.norm_groups}: a batch has at least one group")
        check_shares(self.recipe.batch_size, groups=self.norm_groups)

    def classifier(self, encoder: Encoder, classes: int) -> Classifier:
        """Put a BatchNorm and a fresh linear layer on the frozen encoder."""
        return Classifier(
            encoder, classes, pooling=self.pooling, tuned_blocks=0, norm_groups=self.norm_groups, head_std=0.01
        )
