"""What methods with a momentum teacher share (MoCo, 1911.05722): a copy that follows, and its schedule."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mae.footprint import Way
from mae.model import Encoder


def represent(encoder: Encoder, views: Tensor) -> Tensor:
    """Encode ``views: (B, C, [T,] H, W)`` to ``(B, D)``: the class token, or the mean of the tokens without one."""
    return summary(encoder, encoder(encoder.grid.patchify(views)))


def summary(encoder: Encoder, latent: Tensor) -> Tensor:
    """Take ``(B, D)`` of a ``latent: (B, prefix + N, D)``: the class token, or the mean of the tokens without one."""
    return latent.mean(1) if encoder.class_token is None else latent[:, 0]


class Teacher(nn.Module):
    """Copies of an encoder and its head, which no gradient reaches; they move only by ``follow``."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = copy.deepcopy(encoder), copy.deepcopy(head)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, views: Tensor) -> Tensor:
        """Return the head's output ``(B, K)`` for ``views: (B, C, [T,] H, W)``."""
        output: Tensor = self.head(represent(self.encoder, views))
        return output

    @torch.no_grad()
    def follow(self, encoder: Encoder, head: nn.Module, momentum: float) -> None:
        """Move every weight: ``momentum`` of itself, the rest of the student's."""
        for mine, theirs in zip((self.encoder, self.head), (encoder, head), strict=True):
            for weight, followed in zip(mine.parameters(), theirs.parameters(), strict=True):
                weight.lerp_(followed.detach(), 1 - momentum)


def cosine_momentum(start: float, done: float) -> float:
    """Raise the momentum from ``start`` to 1 along half a cosine, of which the share ``done`` in [0, 1] is done."""
    return 1 - (1 - start) * (1 + math.cos(math.pi * done)) / 2


def mlp(widths: Sequence[int]) -> nn.Sequential:
    """Make an MLP as contrastive heads have it (SimCLR, 2002.05709): a BatchNorm after each layer, ReLU between them.

    The last BatchNorm has neither scale nor shift.
    """
    layers: list[nn.Module] = []
    for number, (wide, out) in enumerate(pairwise(widths), 2):
        last = number == len(widths)
        layers += [nn.Linear(wide, out, bias=False), nn.BatchNorm1d(out, affine=not last)]
        layers += [] if last else [nn.ReLU()]
    return nn.Sequential(*layers)


def mlp_kept(widths: Sequence[int], way: Way) -> float:
    """Count the bytes that ``mlp(widths)`` keeps of one vector: what enters its layers, and what enters its norms.

    What a ReLU keeps is what enters the next layer.
    """
    return float(way.element * sum(map(sum, pairwise(widths))))
