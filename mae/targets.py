"""Reconstruction targets: what the decoder is asked to predict for each dropped patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mae.grid import Grid
from mae.masking import Mask, take


class Target(Protocol):
    """What to predict, and the width of the head that predicts it."""

    def __call__(self, patches: Tensor, mask: Mask) -> Tensor:
        """All ``patches: (B, N, P)`` float32 to the values ``(B, M, width)`` to predict for the dropped ones."""
        ...

    def width(self, grid: Grid) -> int:
        """Outputs per token of the decoder's last layer."""
        ...


@dataclass(frozen=True)
class Pixels:
    """The pixels themselves, as the encoder sees them (MAE Table 1d, w/o norm)."""

    def width(self, grid: Grid) -> int:
        return grid.patch_dim

    def __call__(self, patches: Tensor, mask: Mask) -> Tensor:
        return take(patches, mask.drop)


@dataclass(frozen=True)
class PatchNormalisedPixels:
    """Pixels less their patch's mean, over its standard deviation (MAE Table 1d, w/ norm).

    Statistics run over all values of a patch, colours together; the variance is unbiased, eps 1e-6 as released.
    """

    eps: float = 1e-6

    def width(self, grid: Grid) -> int:
        return grid.patch_dim

    def __call__(self, patches: Tensor, mask: Mask) -> Tensor:
        dropped = take(patches, mask.drop)
        variance, mean = torch.var_mean(dropped, dim=-1, keepdim=True)
        return (dropped - mean) / (variance + self.eps).sqrt()


#: Loss functions by name: each takes ``prediction`` and ``target`` of one shape and returns a scalar.
#: Every patch has equally many values, so one mean equals MAE's mean over pixels, then over dropped patches.
LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "smooth_l1": F.smooth_l1_loss}
