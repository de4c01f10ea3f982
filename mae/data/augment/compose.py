"""Augmentations one after the other; clips as pictures for those that look at single frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Generator, Tensor

from mae.data.augment.resample import unit
from mae.data.source import Augment


@dataclass(frozen=True)
class Compose:
    """The steps one after the other, all drawing from the same generator."""

    steps: Sequence[Augment]

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        images = unit(images)
        for step in self.steps:
            images = step(images, generator)
        return images


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
