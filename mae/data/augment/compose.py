"""Augmentations one after the other, and what of them is done where files are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from mae.data.augment.places import after, mapped
from mae.data.augment.resample import unit
from mae.data.source import Augment, Batch, Source


@dataclass(frozen=True)
class Compose:
    """The steps one after the other, all drawing from the same generator."""

    steps: Sequence[Augment]

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        images = unit(images)
        for step in self.steps:
            images = step(images, generator)
        return images

    def mapped(self, images: Tensor, generator: Generator) -> tuple[Tensor, Tensor | None]:
        """What the steps return, and where all of them together put the points of the input."""
        images, maps = unit(images), None
        for step in self.steps:
            images, own = mapped(step, images, generator)
            maps = after(maps, own)
        return images, maps


def apart(images: Tensor) -> tuple[Tensor, int]:
    """The frames of clips ``(B, C, T, H, W)`` as pictures ``(B * T, C, H, W)``, and T; pictures as they are, and 1."""
    if images.ndim == 4:
        return images, 1
    return images.transpose(1, 2).flatten(0, 1), images.shape[2]


def together(frames: Tensor, like: Tensor) -> Tensor:
    """The way back: ``frames`` of ``apart(like)`` as a tensor of the shape of ``like``."""
    if like.ndim == 4:
        return frames
    batch, channels, each, rows, columns = like.shape
    return frames.view(batch, each, channels, rows, columns).transpose(1, 2)


@dataclass(frozen=True)
class Stacked:
    """All ``crops`` of clips at once, ``(B, K, C, T, H, W)``: a clip that is cropped where it is read is read once."""

    crops: Sequence[Augment]

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return torch.stack([crop(images, generator) for crop in self.crops], 1)


@dataclass(frozen=True)
class Picked:
    """Number ``index`` of stacked crops, which ``then`` finishes; clips that are not stacked are taken as they are.

    Boxes of stacked crops are ``(N, K, 4)``.
    """

    index: int
    then: Augment

    def picked(self, batch: Batch) -> Batch:
        """That crop of each clip of ``batch``, and its boxes there."""
        if batch.images.ndim != 6 or batch.places is None:
            return batch
        places = batch.places._replace(boxes=batch.places.boxes[:, self.index])
        return batch._replace(images=batch.images[:, self.index], places=places)

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return self.then(images[:, self.index] if images.ndim == 6 else images, generator)


@runtime_checkable
class CropsAsRead(Protocol):
    """A source that crops each file where it is read: no pixel of the original is resampled twice, or sent in vain."""

    def through(self, crop: Augment) -> Source:
        """The same files through ``crop``; DataError for one that cannot be taken there."""
        ...


def staged(source: Source, augment: Augment) -> tuple[Source, Augment]:
    """``source`` and ``augment``; where the source crops as it reads, the first step is given to it."""
    if not isinstance(source, CropsAsRead):
        return source, augment
    crop, *rest = steps(augment)
    return source.through(crop), Compose(tuple(rest))


def steps(augment: Augment) -> list[Augment]:
    """List the steps of an augmentation, those of a composition one by one."""
    if isinstance(augment, Compose):
        return [part for step in augment.steps for part in steps(step)]
    return [augment]
