"""Augmentation of a whole batch on its device: the four rows of MAE Table 1e, and their parts.

Each augmentation is called as ``augment(images, generator)`` with ``images: (B, C, H, W)``, or clips ``(B, C, T, H,
W)`` that are treated alike in all frames, uint8 or float in [0, 1], and a generator on the images' device; it returns
float32. Crops take any number of channels. ``mae.data.augment.clip_crops`` has the crops that are for clips only.

| row of Table 1e   | here                                              |
|-------------------|---------------------------------------------------|
| none              | ``CenterCrop(size)``                              |
| crop, fixed size  | ``FixedSizeCrop(size)``                           |
| crop, rand size   | ``RandomResizedCrop(size)``                       |
| crop + color jit  | ``Compose((RandomResizedCrop(size), ColorJitter()))`` |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mae.data.augment.places import crop_map
from mae.data.augment.resample import RADIUS, Boxes, cover, resample, unit
from mae.draws import uniform
from mae.errors import DataError

TRIES = 10  # boxes drawn before the central one is taken, as in torchvision


class Cut(NamedTuple):
    """What a crop took: ``pixels``, and the ``boxes`` that these are of the input, mirrored where ``flip: (B,)``.

    ``resized`` is the shape of the input after it was resized, if it was: the boxes are then in pixels of that.
    """

    pixels: Tensor
    boxes: Boxes
    flip: Tensor | None = None
    resized: torch.Size | None = None


class Crop(ABC):
    """An augmentation that takes one box of every item; it says which, so that other things can follow."""

    @abstractmethod
    def cut(self, images: Tensor, generator: Generator) -> Cut: ...

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """``images: (B, C, H, W)`` or ``(B, C, T, H, W)``, uint8 or float in [0, 1], to float32 of the crop's size."""
        return self.cut(images, generator).pixels

    def mapped(self, images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """The crops, and where they put the points of the input."""
        pixels, boxes, flip, resized = self.cut(images, generator)
        if resized is not None:
            down, across = images.shape[-2] / resized[-2], images.shape[-1] / resized[-1]
            boxes = Boxes(boxes.top * down, boxes.left * across, boxes.height * down, boxes.width * across)
        height, width = pixels.shape[-2:]
        return pixels, crop_map(boxes, (height, width), flip)


def central(
    images: Tensor,
    size: tuple[int, int],
    resize: tuple[int, int],
    interpolation: str = "bicubic",
    antialias: bool = True,
) -> Cut:
    """The centre ``size`` of each item resized to cover ``resize``, both (h, w)."""
    seen = cover(unit(images), *resize, interpolation, antialias)
    return window(seen, round((seen.shape[-2] - size[0]) / 2), round((seen.shape[-1] - size[1]) / 2), size)


def window(seen: Tensor, top: int, left: int, size: tuple[int, int]) -> Cut:
    """The same box of all items of the resized ``seen: (B, ..., H, W)``."""
    h, w = size
    boxes = Boxes(*(torch.full((len(seen),), float(side), device=seen.device) for side in (top, left, h, w)))
    return Cut(seen[..., top : top + h, left : left + w].contiguous(), boxes, None, seen.shape)


@dataclass(frozen=True)
class CenterCrop(Crop):
    """Resize to just cover ``size``, keep the centre, do not flip (Table 1e "none"; also for testing)."""

    size: int | Sequence[int]
    interpolation: str = "bicubic"
    antialias: bool = True

    def __post_init__(self) -> None:
        check_interpolation(self, self.interpolation)

    def cut(self, images: Tensor, generator: Generator) -> Cut:
        h, w = pair(self.size)
        return central(images, (h, w), (h, w), self.interpolation, self.antialias)


@dataclass(frozen=True)
class CentreOfResized(Crop):
    """The papers' test view of a batch: resize to cover ``resize``, keep the centre ``size``, both (h, w)."""

    size: Sequence[int]
    resize: Sequence[int]

    def __post_init__(self) -> None:
        if not (0 < self.size[0] <= self.resize[0] and 0 < self.size[1] <= self.resize[1]):
            raise DataError(f"CentreOfResized: size={self.size} does not fit into resize={self.resize}; enlarge it.")

    def cut(self, images: Tensor, generator: Generator) -> Cut:
        (h, w), (rows, columns) = self.size, self.resize
        return central(images, (h, w), (rows, columns))


@dataclass(frozen=True)
class FixedSizeCrop(Crop):
    """A crop at one scale in a random place, mirrored half of the time (Table 1e "crop, fixed size").

    With ``padding=None`` the picture is resized to cover 256/224 of ``size``, the usual margin on ImageNet.
    With a number it is resized to cover ``size`` and continued by reflection over that many pixels, so that
    nothing is interpolated where pictures already have the size: the usual shift for pictures of 32 pixels.
    """

    size: int | Sequence[int]
    padding: int | None = None
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding is not None and self.padding < 0:
            raise DataError(f"FixedSizeCrop: padding={self.padding} is negative; use None, 0 or more pixels.")

    def cut(self, images: Tensor, generator: Generator) -> Cut:
        h, w = pair(self.size)
        images = unit(images)
        if self.padding is None:
            images = cover(images, round(h * 256 / 224), round(w * 256 / 224))
            resized = images.shape
        else:
            images = cover(images, h, w)
            resized = images.shape
            if self.padding >= min(images.shape[-2:]):
                raise DataError(
                    f"FixedSizeCrop: padding={self.padding} cannot be reflected in pictures of "
                    f"{images.shape[-2]}x{images.shape[-1]} pixels; use less."
                )
            padded = F.pad(images.flatten(1, -3), (self.padding,) * 4, mode="reflect")
            images = padded.view(*images.shape[:-2], *padded.shape[-2:])
        place = uniform(generator, len(images), 3)
        top = (place[:, 0] * (images.shape[-2] - h + 1)).floor()
        left = (place[:, 1] * (images.shape[-1] - w + 1)).floor()
        boxes = Boxes(top, left, torch.full_like(top, h), torch.full_like(left, w))
        mirrored = place[:, 2] < 0.5 if self.flip else None
        # nothing is resized here, so either kernel copies pixels; the shorter one does so sooner
        seen = resample(images, boxes, (h, w), flip=mirrored, interpolation="bilinear")
        margin = self.padding or 0
        return Cut(seen, boxes._replace(top=top - margin, left=left - margin), mirrored, resized)


@dataclass(frozen=True)
class RandomResizedCrop(Crop):
    """A random box, resized to ``size`` and mirrored half of the time (Table 1e "crop, rand size").

    The area is uniform in ``scale`` (a share of the picture), width / height log-uniform in ``ratio``; the
    first of ten boxes that fits is taken, else the largest central one, as torchvision does. With ``one_draw`` the
    first is taken, each of its sides at most as long as the picture's: large boxes then stay as frequent as they are
    drawn (the released linear probe of MAE, after BYOL). Resizing is antialiased unless ``antialias`` is false.
    """

    size: int | Sequence[int]
    scale: Sequence[float] = (0.2, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    flip: bool = True
    interpolation: str = "bicubic"
    one_draw: bool = False
    antialias: bool = True

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise DataError(f"RandomResizedCrop: scale={self.scale} is not a range within (0, 1].")
        if len(self.ratio) != 2 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise DataError(f"RandomResizedCrop: ratio={self.ratio} is not a range of positive numbers.")
        check_interpolation(self, self.interpolation)

    def cut(self, images: Tensor, generator: Generator) -> Cut:
        boxes = self.boxes(images, generator)
        mirrored = uniform(generator, len(images), 1)[:, 0] < 0.5 if self.flip else None
        seen = resample(
            unit(images),
            boxes,
            pair(self.size),
            flip=mirrored,
            interpolation=self.interpolation,
            antialias=self.antialias,
        )
        return Cut(seen, boxes, mirrored)

    def boxes(self, images: Tensor, generator: Generator) -> Boxes:
        """A box with integer sides for each picture, always inside it."""
        rows, columns = images.shape[-2:]
        area, log_ratio, down, right = uniform(generator, len(images), 4, 1 if self.one_draw else TRIES).unbind(1)
        area = (self.scale[0] + area * (self.scale[1] - self.scale[0])) * rows * columns
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = (low + log_ratio * (high - low)).exp()
        height, width = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
        if self.one_draw:
            height, width = height.clamp(1, rows), width.clamp(1, columns)
        fits = (height >= 1) & (height <= rows) & (width >= 1) & (width <= columns)
        top, left = (down * (rows - height + 1)).floor(), (right * (columns - width + 1)).floor()

        first = fits.int().argmax(1, keepdim=True)
        found = fits.any(1)
        central = self._central(rows, columns)
        drawn = (side.gather(1, first)[:, 0] for side in (top, left, height, width))
        return Boxes(*(torch.where(found, side, fixed) for side, fixed in zip(drawn, central, strict=True)))

    def _central(self, rows: int, columns: int) -> tuple[float, float, float, float]:
        height = min(rows, max(1, round(columns / self.ratio[0])))
        width = min(columns, max(1, round(rows * self.ratio[1])))
        return float((rows - height) // 2), float((columns - width) // 2), float(height), float(width)


def check_interpolation(crop: object, interpolation: str) -> None:
    """DataError unless a crop can resize so."""
    if interpolation not in RADIUS:
        raise DataError(f"{type(crop).__name__}: interpolation={interpolation!r} is none of {', '.join(RADIUS)}.")


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    h, w = (size, size) if isinstance(size, int) else tuple(size)
    if h < 1 or w < 1:
        raise DataError(f"size={size} has no pixels; give a positive number, or two (height, width).")
    return h, w
