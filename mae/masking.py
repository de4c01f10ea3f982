"""Mask sampling: score every patch, keep the lowest. Counts are exact by construction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from mae.draws import Rows
from mae.grid import Grid


@dataclass(frozen=True)
class Mask:
    """It says which patches an encoder sees: ascending ids ``keep`` and ``drop`` partition the grid.

    They are ``(B, K)`` and ``(B, M)`` int64.
    """

    keep: Tensor
    drop: Tensor

    @classmethod
    def lowest(cls, scores: Tensor, num_keep: int) -> Mask:
        """Keep the ``num_keep`` lowest of ``scores: (B, N)`` in each row, drop the others."""
        order = scores.argsort(dim=1, stable=True)
        return cls(order[:, :num_keep].sort(dim=1).values, order[:, num_keep:].sort(dim=1).values)

    def of(self, rows: Rows) -> Mask:
        """Return the masks of ``rows`` of the batch that these were drawn for."""
        return Mask(rows.of(self.keep), rows.of(self.drop))

    def dropped(self) -> Tensor:
        """Return flags ``(B, N)`` bool, which are True where a patch is dropped."""
        batch, num_drop = self.drop.shape
        flags = torch.zeros(batch, self.keep.shape[1] + num_drop, dtype=torch.bool, device=self.drop.device)
        return flags.scatter_(1, self.drop, True)


def take(tokens: Tensor, ids: Tensor) -> Tensor:
    """Take the rows ``ids: (B, K)`` of ``tokens: (B, N, D)`` as ``(B, K, D)``."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def num_keep(n: int, ratio: float, rounding: str) -> int:
    """Count how many of ``n`` patches stay visible at a masking ``ratio`` in (0, 1).

    ``rounding`` names the paper's rule: ``mae`` keeps ``int(n (1 - r))``, ``videomae`` drops ``int(r n)``.
    ValueError if the ratio is outside (0, 1), or if nothing would be kept or dropped.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"masking ratio {ratio} is outside (0, 1)")
    rules = {"mae": int(n * (1 - ratio)), "videomae": n - int(ratio * n)}
    if rounding not in rules:
        raise ValueError(f"unknown rounding {rounding!r}; choose one of {', '.join(rules)}")
    if not 0 < rules[rounding] < n:
        raise ValueError(
            f"masking ratio {ratio} of {n} patches would keep {rules[rounding]}; keep at least 1, drop at least 1"
        )
    return rules[rounding]


class Strategy(Protocol):
    """A strategy draws masks. Its fields are its hyper-parameters, its repr is the row's label.

    It alone says how many patches stay visible; whether it has a ratio, and what it is a ratio of, is its own affair.
    """

    def __call__(self, batch: int, grid: Grid, generator: Generator) -> Mask:
        """Draw one mask for each item from ``generator``, on the generator's device."""
        ...

    def visible(self, grid: Grid) -> int:
        """Say how many patches of ``grid`` stay visible in each mask; ValueError if this grid cannot be masked so."""
        ...


@dataclass(frozen=True)
class Random:
    """Patches are sampled uniformly and without replacement (MAE Sec. 3)."""

    ratio: float = 0.75
    rounding: str = "mae"

    def visible(self, grid: Grid) -> int:
        return num_keep(grid.num_patches, self.ratio, self.rounding)

    def __call__(self, batch: int, grid: Grid, generator: Generator) -> Mask:
        scores = torch.rand(batch, grid.num_patches, generator=generator, device=generator.device)
        return Mask.lowest(scores, self.visible(grid))


#: Rectangles drawn for a block-wise mask; at a ratio of 0.75, two masks of 14 x 14 patches in a hundred need more.
RECTANGLES = 24


