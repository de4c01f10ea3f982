"""Phase two: what a representation is worth, by fine-tuning, linear probing, neighbours, or training from scratch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import torch
from timm.utils import ModelEmaV3
from torch import Generator, Tensor
from torch.nn import functional as F

from mae.classifier import Classifier, set_drop_path
from mae.data.source import Augment, Batch, Images, Splits
from mae.model import Encoder, choose_attention
from mae.train.accuracy import accuracy, clips_at_once, features, percent, robustness
from mae.train.loop import Runtime, fit
from mae.train.optim import Recipe
from mae.train.regularise import Mix, RandomErasing


class Evaluation(Protocol):
    """A protocol: a frozen dataclass, called with an encoder that holds pre-trained (or fresh) weights."""

    @property
    def recipe(self) -> Recipe | None:
        """How it trains, None if it does not."""
        ...

    def classifier(self, encoder: Encoder, classes: int) -> Classifier:
        """What is trained and tested; ValueError if this encoder cannot be evaluated so. Works on the meta device."""
        ...

    def __call__(self, encoder: Encoder, splits: Splits, train_augment: Augment, runtime: Runtime) -> dict[str, float]:
        """Train on ``splits.train``, test on ``splits.views``; metrics by name, accuracies in percent."""
        ...


@dataclass(frozen=True)
class FineTune:
    """End-to-end fine-tuning (MAE Table 9, VideoMAE Table 10); from random weights, training from scratch (Table 11).

    ``tuned_blocks`` makes it partial (MAE Sec. 4.3, Fig. 9; see Classifier). ``mixup`` and ``cutmix`` are the
    parameters of Mix, ``erasing`` the probability of RandomErasing, 0 for without. ``ema`` is the decay of averaged
    weights, which are then the ones tested. ``dropout`` and ``tune_positions`` are those of Classifier. RandAugment
    belongs to ``train_augment``. The model is tested on the shifted test sets of the data as it is, without further
    training (Table 13; see ``robustness``).
    """

    recipe: Recipe
    pooling: str = "mean"
    drop_path: float = 0.0
    label_smoothing: float = 0.0
    head_std: float = 2e-5
    tuned_blocks: float | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    erasing: float = 0.0
    ema: float | None = None
    dropout: float = 0.0
    tune_positions: bool = True

    def __post_init__(self) -> None:
        for name in ("drop_path", "label_smoothing", "erasing", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is outside [0, 1]")
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is negative; choose 0 for without")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema={self.ema} is outside (0, 1); choose null for without")

    def classifier(self, encoder: Encoder, classes: int) -> Classifier:
        """The encoder with a fresh head, and with drop path in its blocks."""
        set_drop_path(encoder, self.drop_path)
        return Classifier(
            encoder,
            classes,
            pooling=self.pooling,
            tuned_blocks=self.tuned_blocks,
            dropout=self.dropout,
            head_std=self.head_std,
            tune_positions=self.tune_positions,
        )

    def __call__(self, encoder: Encoder, splits: Splits, train_augment: Augment, runtime: Runtime) -> dict[str, float]:
        classes = len(splits.train.classes)
        model = self.classifier(encoder, classes).to(runtime.device)
        choose_attention(model, runtime.device, encoder.grid.num_patches + encoder.prefix, runtime.precision)
        average = None if self.ema is None else ModelEmaV3(model, decay=self.ema)
        erase, mix = RandomErasing(self.erasing), Mix(self.mixup, self.cutmix)

        def loss_fn(batch: Batch, generator: Generator) -> Tensor:
            images, targets = train_augment(batch.images, generator), batch.labels
            if self.erasing:
                images = erase(images, generator)
            if self.mixup or self.cutmix:
                images, targets = mix(images, targets, classes, generator)
            return F.cross_entropy(model(images).float(), targets, label_smoothing=self.label_smoothing)

        optimizer = self.recipe.build(model, model.layer_of, len(encoder.blocks) + 1)
        fitted = fit(model, optimizer, loss_fn, splits.train, self.recipe, runtime, average)
        tested = model if average is None else average.module
        top1 = accuracy(tested, splits.views, runtime, clips_at_once(encoder.grid))
        shifted = robustness(tested, splits.shifts, runtime)
        return {
            "top1": top1,
            **shifted,
            "seconds": fitted.seconds,
            "samples_per_second": fitted.samples_per_second,
        }


@dataclass(frozen=True)
class LinearProbe:
    """A linear classifier on the frozen encoder's class token, after a BatchNorm without affine (MAE Table 10).

    ``cached`` computes the features once, from un-augmented pictures, and trains the classifier on them: the
    protocol for small compute. Otherwise each step encodes freshly augmented views, as published.
    """

    recipe: Recipe
    pooling: str = "class"
    cached: bool = False

    def classifier(self, encoder: Encoder, classes: int) -> Classifier:
        """The frozen encoder with a BatchNorm and a fresh head."""
        return Classifier(encoder, classes, pooling=self.pooling, tuned_blocks=0, batch_norm=True, head_std=0.01)

    def __call__(self, encoder: Encoder, splits: Splits, train_augment: Augment, runtime: Runtime) -> dict[str, float]:
        model = self.classifier(encoder, len(splits.train.classes)).to(runtime.device)
        choose_attention(model, runtime.device, encoder.grid.num_patches + encoder.prefix, runtime.precision)
        optimizer = self.recipe.build(model)
        if self.cached:
            train, test = _both_features(model, splits, runtime)
            fitted = fit(model, optimizer, lambda b, _: _loss(model.classify(b.images), b), train, self.recipe, runtime)
            with torch.no_grad():
                top1 = percent(model.classify(test.pixels).argmax(1) == test.labels)
        else:

            def loss_fn(batch: Batch, generator: Generator) -> Tensor:
                return _loss(model(train_augment(batch.images, generator)), batch)

            fitted = fit(model, optimizer, loss_fn, splits.train, self.recipe, runtime)
            top1 = accuracy(model, splits.views, runtime, clips_at_once(encoder.grid))
        return {"top1": top1, "seconds": fitted.seconds, "samples_per_second": fitted.samples_per_second}


@dataclass(frozen=True)
class NearestNeighbours:
    """Weighted vote of the ``k`` nearest training pictures in the frozen encoder's features; nothing is trained.

    Cosine similarities ``s`` weigh ``exp(s / temperature)``, as DINO evaluates (2104.14294, Sec. 4.1).
    """

    k: int = 20
    temperature: float = 0.07
    pooling: str = "class"

    def __post_init__(self) -> None:
        if self.k < 1 or not self.temperature > 0:
            raise ValueError(f"k={self.k} and temperature={self.temperature} must be above 0")

    @property
    def recipe(self) -> None:
        """It does not train."""
        return None

    def classifier(self, encoder: Encoder, classes: int) -> Classifier:
        """The frozen encoder; of this classifier only the features are used."""
        return Classifier(encoder, classes, pooling=self.pooling, tuned_blocks=0)

    def __call__(self, encoder: Encoder, splits: Splits, train_augment: Augment, runtime: Runtime) -> dict[str, float]:
        classes, samples = len(splits.train.classes), len(splits.train)
        if self.k > samples:
            raise ValueError(f"k={self.k} neighbours among {samples} training pictures; choose k up to {samples}")
        model = self.classifier(encoder, classes).to(runtime.device)
        choose_attention(model, runtime.device, encoder.grid.num_patches + encoder.prefix, runtime.precision)
        clock = time.perf_counter()
        train, test = _both_features(model, splits, runtime)
        bank = F.normalize(train.pixels)
        votes = [self.votes(F.normalize(part), bank, train.labels, classes) for part in torch.split(test.pixels, 500)]
        top1 = percent(torch.cat(votes).argmax(1) == test.labels)
        seconds = time.perf_counter() - clock
        return {"top1": top1, "seconds": seconds, "samples_per_second": (samples + len(test)) / seconds}

    def votes(self, queries: Tensor, bank: Tensor, labels: Tensor, classes: int) -> Tensor:
        """``queries: (Q, D)`` and ``bank: (n, D)`` of unit length, ``labels: (n,)``, to votes ``(Q, classes)``."""
        similarity, nearest = (queries @ bank.T).topk(self.k, dim=1)
        weights = (similarity / self.temperature).exp()
        return weights.new_zeros(len(queries), classes).scatter_add_(1, labels[nearest], weights)


def _loss(logits: Tensor, batch: Batch) -> Tensor:
    return F.cross_entropy(logits.float(), batch.labels)


def _both_features(model: Classifier, splits: Splits, runtime: Runtime) -> tuple[Images, Images]:
    """Features of the training and of the test set, both through the first view."""
    source, (augment, *_) = splits.views[0]
    return features(model, splits.train, augment, runtime), features(model, source, augment, runtime)
