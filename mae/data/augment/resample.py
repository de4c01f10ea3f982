"""Boxes of a batch of pictures, resized as two matrix products; what every crop is made of."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mae.errors import DataError

RADIUS = {"bilinear": 1.0, "bicubic": 2.0}  # reach of the kernel, in pixels of the coarser of the two grids


class Boxes(NamedTuple):
    """One box for each picture, in pixels: four tensors ``(B,)`` float32."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def unit(images: Tensor) -> Tensor:
    """``(B, C, H, W)`` or ``(B, C, T, H, W)`` as float32: uint8 is divided by 255, floats are taken as they are.

    DataError on anything else.
    """
    if images.ndim not in (4, 5):
        raise DataError(f"Pictures must be (B, C, H, W) and clips (B, C, T, H, W), not {tuple(images.shape)}.")
    if images.dtype == torch.uint8:
        return images.float().div_(255)
    if images.is_floating_point():
        return images.float()
    raise DataError(f"Pictures must be uint8, or floats in [0, 1], not {images.dtype}; convert them first.")


def resample(
    images: Tensor,
    boxes: Boxes,
    size: tuple[int, int],
    *,
    flip: Tensor | None = None,
    interpolation: str = "bicubic",
    antialias: bool = True,
) -> Tensor:
    """``(B, ..., h, w)`` in [0, 1]: each item's box of ``images: (B, ..., H, W)``, resized.

    Interpolation is separable, so it is two products with matrices of weights, ``(B, h, H)`` and ``(B, W,
    w)``; ``grid_sample`` costs as much and cannot ``antialias``. Pixels outside the box count for nothing, as
    if it had been cut out first. ``flip: (B,)`` bool mirrors. Agrees with torchvision's ``resized_crop``.
    """
    b, *between, rows, columns = images.shape
    radius = RADIUS[interpolation]
    down = _weights(boxes.top, boxes.height, rows, size[0], radius, antialias=antialias)
    across = _weights(boxes.left, boxes.width, columns, size[1], radius, flip, antialias)
    with torch.autocast(images.device.type, enabled=False):  # half precision would blur the pixels' values
        narrow = torch.bmm(images.flatten(1, -2), across.transpose(1, 2))
        resized = down[:, None] @ narrow.view(b, math.prod(between), rows, size[1])
    return resized.clamp_(0, 1).view(b, *between, *size)  # the cubic overshoots at edges


def cover(images: Tensor, h: int, w: int, interpolation: str = "bicubic", antialias: bool = True) -> Tensor:
    """``(B, ..., H, W)`` resized, aspect kept, so that one side is as asked and the other no shorter."""
    rows, columns = images.shape[-2:]
    size = (h, h * columns // rows) if h * columns >= w * rows else (w * rows // columns, w)
    if size == (rows, columns):
        return images
    folded = images.flatten(1, -3)
    resized = F.interpolate(folded, size=size, mode=interpolation, antialias=antialias, align_corners=False)
    return resized.clamp_(0, 1).view(*images.shape[:-2], *size)


def _weights(
    start: Tensor,
    extent: Tensor,
    source: int,
    target: int,
    radius: float,
    flip: Tensor | None = None,
    antialias: bool = True,
) -> Tensor:
    """``(B, target, source)``: how much each source pixel gives to each target pixel; rows sum to 1."""
    pixel = torch.arange(max(source, target), device=start.device) + 0.5
    start, end = start[:, None, None], (start + extent)[:, None, None]
    step = extent[:, None, None] / target
    at = pixel[:target, None]
    if flip is not None:
        at = torch.where(flip[:, None, None], target - at, at)
    # the kernel widens where the picture shrinks: that is the antialiasing
    reach = step.clamp(min=1) if antialias else torch.ones_like(step)
    distance = (pixel[:source] - (start + at * step)).div_(reach).abs_()
    if radius == 1.0:
        weight = (1 - distance).clamp_(min=0)
    else:  # Keys' cubic with a = -0.5, as a sum of two pieces that vanish from 2 and from 1 on
        outer, inner = (2 - distance).clamp_(min=0), (1 - distance).clamp_(min=0)
        weight = outer.square_().mul_((1 - distance).mul_(0.5)).add_(inner.square_().mul_(2 * distance - 1))
    weight.mul_((pixel[:source] > start) & (pixel[:source] < end))
    return weight.div_(weight.sum(-1, keepdim=True))
