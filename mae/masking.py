"""Mask sampling: score every patch, keep the lowest. Counts are exact by construction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor

from mae.flops import num_keep
from mae.grid import Grid


@dataclass(frozen=True)
class Mask:
    """Which patches an encoder sees: ascending ids ``keep: (B, K)`` and ``drop: (B, M)`` int64, a partition."""

    keep: Tensor
    drop: Tensor

    @classmethod
    def lowest(cls, scores: Tensor, num_keep: int) -> Mask:
        """Keep the ``num_keep`` lowest of ``scores: (B, N)`` in each row, drop the others."""
        order = scores.argsort(dim=1, stable=True)
        return cls(order[:, :num_keep].sort(dim=1).values, order[:, num_keep:].sort(dim=1).values)

    def dropped(self) -> Tensor:
        """``(B, N)`` bool, True where a patch is dropped."""
        batch, num_drop = self.drop.shape
        flags = torch.zeros(batch, self.keep.shape[1] + num_drop, dtype=torch.bool, device=self.drop.device)
        return flags.scatter_(1, self.drop, True)


def take(tokens: Tensor, ids: Tensor) -> Tensor:
    """Rows ``ids: (B, K)`` of ``tokens: (B, N, D)`` as ``(B, K, D)``."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class Strategy(Protocol):
    """A way to draw masks. Its fields are its hyper-parameters, its repr is the row's label."""

    def __call__(self, batch: int, grid: Grid, generator: Generator) -> Mask:
        """One mask per item, drawn from ``generator`` on the generator's device."""
        ...

    def visible(self, grid: Grid) -> int:
        """How many patches of ``grid`` stay visible."""
        ...


@dataclass(frozen=True)
class Random:
    """Uniform sampling without replacement (MAE Sec. 3)."""

    ratio: float = 0.75
    rounding: str = "mae"

    def visible(self, grid: Grid) -> int:
        return num_keep(grid.num_patches, self.ratio, self.rounding)

    def __call__(self, batch: int, grid: Grid, generator: Generator) -> Mask:
        scores = torch.rand(batch, grid.num_patches, generator=generator, device=generator.device)
        return Mask.lowest(scores, self.visible(grid))
