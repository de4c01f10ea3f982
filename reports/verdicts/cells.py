"""The cells of a table: all seeds of each, with mean, spread, interval, and what could not be read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reports.collect import tidy

if TYPE_CHECKING:
    from experiments.ablation import Ablation

#: Confidence of every interval.
LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """Mean, sample standard deviation (n - 1), two-sided 95% t-interval of n values; None where undefined."""

    mean: float | None
    std: float | None
    n: int
    ci_low: float | None
    ci_high: float | None


def summarise(values: Iterable[float]) -> Summary:
    """Summarise the seeds of one cell; below two values there is neither a spread nor an interval."""
    sample = np.asarray(list(values), dtype=float)
    n = len(sample)
    if n == 0:
        return Summary(None, None, 0, None, None)
    mean = float(sample.mean())
    if n == 1:
        return Summary(mean, None, 1, None, None)
    # scipy.stats.t.ppf is this function, behind an import that takes longer than printing a table.
    from scipy.special import stdtrit

    std = float(sample.std(ddof=1))
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * std / n**0.5
    return Summary(mean, std, n, mean - half, mean + half)


def cells(ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "") -> pd.DataFrame:
    """Return the measured cells of a table, one line per seed: columns `row, metric, seed, value`.

    `metric` is the ablation's name of the column. A column relative to a row is the quotient of the two
    values of the same seed; a seed without the reference row has no value there.
    """
    chosen = frame[(frame["ablation"] == ablation.name) & (frame["variant"] == variant) & (frame["scale"] == scale)]
    parts = [tidy()[["row", "metric", "seed", "value"]]]
    for name, column in ablation.columns.items():
        part = chosen.loc[chosen["metric"] == column.metric, ["row", "metric", "seed", "value"]].assign(metric=name)
        if column.relative_to is not None:
            reference = part["seed"].map(part[part["row"] == column.relative_to].set_index("seed")["value"])
            divisor, dividend = (part["value"], reference) if column.invert else (reference, part["value"])
            if (divisor == 0).any():
                raise ValueError(
                    f"{column.metric} of ablation {ablation.name} is 0 at scale {scale}, so column {name!r} "
                    f"cannot be taken relative to row {column.relative_to!r}; run that row again."
                )
            part = part.assign(value=dividend / divisor).dropna(subset=["value"])
        parts.append(part[part["row"].isin(list(ablation.rows))])
    measured: pd.DataFrame = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    return measured


def unreadable(ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "") -> dict[tuple[str, str], int]:
    """Return, by row and column, the most items that a seed's training or test could not read; none where all was."""
    chosen = frame[(frame["ablation"] == ablation.name) & (frame["variant"] == variant) & (frame["scale"] == scale)]
    found: dict[tuple[str, str], int] = {}
    for name, column in ablation.columns.items():
        part = chosen[chosen["metric"] == f"{column.stage}/unreadable"]
        found |= {(str(row), name): int(most) for row, most in part.groupby("row")["value"].max().items()}
    return found


def collapsed(ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "") -> dict[str, int]:
    """Return, by row, how many seeds had a pre-training that gave all samples the same features; none where none."""
    chosen = frame[(frame["ablation"] == ablation.name) & (frame["variant"] == variant) & (frame["scale"] == scale)]
    part = chosen[chosen["metric"] == "pretrain/collapsed"]
    return {str(row): int(count) for row, count in part.groupby("row")["seed"].nunique().items()}
