"""Each file holds one protocol that says what a representation is worth, behind one contract: ``Head``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from mae.data.source import Augment, Splits
from mae.footprint import Activations, Way
from mae.model import Encoder
from mae.train.loop import Runtime
from mae.train.optim import Recipe


class Head(ABC):
    """A head is a frozen dataclass, called with an encoder that holds pre-trained (or fresh) weights.

    Its fields are its hyper-parameters. ``recipe`` says how it trains, None if it does not. ``tests_shifted`` says
    whether it also tests on the shifted test sets of the data, ``reads_boxes`` whether it needs data with boxes, with
    which other heads can do nothing.
    """

    recipe: Recipe | None
    tests_shifted: ClassVar[bool] = False
    reads_boxes: ClassVar[bool] = False

    @abstractmethod
    def classifier(self, encoder: Encoder, classes: int) -> nn.Module:
        """Build what is trained and tested; ValueError if this encoder cannot be evaluated so. Meta devices will do."""

    @abstractmethod
    def __call__(self, encoder: Encoder, splits: Splits, train_augment: Augment, runtime: Runtime) -> dict[str, float]:
        """Train on ``splits.train``, test on ``splits.views``, and return metrics by name, accuracies in percent."""

    @property
    def averages(self) -> bool:
        """Say whether a moving average of the weights is kept beside them."""
        return False

    @abstractmethod
    def sample_flops(self, encoder: Encoder) -> float:
        """Count one sample of a training step: 0 where the steps leave the encoder alone and cost next to nothing."""

    def activations(self, encoder: Encoder, way: Way) -> Activations:
        """Count what a training step keeps of one sample: by default nothing, while a block of the encoder works."""
        return Activations(0.0, encoder.shape.activations(encoder.length(), way).working)

    def flops(self, encoder: Encoder, samples: Mapping[str, int], views: int, repeats: int, shifted: int) -> float:
        """Count the whole evaluation on the samples of ``train`` and ``test``.

        A training sample is seen ``repeats`` times in each epoch, a test sample through ``views`` views, and each of
        ``shifted`` samples of shifted test sets once. A last linear layer is left out.
        """
        seen = self.recipe.samples_seen(samples["train"]) * repeats if self.recipe else 0.0
        tested = samples["test"] * views + (shifted if self.tests_shifted else 0)
        return seen * self.sample_flops(encoder) + tested * encoder.flops()
