"""Supervised pre-training: the labels themselves, by the recipe with which MAE trains a ViT from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from mae.flops import linear_flops
from mae.footprint import WORD, Activations, Way, linear_saved
from mae.heads.classifier import set_drop_path
from mae.methods import Method
from mae.model import Encoder, initialise
from mae.train.regularise import Mix


class Supervised(Method):
    """A linear layer reads ``classes`` from the mean of the normed patch tokens.

    The defaults are those of MAE Table 11 for ViT-L, "supervised, IN1K, our impl." of Fig. 8: mixup 0.8, CutMix 1.0,
    label smoothing 0.1, drop path 0.2. RandAugment belongs to the augmentation, rate and decay to the recipe. Weights
    are not averaged: others start from them.
    """

    labelled: ClassVar[bool] = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        classes: int,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        label_smoothing: float = 0.1,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__(encoder)
        if min(mixup, cutmix) < 0 or not (0 <= label_smoothing <= 1 and 0 <= drop_path < 1):
            raise ValueError(
                f"mixup={mixup} and cutmix={cutmix} are not negative, label_smoothing={label_smoothing} lies within "
                f"[0, 1], drop_path={drop_path} within [0, 1)"
            )
        self.classes, self.label_smoothing, self.mixes = classes, label_smoothing, bool(mixup or cutmix)
        self.mix = Mix(mixup, cutmix)
        if self.mixes:
            self.indivisible = "each picture is mixed with another of the batch"
        set_drop_path(encoder, drop_path)
        self.head = nn.Linear(encoder.shape.width, classes)
        initialise(self.head)

    def loss(self, views: Sequence[Tensor], generator: Generator) -> Tensor:
        pictures, targets = views
        if self.mixes:
            pictures, targets = self.mix(pictures, targets, self.classes, generator)
        logits = self.head(self.signature(pictures))
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)

    def flops(self) -> float:
        return self.encoder.flops() + linear_flops(1, self.encoder.shape.width, self.classes)

    def sample_flops(self) -> float:
        return 3 * self.flops() - self.encoder.embedding_flops()

    def activations(self, way: Way) -> Activations:
        """The tokens become one vector; the loss keeps the logarithms of the probabilities, and the targets."""
        saved, working = self.encoder.activations(way)
        head = linear_saved(1, self.encoder.shape.width, way) + 2 * self.classes * WORD
        return Activations(saved + head, working)
