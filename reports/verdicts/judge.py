"""Verdicts on the claims of a table: a moderated paired t on the seeds, and Holm's correction within the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.verdicts.cells import LEVEL
from reports.verdicts.claims import Claim, contrast, differences, parse_claim
from reports.verdicts.moderation import Prior, moderate, plain
from reports.verdicts.sharing import Sharing, family

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.ablation import Ablation
    from reports.verdicts.sequential import Looks

#: Rate of false verdicts on a claim that is not true, by each of its two one-sided tests of equivalence or by both
#: sides of an ordering together.
ALPHA = 1 - LEVEL
HOLDS, CONTRADICTED, UNDECIDED, NOT_RUN = "holds", "contradicted", "undecided", "not run"
VERDICTS = (HOLDS, CONTRADICTED, UNDECIDED, NOT_RUN)


@dataclass(frozen=True)
class Judgement:
    """Verdict on a claim by itself (`verdict`) and after Holm's correction within its table (`corrected`).

    `difference` is left minus right, the mean over the n seeds that measured every cell, with its interval at `level`:
    95% for an ordering, and 90% for an equivalence, which is two one-sided tests at 5%. `spread` is the standard
    deviation of one seed's difference after sharing, with `df` degrees of freedom. `test` says how the spread was
    found. `p` is the least level at which the claim has a verdict. `leans` says whether the mean satisfies the claim,
    whatever its interval, and is None where it is zero.
    """

    claim: Claim
    ours: bool
    verdict: str
    corrected: str
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    level: float
    n: int
    leans: bool | None
    p: float | None
    spread: float | None
    df: float
    test: str


def judge_table(
    ablation: Ablation, measured: pd.DataFrame, sharing: Sharing | None = None, looks: Looks | None = None
) -> list[Judgement]:
    """Judge every claim of `ablation` on `measured`, the frame of `reports.verdicts.cells.cells`, in their order.

    Without `sharing` each claim has the plain paired t. With `looks` the seeds were added one at a time until something
    was decided, and the verdicts are paid for accordingly.
    """
    found = []
    for entry in ablation.claims:
        claim = parse_claim(entry.that, ablation)
        exact = all(ablation.columns[column].exact is not None for column, _ in claim.weights)
        prior = plain("") if sharing is None else prior_of_claim(claim, ablation, sharing)
        found.append(replace(judge(claim, differences(claim, measured), prior, exact, looks), ours=entry.ours))
    return holm(found)


def judge(
    claim: Claim,
    seeds: NDArray[np.float64],
    prior: Prior | None = None,
    exact: bool = False,
    looks: Looks | None = None,
) -> Judgement:
    """Judge one claim on its difference of each seed, in their order; `prior` is per unit of one seed's difference.

    It holds when the whole interval is on the claimed side, and is contradicted when the whole interval is on the other
    side. One seed has a difference but no interval, and stays undecided, unless the columns are `exact`.
    """
    prior = prior or plain("")
    level = LEVEL if claim.margin is None else 2 * LEVEL - 1
    n = len(seeds)
    mean = float(seeds.mean()) if n else None
    leans = claim.satisfied(mean) if mean or (mean is not None and claim.margin is not None) else None
    blank = Judgement(claim, False, UNDECIDED, UNDECIDED, mean, None, None, level, n, leans, None, None, 0.0, "")
    if mean is None:
        return replace(blank, verdict=NOT_RUN, corrected=NOT_RUN)
    if exact:
        verdict = HOLDS if claim.satisfied(mean) else CONTRADICTED
        return replace(blank, verdict=verdict, corrected=verdict, p=0.0, test="no chance in it")
    if n == 1:
        return replace(blank, spread=prior.variance**0.5 if prior.df else None, df=prior.df)
    spread, df = shared_spread(seeds[None], prior)
    test = "moderated t" if prior.df else f"plain t: {prior.reason}" if prior.reason else "plain t"
    found = replace(blank, spread=float(spread[0]), df=float(df[0]), test=test)
    return _tested(found, seeds, prior, looks)


def shared_spread(seeds: NDArray[np.float64], prior: Prior) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the spread of one seed's difference, and its degrees of freedom, for `seeds` (B, n), each (B,)."""
    degrees = np.full(len(seeds), float(seeds.shape[1] - 1))
    known = np.full(len(seeds), prior.variance), np.full(len(seeds), prior.df)
    variances, df = moderate(seeds.var(axis=1, ddof=1), degrees, *known, prior.pooled)
    return np.sqrt(variances), df


