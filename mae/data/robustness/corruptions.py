"""Changes of test pictures that a model was not trained on: corruptions in the spirit of ImageNet-C, and two stand-ins.

Each is called as an augmentation is, on ``images: (B, C, H, W)``, uint8 or float in [0, 1], and returns float32 in
[0, 1] of that shape. Only the two kinds of noise draw; the others treat a picture alike in every batch. Of the families
of Hendrycks and Dietterich (1903.12261) there are noise (``GaussianNoise``, ``ImpulseNoise``), blur (``GaussianBlur``),
weather (``Brightness``) and digital (``Contrast``, ``Pixelate``), by the same arithmetic and with free strengths.
``Edges`` reduces a picture to a drawing; ``Posterise`` and ``Negative`` keep the shapes and change the colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mae.constants import constant
from mae.data.augment.places import InPlace
from mae.data.augment.resample import unit
from mae.errors import DataError


@dataclass(frozen=True)
class GaussianNoise(InPlace):
    """Independent normal noise on every value, ``std`` of the whole range, clipped."""

    std: float

    def __post_init__(self) -> None:
        _require(self.std > 0, f"{self}: std must be positive, such as 0.1")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        images = unit(images)
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        return (images + self.std * noise).clamp_(0, 1)


@dataclass(frozen=True)
class ImpulseNoise(InPlace):
    """Salt and pepper: a ``share`` of all values becomes 0 or 1, each as often."""

    share: float

    def __post_init__(self) -> None:
        _require(0 < self.share <= 1, f"{self}: share must lie in (0, 1]")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        images = unit(images)
        chance = torch.rand(images.shape, generator=generator, device=images.device)
        salted = torch.where(chance < self.share / 2, 1.0, images)
        return torch.where(chance >= 1 - self.share / 2, 0.0, salted)


@dataclass(frozen=True)
class GaussianBlur(InPlace):
    """A normal kernel with ``sigma`` in pixels, cut off at three of them; the border is continued."""

    sigma: float

    def __post_init__(self) -> None:
        _require(self.sigma > 0, f"{self}: sigma must be positive, in pixels")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        reach = math.ceil(3 * self.sigma)
        images = unit(images)
        at = torch.arange(-reach, reach + 1, device=images.device)
        kernel = torch.softmax(-0.5 * (at / self.sigma) ** 2, 0)
        return _filtered(_filtered(images, kernel[:, None]), kernel[None]).clamp_(0, 1)


@dataclass(frozen=True)
class Brightness(InPlace):
    """``shift`` is added to the value of HSV, hue and saturation stay: white overflows, black becomes grey."""

    shift: float

    def __post_init__(self) -> None:
        _require(0 < abs(self.shift) < 1, f"{self}: shift must lie in (-1, 1) and not be 0")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        images = unit(images)
        value = images.amax(1, keepdim=True)
        shifted = (value + self.shift).clamp_(0, 1)
        share = torch.where(value > 0, images / value, 1.0)  # black has no hue
        return share * shifted


@dataclass(frozen=True)
class Contrast(InPlace):
    """Each channel drawn towards its mean: ``factor`` of its distance from it is left."""

    factor: float

    def __post_init__(self) -> None:
        _require(0 < self.factor < 1, f"{self}: factor must lie in (0, 1)")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        images = unit(images)
        return torch.lerp(images.mean((-2, -1), keepdim=True), images, self.factor).clamp_(0, 1)


@dataclass(frozen=True)
class Pixelate(InPlace):
    """Averaged to a ``share`` of the rows and columns, and repeated to the old size."""

    share: float

    def __post_init__(self) -> None:
        _require(0 < self.share < 1, f"{self}: share must lie in (0, 1)")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        images = unit(images)
        rows, columns = images.shape[-2:]
        coarse = (max(1, round(rows * self.share)), max(1, round(columns * self.share)))
        blocks = F.interpolate(images, size=coarse, mode="area")
        return F.interpolate(blocks, size=(rows, columns), mode="nearest-exact")


@dataclass(frozen=True)
class Edges(InPlace):
    """Dark lines on white paper where the grey of a picture changes (Sobel), the strongest edge being black."""

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        images = unit(images)
        grey = images.mean(1, keepdim=True)
        slope, smooth = (constant(kernel, images.device) for kernel in ((-1, 0, 1), (0.25, 0.5, 0.25)))
        across = _filtered(_filtered(grey, slope[None]), smooth[:, None])
        down = _filtered(_filtered(grey, slope[:, None]), smooth[None])
        steepness = torch.hypot(across, down)
        strongest = steepness.amax((-2, -1), keepdim=True).clamp_(min=1e-3)  # a flat picture is an empty sheet
        return (1 - steepness / strongest).clamp_(0, 1).expand_as(images).contiguous()


@dataclass(frozen=True)
class Posterise(InPlace):
    """Every channel rounded to ``levels`` levels, black and white among them."""

    levels: int

    def __post_init__(self) -> None:
        _require(self.levels >= 2, f"{self}: levels must be 2 or more")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        steps = self.levels - 1
        return (unit(images) * steps).round_() / steps


@dataclass(frozen=True)
class Negative(InPlace):
    """Every value taken from white: the complementary colours."""

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        return 1 - unit(images)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise DataError(f"{message}.")


def _filtered(images: Tensor, kernel: Tensor) -> Tensor:
    """Each channel of ``(B, C, H, W)`` correlated with ``kernel: (h, w)``, odd sides, beyond a continued border."""
    h, w = kernel.shape
    padded = F.pad(images, (w // 2, w // 2, h // 2, h // 2), mode="replicate")
    channels = images.shape[1]
    with torch.autocast(images.device.type, enabled=False):  # half precision would blur the pixels' values
        return F.conv2d(padded, kernel.expand(channels, 1, h, w), groups=channels)
