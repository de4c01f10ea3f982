"""Whole tables drawn from worlds in which the truth is known, and the verdicts on them, many sets of tables at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from reports.verdicts.judge import ALPHA, one_sided
from reports.verdicts.moderation import LEAST_POOLED, LEAST_UNITS, fit, moderate
from reports.verdicts.sequential import Looks

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.intp]

#: Standard deviations by which the outlying seed of a table is off, either way.
OUTLIER = 8.0


@dataclass(frozen=True)
class World:
    """How measurements scatter: rows have log-normal spreads around 1 (`unequal` is their sigma), seeds have `errors`.

    `errors` are normal, heavy (a t with three degrees of freedom, scaled to the same variance), or outlier (normal, and
    one seed of one row of each table is off by eight standard deviations).
    """

    name: str
    unequal: float = 0.4
    errors: str = "normal"

    def draw(self, layout: Layout, seeds: int, sets: int, generator: Generator, shift: float = 0.0) -> Floats:
        """Return measurements (sets, cells, seeds); the default row of each table is better by `shift`.

        All rows of a table share an effect of the seed, which pairing removes.
        """
        cells = len(layout.table)
        if self.errors == "heavy":
            noise = generator.standard_t(3, (sets, cells, seeds)) / 3**0.5
        else:
            noise = generator.standard_normal((sets, cells, seeds))
        if self.errors == "outlier":
            for start, size in zip(layout.defaults, layout.sizes, strict=True):
                row = start + generator.integers(size, size=sets)
                sign = generator.choice([-OUTLIER, OUTLIER], size=sets)
                noise[np.arange(sets), row, generator.integers(seeds, size=sets)] += sign
        spreads = np.exp(self.unequal * generator.standard_normal((sets, cells, 1)))
        shared = generator.standard_normal((sets, len(layout.sizes), seeds))[:, layout.table]
        values: Floats = shared + spreads * noise
        values[:, layout.defaults] += shift
        return values


class Layout:
    """Tables of given numbers of rows: all pairs of their rows, and their claims, default row against each other row.

    With `twins` a table has one claim only, its default row against its last.
    """

    def __init__(self, sizes: tuple[int, ...], twins: bool = False) -> None:
        self.sizes = sizes
        self.table: Places = np.repeat(np.arange(len(sizes)), sizes)
        self.defaults: Places = np.cumsum((0, *sizes[:-1]))
        places = [
            (start + a, start + b, a, b, size)
            for start, size in zip(self.defaults, sizes, strict=True)
            for a, b in combinations(range(size), 2)
        ]
        self.first: Places = np.array([place[0] for place in places])
        self.second: Places = np.array([place[1] for place in places])
        self.weights: Floats = np.array([1 / (place[4] - 1) for place in places])
        self.claims: Places = np.flatnonzero([a == 0 and (not twins or b == size - 1) for *_, a, b, size in places])
        self.family: Places = self.table[self.first[self.claims]]


@dataclass(frozen=True)
class Verdicts:
    """What was decided, each (sets, claims): `p` and the side, and whether it stands after Holm's correction."""

    p: Floats
    holds: NDArray[np.bool_]
    stands: NDArray[np.bool_]

    def rate(self, holds: bool) -> float:
        """Share of claims that hold, or that are contradicted, each judged by itself."""
        return float(((self.p < ALPHA) & (self.holds == holds)).mean())

    def any_in_table(self, layout: Layout) -> float:
        """Share of tables in which a verdict stands after the correction."""
        tables = [self.stands[:, layout.family == table].any(axis=1) for table in np.unique(layout.family)]
        return float(np.mean(tables))


def share(values: Floats, layout: Layout, seeds: NDArray[np.int64] | int, shared: bool = True) -> tuple[Floats, Floats]:
    """Return the variance and the degrees of freedom of the prior, each (sets, 1), at the `seeds` of each pair."""
    counts = np.broadcast_to(np.asarray(seeds), (len(values), len(layout.first)))
    pooled = (layout.weights * (counts - 1)).sum(axis=1, keepdims=True)
    enough = (pooled >= LEAST_POOLED) & (layout.weights.sum() >= LEAST_UNITS) & shared
    if not enough.any():
        return np.zeros(pooled.shape), np.zeros(pooled.shape)
    variances = _running_variance(values[:, layout.first] - values[:, layout.second])
    now = np.take_along_axis(variances, counts[..., None] - 1, axis=2)[..., 0] / 2
    variance, df = fit(now, counts - 1.0, layout.weights)
    return variance[:, None], np.where(enough, df[:, None], 0.0)


