"""What seeds could have seen, how many more are needed, and what they cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.verdicts.judge import ALPHA, Judgement
from reports.verdicts.moderation import Prior

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.ablation import Ablation

#: Probability with which a difference is to be found.
POWER = 0.8
#: More seeds than this are not asked for.
MOST_SEEDS = 200


def smallest_visible(judged: Judgement) -> float | None:
    """Return the smallest true difference that these seeds would have found with 80% power; None without a spread.

    For an equivalence it is the smallest margin within which these seeds would have placed two equal rows.
    """
    if judged.spread is None or judged.n < 2:
        return None
    error = judged.spread / judged.n**0.5
    if judged.claim.margin is not None:
        from scipy.special import stdtrit

        # both tests must succeed: the mean may stray to either side
        return float(stdtrit(judged.df, 1 - ALPHA) + stdtrit(judged.df, (1 + POWER) / 2)) * error
    return float(_noncentrality(np.array([judged.df]), ALPHA / 2)[0]) * error


def seeds_needed(judged: Judgement, prior: Prior) -> int | None:
    """Return how many seeds, those at hand included, decide the claim with 80% power if the present mean is the truth.

    None when no spread is known yet, or when more than 200 were needed. A claim that is decided needs no more.
    """
    if judged.p is not None and judged.p < ALPHA:
        return judged.n
    if judged.spread is None or judged.difference is None:
        return None
    counts = np.arange(max(judged.n + 1, 2), MOST_SEEDS + 1)
    enough = np.flatnonzero(_reach(judged, prior, counts) >= _noncentrality(_df(prior, counts), _tail(judged)))
    return int(counts[enough[0]]) if len(enough) else None


def chance(judged: Judgement, prior: Prior, count: int) -> float | None:
    """Return the probability that `count` seeds decide the claim if the present mean is the truth; None if unknown.

    The normal approximation to the power of the t is good enough to rank claims.
    """
    if judged.spread is None or judged.difference is None:
        return None
    from scipy.special import ndtr, stdtrit

    counts = np.array([max(count, 2)])
    critical = stdtrit(_df(prior, counts), 1 - _tail(judged))
    return float(ndtr(_reach(judged, prior, counts) - critical)[0])


def minutes_per_seed(
    ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "", columns: Iterable[str] = ()
) -> dict[str, float]:
    """Return by row how many minutes one seed takes, pre-training and the evaluations of `columns` (default: all).

    It is the mean of the measured wall-clock times; a row that was not measured has no entry.
    """
    stages = {ablation.columns[name].stage for name in columns or ablation.columns} | {"pretrain"}
    here = (frame["ablation"] == ablation.name) & (frame["variant"] == variant) & (frame["scale"] == scale)
    timed = frame[here & frame["metric"].isin([f"{stage}/wall_seconds" for stage in stages])]
    seconds = timed.groupby(["row", "metric"])["value"].mean().groupby("row").sum()
    return {str(row): float(value) / 60 for row, value in seconds.items()}


def _tail(judged: Judgement) -> float:
    return ALPHA / 2 if judged.claim.margin is None else ALPHA


def _df(prior: Prior, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    own = counts.astype(np.float64) - 1.0
    most: NDArray[np.float64] = np.minimum(prior.df + own, np.maximum(prior.pooled, own))
    return most if prior.df else own


def _reach(judged: Judgement, prior: Prior, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far the present mean lies from the border, in standard errors of `counts` seeds."""
    mean, margin = abs(judged.difference or 0.0), judged.claim.margin
    distance = mean if margin is None else abs(margin - mean)
    spread = max(judged.spread or 0.0, 1e-12)
    reach: NDArray[np.float64] = distance * np.sqrt(counts) / spread
    return reach


def _noncentrality(df: NDArray[np.float64], tail: float) -> NDArray[np.float64]:
    """The noncentrality at which a t of `df` passes its one-sided `tail` with 80% power."""
    from scipy.special import nctdtrinc, stdtrit

    found: NDArray[np.float64] = nctdtrinc(df, 1 - POWER, stdtrit(df, 1 - tail))
    return found
