"""Published and measured values brought to one axis: themselves, differences or ratios to the default row, or ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from experiments.ablation import Ablation

PAPER = "paper"


@dataclass(frozen=True)
class Comparable:
    """One column: `measured` has the columns row and value, a line for each seed; `published` is by row.

    `axis` says in words what both are, and `zero` where the default row stands, None where it has no place of its own.
    """

    measured: pd.DataFrame
    published: Mapping[str, float]
    axis: str
    zero: float | None


def comparable(ablation: Ablation, measured: pd.DataFrame, name: str, scale: str) -> Comparable:
    """Return the column `name` on an axis on which both numbers mean the same; `measured` is one of `verdicts.cells`.

    At the paper's scale, and for quotients, these are the values. Elsewhere percentages are differences to the default
    row and other units ratios to it, paired by seed; a seed without the default row is left out. Without a default row
    they are ranks of the means, from 1 for the least.
    """
    column = ablation.columns[name]
    here = measured.loc[measured["metric"] == name, ["row", "seed", "value"]]
    published = {row: value for row, found in ablation.rows.items() if (value := found.paper.get(name)) is not None}
    words = f"{column.label} ({column.unit})"
    if scale == PAPER or column.unit == "x":
        return Comparable(here, published, words, None)
    default = ablation.default
    if default is None:
        means = here.groupby("row")["value"].mean().rank()
        ranks = pd.Series(published, dtype="float64").rank().to_dict()
        placed = pd.DataFrame({"row": means.index, "value": means.to_numpy()})
        return Comparable(placed, {str(row): value for row, value in ranks.items()}, f"{column.label}, rank", None)
    reference = here["seed"].map(here[here["row"] == default].set_index("seed")["value"])
    base = published.get(default)
    if column.unit == "%":
        paired = here.assign(value=here["value"] - reference)
        known = {} if base is None else {row: value - base for row, value in published.items()}
        axis, zero = f"{column.label}, difference to {default} (points)", 0.0
    else:
        paired = here.assign(value=here["value"] / reference)
        known = {} if not base else {row: value / base for row, value in published.items()}
        axis, zero = f"{column.label}, ratio to {default}", 1.0
    return Comparable(paired.dropna(subset=["value"]), known, axis, zero)
