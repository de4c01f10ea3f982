"""Whether a training has collapsed: whether all samples get nearly the same features."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Below this ``feature_std`` a training counts as collapsed: an untrained DINO has 0.02, one without centring 2e-6.
COLLAPSED = 1e-3


class Spread(NamedTuple):
    """How far features of different samples lie apart.

    ``feature_std`` is the standard deviation of features of length one, averaged over channels, as a share of that of
    directions drawn evenly (SimSiam, 2011.10566, Fig. 2). ``feature_rank`` is the effective rank of the features less
    their mean: the exponential of the entropy of their singular values (Roy and Vetterli 2007, as in RankMe,
    2210.02885).
    """

    feature_std: float
    feature_rank: float


def spread_of(features: Tensor) -> Spread:
    """Measure the spread of ``features: (n, D)``."""
    features = features.double()
    directions = torch.nn.functional.normalize(features, dim=1)
    std = directions.std(0, correction=0).mean() * directions.shape[1] ** 0.5
    sizes = torch.linalg.svdvals(features - features.mean(0))
    shares = sizes / sizes.sum().clamp(min=1e-300)
    return Spread(float(std), float(torch.special.entr(shares).sum().exp()))
