"""Probing: a classifier is trained on what a frozen encoder gives, and says how much of it can be read off."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mae.data.source import Augment, Batch, Splits
from mae.heads import Head
from mae.heads.classifier import Readout
from mae.heads.features import features_of
from mae.model import Encoder, choose_attention
from mae.train.accuracy import AT_ONCE, accuracy, clips_at_once, percent
from mae.train.loop import Runtime, fit
from mae.train.optim import Recipe
from mae.train.parts import Objective


class Probe(Head):
    """A probe leaves the encoder frozen and trains a classifier on its features by ``recipe``.

    ``cached`` computes the features once, from pictures that are not augmented, and trains on them: the protocol for
    small compute. Otherwise each step encodes freshly augmented views, as published.
    """

    recipe: Recipe
    cached: bool

    @abstractmethod
    def classifier(self, encoder: Encoder, classes: int) -> Readout: ...

    def __call__(self, encoder: Encoder, splits: Splits, train_augment: Augment, runtime: Runtime) -> dict[str, float]:
        model = self.classifier(encoder, len(splits.train.classes)).to(runtime.device)
        choose_attention(model, runtime.device, encoder.length(), runtime.precision)
        optimizer = self.recipe.build(model)
        at_once = any(isinstance(part, _BatchNorm) for part in model.modules())
        if self.cached:
            train, test = features_of(model, splits, runtime)
            objective = Objective(lambda batch, _: (batch.images, batch.labels), _loss, at_once=at_once)
            # a batch of the whole set is one of all that can be read
            recipe = replace(self.recipe, batch_size=min(self.recipe.batch_size, len(train)))
            fitted = fit(model, optimizer, objective, train, recipe, runtime)
            with torch.no_grad():
                logits = torch.cat([model.classify(part) for part in torch.split(test.values, AT_ONCE)])
            top1 = percent(logits.argmax(1) == test.labels)
        else:

            def prepare(batch: Batch, generator: Generator) -> tuple[Tensor, Tensor]:
                return model.features(train_augment(batch.images, generator)), batch.labels

            objective = Objective(prepare, _loss, at_once=at_once, encodes=True)
            fitted = fit(model, optimizer, objective, splits.train, self.recipe, runtime)
            top1 = accuracy(model, splits.views, runtime, clips_at_once(encoder.grid))
        return {"top1": top1, "seconds": fitted.seconds, "samples_per_second": fitted.samples_per_second}

    def classify_flops(self, encoder: Encoder) -> float:
        """Count what reads the features of one sample, forward, without its last linear layer."""
        return 0.0

    def sample_flops(self, encoder: Encoder) -> float:
        return (0.0 if self.cached else encoder.flops()) + 3 * self.classify_flops(encoder)

    def flops(self, encoder: Encoder, samples: Mapping[str, int], views: int, repeats: int, shifted: int) -> float:
        steps = super().flops(encoder, samples, views, repeats, shifted)
        tested = samples["test"] * self.classify_flops(encoder)
        if not self.cached:
            return steps + views * tested
        # features are those of one view, and are computed once
        return steps + tested + encoder.flops() * (samples["train"] * repeats + samples["test"] * (1 - views))


def _loss(model: nn.Module, prepared: Sequence[Tensor], generator: Generator) -> Tensor:
    features, labels = prepared
    return F.cross_entropy(cast(Readout, model).classify(features).float(), labels)
