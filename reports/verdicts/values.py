"""The verdict on one published value, which only the scale `paper` can give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.verdicts.cells import Summary

if TYPE_CHECKING:
    from experiments.ablation import Column

#: The papers print one decimal, so a published value stands for everything that rounds to it.
ROUNDING = 0.05
_EPSILON = 1e-9


def value_verdict(scale: str, published: float | None, measured: Summary, column: Column) -> str:
    """Return the verdict on one value; only the scale `paper` is ever compared with what was published.

    It is a test of equivalence: `reproduced` means that the interval over seeds lies within the column's tolerance of
    the published value, `differs` that it lies outside, `undecided` that it does neither. A column that is `exact` is
    compared by its relative tolerance and the rounding of the print, and one seed suffices.
    """
    if measured.mean is None:
        return "not run"
    if scale != "paper":
        return "trend only"
    if published is None:
        return "no published value"
    if column.exact is not None:
        off = abs(measured.mean - published) - column.exact * abs(published) - ROUNDING
        return "reproduced" if off <= _EPSILON else "differs"
    if column.tolerance is None:
        return "no tolerance"
    if measured.ci_low is None or measured.ci_high is None:
        return "undecided"
    low, high = published - column.tolerance - _EPSILON, published + column.tolerance + _EPSILON
    if low <= measured.ci_low and measured.ci_high <= high:
        return "reproduced"
    return "differs" if measured.ci_high < low or measured.ci_low > high else "undecided"