@dataclass(frozen=True)
class BlockWise:
    """Rectangles of random area and shape are dropped until enough is (BEiT Algorithm 1, 2106.08254; MAE Fig. 6).

    Areas are uniform from ``min_share`` of the grid (16 of 14 x 14 patches, as published) to what is still missing,
    height / width log-uniform from ``min_aspect`` to its inverse as far as the rectangle fits the picture. The count
    is exact: the last rectangle is cut by a straight edge in a random direction. Where ``RECTANGLES`` do not suffice,
    one as large as the picture is the last. It masks images only.
    """

    ratio: float = 0.75
    rounding: str = "mae"
    min_share: float = 0.08
    min_aspect: float = 0.3

    def __post_init__(self) -> None:
        if not (0 < self.min_share < 1 and 0 < self.min_aspect <= 1):
            raise ValueError(
                f"BlockWise: min_share={self.min_share} must be in (0, 1) and min_aspect={self.min_aspect} in (0, 1]"
            )

    def visible(self, grid: Grid) -> int:
        _images_only(self, grid)
        return num_keep(grid.num_patches, self.ratio, self.rounding)

    def __call__(self, batch: int, grid: Grid, generator: Generator) -> Mask:
        num_visible = self.visible(grid)
        wanted, smallest = grid.num_patches - num_visible, max(1.0, self.min_share * grid.num_patches)
        area, aspect, down, right = self._uniform(generator, RECTANGLES, 4, batch, 1).unbind(1)
        rows, columns = (
            axis.flatten()
            for axis in torch.meshgrid(
                torch.arange(grid.h, device=generator.device),
                torch.arange(grid.w, device=generator.device),
                indexing="ij",
            )
        )
        # which rectangle drops a patch first; the picture itself comes after all that are drawn
        first = torch.full((batch, grid.num_patches), RECTANGLES, device=generator.device)
        widest = -math.log(self.min_aspect)
        for k in range(RECTANGLES):
            missing = wanted - (first < RECTANGLES).sum(1, keepdim=True)
            size = smallest + area[k] * (missing - smallest).clamp(min=0)
            lowest = (size.log() - 2 * math.log(grid.w)).clamp(-widest, widest)
            highest = (2 * math.log(grid.h) - size.log()).clamp(-widest, widest)
            stretch = (0.5 * (lowest + aspect[k] * (highest - lowest))).exp()
            height = (size.sqrt() * stretch).round().clamp(1, grid.h)
            width = (size.sqrt() / stretch).round().clamp(1, grid.w)
            top, left = (down[k] * (grid.h - height + 1)).floor(), (right[k] * (grid.w - width + 1)).floor()
            inside = (rows >= top) & (rows < top + height) & (columns >= left) & (columns < left + width)
            first = torch.where(inside & (first == RECTANGLES), k, first)
        angle = 2 * math.pi * self._uniform(generator, batch, 1)
        sweep = rows * angle.sin() + columns * angle.cos()
        # all patches of a rectangle are dropped before any of the next; within one, a straight edge sweeps over them
        sweep = (sweep - sweep.amin(1, keepdim=True)) / (2 * (grid.h + grid.w))
        return Mask.lowest(-(first + sweep), num_visible)

    @staticmethod
    def _uniform(generator: Generator, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device)


@dataclass(frozen=True)
class GridWise:
    """Keep the upper left of every 2 x 2 patches (MAE Fig. 6, right). It masks images only.

    Nothing is random: the paper keeps patches "regularly". The ratio is thus 0.75, and the field is there to say so.
    """

    ratio: float = 0.75
    rounding: str = "mae"

    def __post_init__(self) -> None:
        if self.ratio != 0.75:
            raise ValueError(
                f"grid-wise sampling keeps one of every four patches: mask.ratio is 0.75, not {self.ratio}"
            )

    def visible(self, grid: Grid) -> int:
        _images_only(self, grid)
        if grid.h % 2 or grid.w % 2:
            raise ValueError(
                f"grid-wise sampling needs an even number of patches each way, not {grid.h} x {grid.w}; "
                f"choose another input or patch size"
            )
        return num_keep(grid.num_patches, self.ratio, self.rounding)

    def __call__(self, batch: int, grid: Grid, generator: Generator) -> Mask:
        num_visible = self.visible(grid)
        dropped = torch.ones(grid.h, grid.w, device=generator.device)
        dropped[::2, ::2] = 0
        return Mask.lowest(dropped.flatten().expand(batch, -1), num_visible)


@dataclass(frozen=True)
class Tube:
    """One random mask of the picture plane is repeated over all temporal slots (VideoMAE Sec. 3.3)."""

    ratio: float = 0.9
    rounding: str = "videomae"

    def visible(self, grid: Grid) -> int:
        return grid.t * num_keep(grid.h * grid.w, self.ratio, self.rounding)

    def __call__(self, batch: int, grid: Grid, generator: Generator) -> Mask:
        plane = grid.h * grid.w
        scores = torch.rand(batch, plane, generator=generator, device=generator.device)
        mask = Mask.lowest(scores, self.visible(grid) // grid.t)
        slots = torch.arange(grid.t, device=generator.device).view(1, -1, 1) * plane
        # (B, 1, K) + (1, t, 1): the same places in every slot, slot by slot
        return Mask((mask.keep.unsqueeze(1) + slots).flatten(1), (mask.drop.unsqueeze(1) + slots).flatten(1))


@dataclass(frozen=True)
class Frame:
    """Whole temporal slots are dropped, drawn at random (VideoMAE Table 1b: 7 of 8 at 0.875)."""

    ratio: float = 0.875
    rounding: str = "videomae"

    def visible(self, grid: Grid) -> int:
        if grid.t < 2:
            raise ValueError("frame masking drops whole temporal slots and this grid has one; choose another mask")
        return grid.h * grid.w * num_keep(grid.t, self.ratio, self.rounding)

    def __call__(self, batch: int, grid: Grid, generator: Generator) -> Mask:
        plane = grid.h * grid.w
        num_slots = self.visible(grid) // plane
        mask = Mask.lowest(torch.rand(batch, grid.t, generator=generator, device=generator.device), num_slots)
        places = torch.arange(plane, device=generator.device)
        keep, drop = ((slots.unsqueeze(2) * plane + places).flatten(1) for slots in (mask.keep, mask.drop))
        return Mask(keep, drop)


def _images_only(strategy: Strategy, grid: Grid) -> None:
    if grid.t != 1:
        raise ValueError(
            f"{type(strategy).__name__} masks pictures, and this grid has {grid.t} temporal slots; "
            f"choose mask=random, tube or frame"
        )
