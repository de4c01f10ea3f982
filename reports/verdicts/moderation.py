"""The moderated t: variances of contrasts, shrunk towards what all tables of a scale say (Smyth 2004).

A table has few seeds, and a project has many tables. The variance of a contrast is taken to be drawn from a scaled
inverse chi-squared distribution with variance s0^2 and d0 degrees of freedom, so that its estimate follows s0^2 F(d,
d0). Both are fitted to all pairs of rows by a composite likelihood, in which each trained cell counts once however many
pairs it is in. The posterior mean of 1/d0, under a flat prior from 0 to 2, keeps d0 small where there is little to fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Midpoints of the grid over 1/d0.
_INVERSE = (np.arange(20) + 0.5) / 10
_STEPS = 12
#: Fewer independent contrasts, or fewer degrees of freedom in all of them, are too little to fit.
LEAST_UNITS = 4.0
LEAST_POOLED = 12.0
#: Below this d0 the spreads are too unequal: sharing them would say next to nothing, and would err.
LEAST_DF = 1.0
#: A variance that few of the prior's draws exceed is shrunk the less, the rarer it is: an outlier, or a row of another
#: kind, keeps its own spread (the idea of Phipson et al. 2016). Few are RARE / d0, so that the more unequal the spreads
#: are, the sooner a row keeps its own; and never more than half.
RARE = 0.6


@dataclass(frozen=True)
class Prior:
    """What is known of a variance before its own seeds: `variance` (per unit of squared weight), worth `df` degrees.

    `units` counts the independent contrasts behind it, `pooled` their degrees of freedom; `reason` says why `df` is 0
    where nothing is shared.
    """

    variance: float
    df: float
    units: float
    pooled: float
    reason: str = ""


def plain(reason: str) -> Prior:
    """Return the prior that leaves each variance to its own seeds: the plain paired t."""
    return Prior(0.0, 0.0, 0.0, 0.0, reason)


def fit(variances: Floats, degrees: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return s0^2 and d0, each (B,), of B sets of U contrasts.

    `variances` are (B, U), `degrees` (U,) or (B, U), `weights` (U,).
    d0 is 0 where the spreads are too unequal to be shared.
    """
    from scipy.special import gammaln

    d0 = (1 / _INVERSE)[:, None, None]
    weighted = weights * degrees
    total = np.broadcast_to(weighted, variances.shape).sum(-1)
    sums = degrees * variances
    scale = np.maximum((weights * sums).sum(-1) / total, 1e-12)
    scales = np.broadcast_to(scale, (len(_INVERSE), len(variances))).copy()
    for _ in range(_STEPS):  # the fixed point of the likelihood in s0^2, for each d0
        scales = (weights * (degrees + d0) * sums / (d0 + sums / scales[..., None])).sum(-1) / total
        scales = np.maximum(scales, 1e-12)
    constant = gammaln((degrees + d0) / 2) - gammaln(d0 / 2) - degrees / 2 * np.log(d0)
    log = constant - degrees / 2 * np.log(scales)[..., None]
    log = log - (degrees + d0) / 2 * np.log1p(sums / (d0 * scales[..., None]))
    likelihood = (weights * log).sum(-1)
    posterior = np.exp(likelihood - likelihood.max(0))
    posterior /= posterior.sum(0)
    df = 1 / (posterior * _INVERSE[:, None]).sum(0)
    variance = np.exp((posterior * np.log(scales)).sum(0))
    return variance, np.where(df < LEAST_DF, 0.0, df)


def prior_of(variances: Floats, degrees: Floats, weights: Floats) -> Prior:
    """Fit one prior to U contrasts, or say why there is none."""
    units = float(weights.sum())
    pooled = float((weights * degrees).sum())
    if units < LEAST_UNITS or pooled < LEAST_POOLED:
        return plain(f"too little to share a variance ({units:.1f} contrasts, {pooled:.1f} degrees of freedom)")
    variance, df = fit(variances[None], degrees, weights)
    if df[0] == 0:
        return Prior(float(variance[0]), 0.0, units, pooled, "spreads too unequal to be shared")
    return Prior(float(variance[0]), float(df[0]), units, pooled)


def moderate(
    variances: Floats, degrees: Floats, variance: Floats, df: Floats, pooled: Floats | float
) -> tuple[Floats, Floats]:
    """Return variances shrunk towards `variance`, worth `df` degrees, and the degrees of freedom of their t.

    A t never has more degrees of freedom than were `pooled`.
    """
    from scipy.special import fdtrc

    shared = df > 0
    safe = np.where(shared, df, 1.0)
    ratio = np.where(shared, variances / np.where(shared, variance, 1.0), 0.0)
    above = fdtrc(np.maximum(degrees, 1.0), safe, ratio)
    rare = np.minimum(0.5, RARE / safe)
    weight = np.where(degrees > 0, df * np.minimum(1.0, above / rare), df)
    shrunk = (weight * variance + degrees * variances) / np.maximum(weight + degrees, 1e-12)
    capped = np.where(shared, np.minimum(weight + degrees, np.maximum(pooled, degrees)), degrees)
    return shrunk, capped