def judge_fixed(values: Floats, layout: Layout, margin: float | None = None, shared: bool = True) -> Verdicts:
    """Judge all claims with all seeds of `values`, by the moderated t or, not `shared`, by the plain one."""
    variance, df = share(values, layout, values.shape[2], shared)
    yes, no = _sides(values, layout, variance, df, margin)
    return _verdicts(yes[..., -1], no[..., -1], layout, margin)


def ever_decided(values: Floats, layout: Layout, looks: Looks, shared: bool = True) -> float:
    """Return the share of claims with a verdict at one of the looks at least, were each look tested as if alone."""
    variance, df = share(values, layout, values.shape[2], shared)
    yes, no = _sides(values, layout, variance, df, None)
    p = 2 * np.minimum(yes, no)[..., np.array(looks.counts) - 1]
    return float((p < ALPHA).any(axis=-1).mean())


def judge_sequential(
    values: Floats, layout: Layout, looks: Looks, margin: float | None = None
) -> tuple[Verdicts, NDArray[np.int64]]:
    """Add seeds to the rows of claims that do not yet stand; return the verdicts and the seeds of each row.

    At each look all claims are judged anew with the prior of that look, as a report would judge them.
    """
    first, second = layout.first[layout.claims], layout.second[layout.claims]
    sets, cells, _ = values.shape
    counts = np.full((sets, len(first)), looks.counts[0])
    chosen = np.array(looks.counts) - 1
    while True:
        rows = np.full((sets, cells), looks.counts[0])
        for side in (first, second):
            for claim, row in enumerate(side):
                rows[:, row] = np.maximum(rows[:, row], counts[:, claim])
        seeds = np.minimum(rows[:, layout.first], rows[:, layout.second])
        variance, df = share(values, layout, seeds)
        yes, no = _sides(values, layout, variance, df, margin)
        seen = chosen < counts[..., None]
        yes, no = (looks.overall(np.where(seen, side[..., chosen], 1.0), df) for side in (yes, no))
        verdicts = _verdicts(yes, no, layout, margin)
        more = ~verdicts.stands & (counts < looks.counts[-1])
        if not more.any():
            return verdicts, rows
        following = np.array([min([k for k in looks.counts if k > n], default=n) for n in range(looks.counts[-1] + 1)])
        counts = np.where(more, following[counts], counts)


def _sides(values: Floats, layout: Layout, variance: Floats, df: Floats, margin: float | None) -> tuple[Floats, Floats]:
    """One-sided p of each claim and of its opposite after each number of seeds, (sets, claims, seeds); n = 1 says 1."""
    claims = layout.claims
    differences = values[:, layout.first[claims]] - values[:, layout.second[claims]]
    number = np.arange(1, values.shape[2] + 1)
    mean = differences.cumsum(axis=2) / number
    own = np.maximum(_running_variance(differences), 0.0)
    degrees = np.broadcast_to(number - 1.0, own.shape)
    pooled = float((layout.weights * (values.shape[2] - 1)).sum())
    moderated, total = moderate(own, degrees, 2 * variance[..., None], df[..., None], pooled)
    yes, no = one_sided(margin, mean, np.sqrt(moderated / number), np.maximum(total, 1e-3))
    yes[..., 0] = no[..., 0] = 1.0
    return yes, no


def _verdicts(yes: Floats, no: Floats, layout: Layout, margin: float | None) -> Verdicts:
    p = np.minimum(1.0, (2 if margin is None else 1) * np.minimum(yes, no))
    stands = np.zeros(p.shape, dtype=bool)
    for table in np.unique(layout.family):
        here = np.flatnonzero(layout.family == table)
        order = np.argsort(p[:, here], axis=1)
        ranked = np.take_along_axis(p[:, here], order, axis=1)
        passed = np.logical_and.accumulate(ranked * (len(here) - np.arange(len(here))) < ALPHA, axis=1)
        inner = np.zeros(passed.shape, dtype=bool)
        np.put_along_axis(inner, order, passed, axis=1)
        stands[:, here] = inner
    return Verdicts(p, yes < no, stands)


def _running_variance(values: Floats) -> Floats:
    """Variance of the first 1, 2, ... values along the last axis; 0 for one."""
    number = np.arange(1, values.shape[-1] + 1)
    mean = values.cumsum(axis=-1) / number
    squares = (values**2).cumsum(axis=-1) - number * mean**2
    variance: Floats = np.maximum(squares, 0.0) / np.maximum(number - 1, 1)
    return variance
