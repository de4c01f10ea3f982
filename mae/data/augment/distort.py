"""What contrastive methods do to a view after its crop (SimCLR, 2002.05709; BYOL, 2006.07733, appendix B)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mae.data.augment.color import grey
from mae.data.augment.compose import apart, together
from mae.data.augment.places import InPlace
from mae.data.augment.resample import unit
from mae.data.source import Augment
from mae.draws import uniform
from mae.errors import DataError


@dataclass(frozen=True)
class Sometimes(InPlace):
    """``step`` is done to each item with ``probability``; it must leave pixels where they are."""

    step: Augment
    probability: float

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise DataError(f"{self}: probability must lie within [0, 1].")
        if not isinstance(self.step, InPlace):
            raise DataError(f"{self}: a step that moves pixels cannot be left out now and then; take another.")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        images = unit(images)
        done = uniform(generator, len(images)) < self.probability
        return torch.where(done.view(-1, *(1,) * (images.ndim - 1)), self.step(images, generator), images)


@dataclass(frozen=True)
class Greyscale(InPlace):
    """Every channel becomes the pixel's grey (ITU-R BT.601)."""

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        frames, _ = apart(unit(images))
        return together(grey(frames).expand_as(frames), images)


@dataclass(frozen=True)
class Solarise(InPlace):
    """Pixels from ``threshold`` upwards are inverted."""

    threshold: float = 0.5

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        images = unit(images)
        return torch.where(images < self.threshold, images, 1 - images)


@dataclass(frozen=True)
class Blur(InPlace):
    """A Gaussian of a standard deviation drawn evenly from ``sigma``, in pixels of a picture of ``side`` pixels.

    In smaller and larger pictures it blurs the same share of the side. It ends after two standard deviations.
    """

    sigma: Sequence[float] = (0.1, 2.0)
    side: int = 224

    def __post_init__(self) -> None:
        if len(self.sigma) != 2 or not 0 < self.sigma[0] <= self.sigma[1]:
            raise DataError(f"{self}: sigma is a range of positive numbers.")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        frames, each = apart(unit(images))
        scale = min(images.shape[-2:]) / self.side
        low, high = (scale * end for end in self.sigma)
        drawn = low + (high - low) * uniform(generator, len(images))
        reach = max(1, round(2 * high))
        places = torch.arange(-reach, reach + 1, device=images.device)
        kernels = (-0.5 * (places / drawn.repeat_interleave(each)[:, None]) ** 2).exp()
        kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(frames.shape[1], 0)  # (B * T * C, K)
        flat = F.pad(frames.flatten(0, 1)[None], (reach,) * 4, mode="replicate")
        flat = F.conv2d(flat, kernels[:, None, :, None], groups=len(kernels))
        flat = F.conv2d(flat, kernels[:, None, None, :], groups=len(kernels))
        return together(flat[0].view_as(frames), images)
