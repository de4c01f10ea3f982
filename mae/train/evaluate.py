"""Phase two: what a representation is worth, by fine-tuning, linear probing, or training from scratch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from mae.classifier import Classifier, set_drop_path
from mae.data.source import Batch, Images, Source, Splits
from mae.model import Encoder, choose_attention
from mae.train.loop import Runtime, fit
from mae.train.optim import Recipe
from mae.train.pretrain import Augment


class Evaluation(Protocol):
    """A protocol: a frozen dataclass, called with an encoder that holds pre-trained (or fresh) weights."""

    recipe: Recipe

    def __call__(
        self, encoder: Encoder, splits: Splits, train_augment: Augment, test_augment: Augment, runtime: Runtime
    ) -> dict[str, float]:
        """Train on ``splits.train``, test on ``splits.test``; metrics by name, accuracies in percent."""
        ...


@dataclass(frozen=True)
class FineTune:
    """End-to-end fine-tuning (MAE Table 9, VideoMAE Table 10); from random weights, training from scratch (Table 11)."""

    recipe: Recipe
    pooling: str = "mean"
    drop_path: float = 0.0
    label_smoothing: float = 0.0
    head_std: float = 2e-5

    def __call__(
        self, encoder: Encoder, splits: Splits, train_augment: Augment, test_augment: Augment, runtime: Runtime
    ) -> dict[str, float]:
        set_drop_path(encoder, self.drop_path)
        classes = len(splits.train.classes)
        model = Classifier(encoder, classes, pooling=self.pooling, head_std=self.head_std).to(runtime.device)
        choose_attention(model, runtime.device, encoder.grid.num_patches + encoder.prefix)

        def loss_fn(batch: Batch, generator: Generator) -> Tensor:
            logits = model(train_augment(batch.images, generator))
            return F.cross_entropy(logits.float(), batch.labels, label_smoothing=self.label_smoothing)

        optimizer = self.recipe.build(model, model.layer_of, len(encoder.blocks) + 1)
        fitted = fit(model, optimizer, loss_fn, splits.train, self.recipe, runtime)
        top1 = accuracy(model, splits.test, test_augment, runtime)
        return {"top1": top1, "seconds": fitted.seconds, "samples_per_second": fitted.samples_per_second}


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier on the frozen encoder's class token, after a BatchNorm without affine (MAE Table 10).

    ``cached`` computes the features once, from un-augmented pictures, and trains the classifier on them: the
    protocol for small compute. Otherwise each step encodes freshly augmented views, as published.
    """

    recipe: Recipe
    pooling: str = "class"
    cached: bool = False

    def __call__(
        self, encoder: Encoder, splits: Splits, train_augment: Augment, test_augment: Augment, runtime: Runtime
    ) -> dict[str, float]:
        classes = len(splits.train.classes)
        model = Classifier(encoder, classes, pooling=self.pooling, frozen=True, batch_norm=True, head_std=0.01)
        model.to(runtime.device)
        choose_attention(model, runtime.device, encoder.grid.num_patches + encoder.prefix)
        optimizer = self.recipe.build(model)
        if self.cached:
            train = features(model, splits.train, test_augment, runtime)
            test = features(model, splits.test, test_augment, runtime)
            fitted = fit(model, optimizer, lambda b, _: _loss(model.classify(b.images), b), train, self.recipe, runtime)
            with torch.no_grad():
                top1 = _top1(model.classify(test.pixels), test.labels)
        else:

            def loss_fn(batch: Batch, generator: Generator) -> Tensor:
                return _loss(model(train_augment(batch.images, generator)), batch)

            fitted = fit(model, optimizer, loss_fn, splits.train, self.recipe, runtime)
            top1 = accuracy(model, splits.test, test_augment, runtime)
        return {"top1": top1, "seconds": fitted.seconds, "samples_per_second": fitted.samples_per_second}


def _loss(logits: Tensor, batch: Batch) -> Tensor:
    return F.cross_entropy(logits.float(), batch.labels)


def _top1(logits: Tensor, labels: Tensor) -> float:
    return 100.0 * (logits.argmax(1) == labels).double().mean().item()


def _in_order(samples: int, batch_size: int = 500) -> Iterator[Tensor]:
    """All indices once, in batches, the last one shorter."""
    return iter(torch.arange(samples).split(batch_size))


@torch.no_grad()
def features(model: Classifier, source: Source, augment: Augment, runtime: Runtime) -> Images:
    """Pooled features ``(n, D)`` float32 of the whole source, held as a source of their own."""
    model.eval()
    found, labels = [], []
    for batch in source.batches(_in_order(len(source)), runtime.device):
        with runtime.autocast():
            found.append(model.features(augment(batch.images, Generator(runtime.device))).float())
        labels.append(batch.labels)
    return Images(torch.cat(found), torch.cat(labels), source.classes)


@torch.no_grad()
def accuracy(model: nn.Module, source: Source, augment: Augment, runtime: Runtime) -> float:
    """Top-1 accuracy in percent over the whole source, one view per picture."""
    model.eval()
    hits, seen = torch.zeros((), device=runtime.device), 0
    for batch in source.batches(_in_order(len(source)), runtime.device):
        with runtime.autocast():
            logits = model(augment(batch.images, Generator(runtime.device)))
        hits += (logits.argmax(1) == batch.labels).sum()
        seen += len(batch.labels)
    return 100.0 * hits.item() / seen
