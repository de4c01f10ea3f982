"""The papers' crops on one encoded picture, for sets that are decoded anew each time they are read.

Batched crops of pixels in memory are in ``augment``; here the box is cut out of the *original* picture, so
that no pixel is resampled twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Generator

from mae.data.augment.crops import CenterCrop, CentreOfResized, FixedSizeCrop, RandomResizedCrop, pair
from mae.data.pictures.decode import cover, part_of_scaled, scaled_to_cover
from mae.data.source import Augment
from mae.errors import DataError


class Geometry(Protocol):
    """From a decoded picture to one of ``size = (h, w)``."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every picture returned."""
        ...

    def __call__(self, picture: Image.Image, generator: Generator) -> Image.Image: ...


@dataclass(frozen=True)
class CentreView:
    """The papers' test view: short side to ``resize``, centre crop ``size``, both (h, w); bicubic."""

    size: tuple[int, int] = (224, 224)
    resize: tuple[int, int] = (256, 256)

    def __call__(self, picture: Image.Image, generator: Generator) -> Image.Image:
        return cover(picture, self.size, self.resize)


@dataclass(frozen=True)
class RandomView:
    """MAE's training view (Appendix A.1): random resized crop, bicubic, and a flip of every second picture.

    The box has a share of the area uniform in ``scale`` and an aspect ratio log-uniform in ``ratio``; after
    ten boxes that do not fit, the largest centred one within ``ratio``, as in torchvision. With ``one_draw`` the first
    is taken, its sides cut to the picture's (see ``RandomResizedCrop``).
    """

    size: tuple[int, int] = (224, 224)
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    one_draw: bool = False

    def __call__(self, picture: Image.Image, generator: Generator) -> Image.Image:
        left, top, width, height = self.box(picture.width, picture.height, generator)
        picture = picture.crop((left, top, left + width, top + height))
        if picture.size != self.size[::-1]:
            picture = picture.resize(self.size[::-1], Image.Resampling.BICUBIC)
        if self.flip and torch.rand((), generator=generator) < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return picture

    def box(self, width: int, height: int, generator: Generator) -> tuple[int, int, int, int]:
        """(left, top, width, height) in pixels, inside a picture of ``width`` by ``height``."""
        for area, ratio, x, y in torch.rand(10, 4, generator=generator, dtype=torch.float64).tolist():
            target = width * height * (self.scale[0] + area * (self.scale[1] - self.scale[0]))
            low, high = (math.log(limit) for limit in self.ratio)
            aspect = math.exp(low + ratio * (high - low))
            w, h = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
            if self.one_draw:
                w, h = min(max(1, w), width), min(max(1, h), height)
            if 0 < w <= width and 0 < h <= height:
                return int(x * (width - w + 1)), int(y * (height - h + 1)), w, h
        w, h = width, height
        if width / height < self.ratio[0]:
            h = min(height, max(1, round(width / self.ratio[0])))
        elif width / height > self.ratio[1]:
            w = min(width, max(1, round(height * self.ratio[1])))
        return (width - w) // 2, (height - h) // 2, w, h


@dataclass(frozen=True)
class FixedView:
    """A crop at one scale in a random place (MAE Table 1e "crop, fixed size"), cut from the picture's file.

    The picture is scaled to cover ``resize``; the crop has ``size``; both (h, w).
    """

    size: tuple[int, int]
    resize: tuple[int, int]
    flip: bool = True

    def __call__(self, picture: Image.Image, generator: Generator) -> Image.Image:
        height, width = self.size
        rows, columns = self.resize
        longer = max(rows / picture.height, columns / picture.width)
        whole = (max(rows, int(picture.height * longer)), max(columns, int(picture.width * longer)))
        scaled = scaled_to_cover(picture, whole)
        down, right, mirror = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
        top, left = int(down * (whole[0] - height + 1)), int(right * (whole[1] - width + 1))
        top, left = top + round((scaled[1] - whole[0]) / 2), left + round((scaled[0] - whole[1]) / 2)
        picture = part_of_scaled(picture, scaled, (left, top, left + width, top + height))
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.flip and mirror < 0.5 else picture


def geometry_of(crop: Augment) -> Geometry:
    """The crop of a batch as a crop of one encoded picture; DataError when it cannot be taken there."""
    if isinstance(crop, RandomResizedCrop) and crop.interpolation == "bicubic" and crop.antialias:
        low, high = crop.scale
        narrow, wide = crop.ratio
        return RandomView(pair(crop.size), (low, high), (narrow, wide), crop.flip, crop.one_draw)
    if isinstance(crop, FixedSizeCrop) and crop.padding is None:
        h, w = pair(crop.size)
        return FixedView((h, w), (round(h * 256 / 224), round(w * 256 / 224)), crop.flip)
    if isinstance(crop, CentreOfResized):
        return CentreView(pair(crop.size), pair(crop.resize))
    if isinstance(crop, CenterCrop) and crop.interpolation == "bicubic" and crop.antialias:
        return CentreView(pair(crop.size), pair(crop.size))
    raise DataError(
        f"Files that are streamed are cropped as they are decoded, and {crop} is no crop that can be taken there; "
        f"begin the augmentation with RandomResizedCrop (bicubic), FixedSizeCrop (no padding) or CenterCrop."
    )
