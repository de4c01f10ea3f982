"""Colour of a whole batch: the jitter of MAE Table 1e, and the normalisation by channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mae.constants import constant
from mae.data.augment.compose import apart, together
from mae.data.augment.places import InPlace
from mae.data.augment.resample import unit
from mae.draws import uniform
from mae.errors import DataError


@dataclass(frozen=True)
class ColorJitter(InPlace):
    """Brightness, contrast, saturation, then hue, each by a factor of its own for every picture (Table 1e).

    A factor is uniform in [max(0, 1 - x), 1 + x], the turn of the hue in [-hue, hue] of the circle. The paper
    does not give the strength; the defaults are a common choice. The order is fixed, so that a batch is one
    computation.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1

    def __post_init__(self) -> None:
        if min(self.brightness, self.contrast, self.saturation, self.hue) < 0 or self.hue > 0.5:
            raise DataError(f"{self}: strengths must not be negative, and hue at most 0.5.")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        draw = uniform(generator, len(images), 4)
        brightness, contrast, saturation = (
            max(0.0, 1 - x) + draw[:, i] * (1 + x - max(0.0, 1 - x))
            for i, x in enumerate((self.brightness, self.contrast, self.saturation))
        )
        frames, each = apart(images)
        factors = (brightness, contrast, saturation, (2 * draw[:, 3] - 1) * self.hue)
        return together(adjust_color(frames, *(factor.repeat_interleave(each) for factor in factors)), images)


@dataclass(frozen=True)
class Normalise(InPlace):
    """``(images - mean) / std`` for each channel; the only step whose result leaves [0, 1]."""

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise DataError(f"{self}: mean and std need one number for each channel, and std positive ones.")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        images = unit(images)
        if images.shape[1] != len(self.mean):
            raise DataError(f"{self}: pictures have {images.shape[1]} channels; give one mean and std for each.")
        each = (-1, *(1,) * (images.ndim - 2))
        mean, std = (constant(x, images.device).view(each) for x in (self.mean, self.std))
        return (images - mean) / std


def adjust_color(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """``(B, 3, H, W)``, a factor ``(B,)`` for each picture, in this order; ``hue`` is a share of the circle.

    Each step is torchvision's: a blend with black, with the mean grey, with the pixel's grey; a turn in HSV.
    """
    images = unit(images)
    if images.shape[1] != 3:
        raise DataError(f"Colour jitter needs 3 channels (RGB), the pictures have {images.shape[1]}; leave it out.")
    factors = (brightness, contrast, saturation, hue)
    brightness, contrast, saturation, hue = (x[:, None, None, None] for x in factors)
    images = (images * brightness).clamp_(0, 1)
    mean = grey(images).mean((-2, -1), keepdim=True)
    images = torch.lerp(mean, images, contrast).clamp_(0, 1)
    images = torch.lerp(grey(images), images, saturation).clamp_(0, 1)

    red, green, blue = images.unbind(1)
    value, low = images.amax(1), images.amin(1)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1)  # grey pixels have no hue; any will do
    sector = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    offset = constant((5, 3, 1), images.device)[:, None, None]  # red, green and blue are a third of a turn apart
    k = (offset + sector[:, None] + 6 * hue).remainder(6)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp_(0, 1)


def grey(images: Tensor) -> Tensor:
    """The grey of every pixel of ``images: (B, 3, H, W)`` as ``(B, 1, H, W)``; DataError without three channels."""
    if images.shape[1] != 3:
        raise DataError(f"A grey needs 3 channels (RGB), the pictures have {images.shape[1]}; leave it out.")
    weights = constant((0.2989, 0.587, 0.114), images.device)  # ITU-R BT.601, in the digits torchvision uses
    return (images * weights[:, None, None]).sum(1, keepdim=True)
