"""Which contrasts share a variance: the pairs of rows of all tables that measured the same metrics at one scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.verdicts.moderation import Prior, plain, prior_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.ablation import Ablation
    from reports.verdicts.claims import Contrast

    Floats = NDArray[np.float64]

#: Metrics and their factors, the first being 1: the same noise is behind all contrasts of one family.
Family = tuple[tuple[str, float], ...]


def family(contrast: Contrast, ablation: Ablation) -> tuple[Family, float] | None:
    """Return the family of a contrast and its size in units of that family; None where a column shares no noise.

    A quotient of two rows and a column without chance have no family.
    """
    columns = [ablation.columns[name] for name in contrast.columns]
    metrics = [column.metric for column in columns]
    if len(set(metrics)) < len(metrics) or any(c.relative_to is not None or c.exact is not None for c in columns):
        return None
    ordered = sorted(zip(metrics, contrast.columns.values(), strict=True))
    lead = ordered[0][1]
    # a unit is the variance of one row; a pair of rows has twice that
    return tuple((metric, round(factor / lead, 9)) for metric, factor in ordered), contrast.size * lead**2


class Sharing:
    """The priors of one scale and variant, each fitted to `frame` when a claim first asks for it.

    `frame` holds the measurements of `reports.collect.collect`, of all tables. A cell that several tables show, because
    they name the same training, counts once.
    """

    def __init__(self, frame: pd.DataFrame, scale: str, variant: str = "") -> None:
        chosen = (frame["scale"] == scale) & (frame["variant"] == variant)
        self._frame = frame.loc[chosen]
        self._fitted: dict[Family, Prior] = {}

    def prior(self, asked: Family | None) -> Prior:
        """Return the prior of a family, or the plain one with its reason."""
        if asked is None:
            return plain("not a contrast of rows")
        if asked not in self._fitted:
            self._fitted[asked] = self._fit(asked)
        return self._fitted[asked]

    def _fit(self, asked: Family) -> Prior:
        names: list[tuple[Hashable, Hashable]] = []
        variances: list[Floats] = []
        degrees: list[Floats] = []
        here = self._frame[self._frame["metric"].isin([metric for metric, _ in asked])]
        for _, table in here.groupby("ablation", sort=True):
            values, trainings = _cells(table, asked)
            first, second = np.triu_indices(len(values), k=1)
            gaps = values[first] - values[second]
            count = np.isfinite(gaps).sum(axis=1)
            pairs = [(trainings[a], trainings[b]) for a, b in zip(first, second, strict=True)]
            usable = (count > 1) & np.array([a != b for a, b in pairs], dtype=bool)
            names += [pair for pair, use in zip(pairs, usable, strict=True) if use]
            variances.append(np.nanvar(gaps[usable], axis=1, ddof=1) / 2)
            degrees.append(count[usable] - 1.0)
        if not names:
            return plain("too little to share a variance (no two rows with two seeds)")
        uses = Counter(name for pair in names for name in pair)
        weights = np.array([(1 / uses[a] + 1 / uses[b]) / 2 for a, b in names])
        return prior_of(np.concatenate(variances), np.concatenate(degrees), weights)


def _cells(table: pd.DataFrame, asked: Family) -> tuple[Floats, list[Hashable]]:
    """Return the weighted sum of metrics, (rows, seeds) and nan where one lacks, and what each row trained.

    Rows of one training, which several tables may show, have the same fingerprints.
    """
    factors, ablation = dict(asked), table["ablation"].iloc[0]
    columns = (table[name].to_list() for name in ("row", "seed", "metric", "value", "fingerprint"))
    lines = list(zip(*columns, strict=True))  # plain lists: pivoting each table takes longer than all the fits
    rows = {row: place for place, row in enumerate(sorted({line[0] for line in lines}))}
    seeds = {seed: place for place, seed in enumerate(sorted({line[1] for line in lines}))}
    parts = {metric: np.full((len(rows), len(seeds)), np.nan) for metric in factors}
    marks: dict[str, set[str]] = {row: set() for row in rows}
    for row, seed, metric, value, fingerprint in lines:
        parts[metric][rows[row], seeds[seed]] = value
        marks[row] |= {fingerprint} - {""}
    total: Floats = np.sum([factors[metric] * part for metric, part in parts.items()], axis=0)
    return total, [tuple(sorted(mark)) or (ablation, row) for row, mark in marks.items()]
