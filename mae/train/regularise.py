"""What fine-tuning does to a normalised batch before the model sees it: erase a box, mix with another picture.

Both work on their device without a look from the host. The loop's generator draws, so that a
resumed run draws what it would have drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mae.draws import Rows, normal, of_batch, rows_of, uniform

TRIES = 10  # boxes drawn before a picture is left whole, as timm does


@dataclass(frozen=True)
class RandomErasing:
    """A box filled with standard normal noise in a share of the pictures (Zhong et al., 1708.04896).

    Called with normalised ``images: (B, C, H, W)``; of clips ``(B, C, T, H, W)`` one box goes through all frames. The
    area is uniform in ``area`` (a share of the picture), height / width log-uniform in ``aspect``; the values and the
    noise are those of timm's ``pixel`` mode, which MAE used, and VideoMAE with a box for the whole clip.
    """

    probability: float
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        batch, (rows, columns) = len(images), images.shape[-2:]
        draw = uniform(generator, 4, batch, TRIES, axis=1)
        erased = uniform(generator, batch) < self.probability
        area = (self.area[0] + draw[0] * (self.area[1] - self.area[0])) * rows * columns
        low, high = math.log(self.aspect[0]), math.log(self.aspect[1])
        aspect = (low + draw[1] * (high - low)).exp()
        height, width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        fits = (height < rows) & (width < columns)
        top, left = (draw[2] * (rows - height + 1)).floor(), (draw[3] * (columns - width + 1)).floor()
        first = fits.int().argmax(1, keepdim=True)
        top, left, height, width = (side.gather(1, first) for side in (top, left, height, width))
        box = inside(top, left, top + height, left + width, rows, columns)
        box &= (erased & fits.any(1))[:, None, None]
        noise = normal(generator, *images.shape, dtype=images.dtype)
        return torch.where(box.view(batch, *(1,) * (images.ndim - 3), rows, columns), noise, images)


@dataclass(frozen=True)
class Mix:
    """Mixup (1710.09412) or CutMix (1905.04899) of a batch with itself in reverse order.

    ``mixup`` and ``cutmix`` are the parameters of Beta(a, a), 0 switches one off; with both on, each takes half of the
    batches. The share of the other picture is that of the box that CutMix really cut. This is timm's ``Mixup`` in its
    ``batch`` mode, which MAE used, without its need for an even number of pictures. ``draws`` is how often that is
    drawn in a batch, for as many parts of it, of which each is mixed with itself.
    """

    mixup: float
    cutmix: float
    draws: int = 1

    def __call__(self, images: Tensor, labels: Tensor, classes: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """``images: (B, C, H, W)`` and ``labels: (B,)`` int64, to mixed images and targets ``(B, classes)`` float32.

        Of clips ``(B, C, T, H, W)`` CutMix cuts one box through all frames.
        """
        shared, device = of_batch(generator), images.device
        coin, down, across = torch.rand(3, self.draws, generator=shared, device=device)
        cut = coin < (0.5 if self.mixup else 1.0) if self.cutmix else torch.zeros_like(coin, dtype=torch.bool)
        own = torch.where(cut, self._share(self.cutmix, coin, shared), self._share(self.mixup, coin, shared))

        rows, columns = images.shape[-2:]
        side = (1 - own).sqrt()
        height, width = (rows * side).floor(), (columns * side).floor()
        top, left = (down * rows).floor() - (height / 2).floor(), (across * columns).floor() - (width / 2).floor()
        top, left, height, width = (edge.view(-1, 1) for edge in (top, left, height, width))
        box = inside(top, left, top + height, left + width, rows, columns)
        whole = own.to(images.dtype).view(-1, 1, 1)
        weight = torch.where(cut.view(-1, 1, 1), (~box).to(images.dtype), whole)  # (draws, H, W): of the own pixel
        share = torch.where(cut, 1 - box.float().mean((1, 2)), own).view(-1, 1)

        targets = F.one_hot(labels, classes).float()
        if self.draws == 1:
            return torch.lerp(images.flip(0), images, weight), torch.lerp(targets.flip(0), targets, share)
        draw, other = self._pairs(rows_of(generator, len(images)), device)
        weight = weight[draw].view(len(images), *(1,) * (images.ndim - 3), rows, columns)
        return torch.lerp(images[other], images, weight), torch.lerp(targets[other], targets, share[draw])

    def _pairs(self, here: Rows, device: torch.device) -> tuple[Tensor, Tensor]:
        """Tell for each row the draw that it is mixed by, and the row that it is mixed with; both ``(B,)`` int64."""
        draw = here.ids(device) // (here.batch // self.draws)
        first, last = torch.searchsorted(draw, draw), torch.searchsorted(draw, draw, right=True) - 1
        return draw, first + last - torch.arange(len(draw), device=device)

    @staticmethod
    def _share(alpha: float, like: Tensor, generator: Generator) -> Tensor:
        """Draw from Beta(alpha, alpha) as a ratio of two Gamma draws; 1 where ``alpha`` is 0."""
        if not alpha:
            return torch.ones_like(like)
        draws = torch._standard_gamma(like.new_full((2, len(like)), alpha), generator=generator)
        return draws[0] / draws.sum(0)


def inside(top: Tensor, left: Tensor, bottom: Tensor, right: Tensor, rows: int, columns: int) -> Tensor:
    """``(B, rows, columns)`` bool, True in the boxes whose edges are given as ``(B, 1)``, the far ones excluded."""
    row = torch.arange(rows, device=top.device)
    column = torch.arange(columns, device=top.device)
    down, across = (row >= top) & (row < bottom), (column >= left) & (column < right)
    return down[:, :, None] & across[:, None, :]