def one_sided(
    claim_margin: float | None, mean: NDArray[np.float64], error: NDArray[np.float64], df: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the one-sided p of `claim > 0` (or within the margin), and that of its opposite, elementwise.

    An error of zero, of seeds that agree exactly, gives p = 0 on the side of the mean, and 1 where the mean is at the
    border.
    """
    from scipy.special import stdtr

    def below(border: float) -> NDArray[np.float64]:
        """p of the mean lying above `border` by chance."""
        distance = mean - border
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(error > 0, distance / error, np.where(distance == 0, 0.0, np.sign(distance) * np.inf))
        p: NDArray[np.float64] = stdtr(df, -t)
        return p

    if claim_margin is None:
        up = below(0.0)
        return up, 1 - up
    over, under = below(claim_margin), below(-claim_margin)
    return np.maximum(under, 1 - over), np.minimum(over, 1 - under)


def _tested(found: Judgement, seeds: NDArray[np.float64], prior: Prior, looks: Looks | None) -> Judgement:
    """Return `found` with p, verdict and interval, by one test at the last seed or by all looks up to it."""
    from scipy.special import stdtrit

    claim, sides = found.claim, 2 if found.claim.margin is None else 1
    counts = [found.n] if looks is None else [k for k in looks.counts if k <= found.n]
    if not counts:
        return found
    steps = [(seeds[:k], *shared_spread(seeds[None, :k], prior)) for k in counts]
    mean = np.array([part.mean() for part, _, _ in steps])
    error = np.array([spread[0] / len(part) ** 0.5 for part, spread, _ in steps])
    df = np.array([df[0] for _, _, df in steps])
    yes, no = one_sided(claim.margin, mean, error, df)
    if claim.margin is None and claim.operator == "<":
        yes, no = no, yes
    if looks is None:
        p_yes, p_no, tail = float(yes[0]), float(no[0]), ALPHA / sides
    else:
        p_yes, p_no = (float(looks.overall(side, np.asarray(prior.df))) for side in (yes, no))
        tail = looks.bound(ALPHA / sides, prior.df, len(counts) - 1)
    p = min(1.0, sides * min(p_yes, p_no))
    half = float(stdtrit(df[-1], 1 - tail)) * float(error[-1])
    test = found.test if looks is None else f"{found.test}, looks after {looks.counts[0]} to {looks.counts[-1]} seeds"
    verdict = UNDECIDED if p >= ALPHA else HOLDS if p_yes < p_no else CONTRADICTED
    centre = float(mean[-1])
    decided = replace(found, verdict=verdict, corrected=verdict, p=p, test=test)
    return replace(decided, ci_low=centre - half, ci_high=centre + half)


def holm(judged: Sequence[Judgement]) -> list[Judgement]:
    """Return the judgements with `corrected`: a verdict stands while its p, in order, passes alpha / (claims left).

    The claims of a table that have a p are one family, the paper's and ours together.
    """
    order = sorted((i for i, one in enumerate(judged) if one.p is not None), key=lambda i: judged[i].p or 0.0)
    found = list(judged)
    stands = True
    for place, index in enumerate(order):
        one = judged[index]
        stands = stands and (one.p or 0.0) * (len(order) - place) < ALPHA
        found[index] = replace(one, corrected=one.verdict if stands else UNDECIDED)
    return found


def prior_of_claim(claim: Claim, ablation: Ablation, sharing: Sharing) -> Prior:
    """Return the prior of a claim's own difference of one seed."""
    shape = contrast(claim)
    known = None if shape is None else family(shape, ablation)
    if known is None:
        return sharing.prior(None)
    prior = sharing.prior(known[0])
    return replace(prior, variance=prior.variance * known[1])
