"""Nearest neighbours: what a vote among frozen features says, with nothing trained."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from mae.data.source import Augment, Splits
from mae.heads import Head
from mae.heads.classifier import Classifier
from mae.heads.features import features_of
from mae.model import Encoder, choose_attention
from mae.train.accuracy import percent
from mae.train.loop import Runtime


@dataclass(frozen=True)
class NearestNeighbours(Head):
    """The ``k`` nearest training pictures in the frozen encoder's features vote by weight; nothing is trained.

    Cosine similarities ``s`` weigh ``exp(s / temperature)``, as DINO evaluates (2104.14294, Sec. 4.1).
    """

    k: int = 20
    temperature: float = 0.07
    pooling: str = "class"
    recipe: None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.k < 1 or not self.temperature > 0:
            raise ValueError(f"k={self.k} and temperature={self.temperature} must be above 0")

    def classifier(self, encoder: Encoder, classes: int) -> Classifier:
        """Build a classifier of which only the features are used."""
        return Classifier(encoder, classes, pooling=self.pooling, tuned_blocks=0)

    def __call__(self, encoder: Encoder, splits: Splits, train_augment: Augment, runtime: Runtime) -> dict[str, float]:
        classes, samples = len(splits.train.classes), len(splits.train)
        if self.k > samples:
            raise ValueError(f"k={self.k} neighbours among {samples} training pictures; choose k up to {samples}")
        model = self.classifier(encoder, classes).to(runtime.device)
        choose_attention(model, runtime.device, encoder.length(), runtime.precision)
        clock = time.perf_counter()
        train, test = features_of(model, splits, runtime)
        bank = F.normalize(train.values)
        votes = [self.votes(F.normalize(part), bank, train.labels, classes) for part in torch.split(test.values, 500)]
        top1 = percent(torch.cat(votes).argmax(1) == test.labels)
        seconds = time.perf_counter() - clock
        return {"top1": top1, "seconds": seconds, "samples_per_second": (samples + len(test)) / seconds}

    def votes(self, queries: Tensor, bank: Tensor, labels: Tensor, classes: int) -> Tensor:
        """Count votes ``(Q, classes)`` for ``queries: (Q, D)`` of a labelled ``bank: (n, D)``, both of unit length."""
        similarity, nearest = (queries @ bank.T).topk(self.k, dim=1)
        weights = (similarity / self.temperature).exp()
        return weights.new_zeros(len(queries), classes).scatter_add_(1, labels[nearest], weights)

    def sample_flops(self, encoder: Encoder) -> float:
        return 0.0

    def flops(self, encoder: Encoder, samples: Mapping[str, int], views: int, repeats: int, shifted: int) -> float:
        """Every sample is encoded once, the test samples through the first view."""
        return encoder.flops() * (samples["train"] * repeats + samples["test"])
