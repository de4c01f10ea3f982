"""Looks that share one error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr, stdtr

from reports.verdicts.claims import parse_claim
from reports.verdicts.judge import judge
from reports.verdicts.moderation import Prior
from reports.verdicts.sequential import Looks, bounds, inflation

LOOKS = Looks()


def test_bounds_of_a_normal_mean_spend_the_error_in_proportion_to_the_seeds() -> None:
    values = np.random.default_rng(0).standard_normal((200_000, 10)).cumsum(axis=1)
    p = ndtr(-values[:, 1:] / np.sqrt(np.arange(2, 11)))
    limits = [LOOKS.bound(0.05, 1e9, look) for look in range(9)]
    crossed = np.logical_or.accumulate(p < limits, axis=1).mean(axis=0)
    assert crossed == pytest.approx(0.05 * np.arange(2, 11) / 10, abs=0.0015)


@pytest.mark.parametrize("prior_df", [0, 1, 2, 5, 20])
@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.005])
def test_inflation_keeps_the_looks_of_a_moderated_t_within_the_error(prior_df: int, alpha: float) -> None:
    rng = np.random.default_rng(1)
    sets, number = 60_000, np.arange(1, 11)
    spread = np.sqrt(prior_df / rng.chisquare(prior_df, (sets, 1))) if prior_df else np.ones((sets, 1))
    values = spread * rng.standard_normal((sets, 10))
    mean = values.cumsum(axis=1) / number
    sums = (values**2).cumsum(axis=1) - number * mean**2
    df = prior_df + number[1:] - 1
    error = np.sqrt((prior_df + sums[:, 1:]) / df / number[1:])
    p = stdtr(df, -mean[:, 1:] / error)
    crossed = (p < [LOOKS.bound(alpha, prior_df, look) for look in range(9)]).any(axis=1).mean()
    assert crossed < alpha * 1.05 + 0.0005
    assert crossed > alpha * 0.85 - 0.0005


def test_the_overall_p_crosses_an_error_exactly_where_a_look_crosses_its_bound() -> None:
    for alpha in (0.05, 0.01, 0.0007):
        for look in (0, 4, 8):
            bound = LOOKS.bound(alpha, 3.0, look)
            for nominal, below in ((bound * 0.98, True), (bound * 1.02, False)):
                p = LOOKS.overall(np.array([0.9] * look + [nominal]), np.array(3.0))
                assert (p < alpha) == below


def test_a_look_costs_less_than_it_would_by_itself_and_more_than_nothing() -> None:
    table = bounds(Looks((2, 3, 4, 5)).counts)
    assert (np.diff(table, axis=0) > 0).all()
    assert inflation(np.array([0.0, 1e9])).tolist() == pytest.approx([1.28, 1.0])
    at_five = LOOKS.bound(0.05, 1e9, 3)
    assert 0.005 < at_five < 0.05


@pytest.mark.parametrize("counts", [(), (1, 2), (3, 2), (2, 2)])
def test_looks_that_cannot_be_planned_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="give ascending numbers of at least 2"):
        Looks(counts)


def test_a_verdict_of_an_earlier_look_stands_and_seeds_beyond_the_last_look_are_not_seen(make_ablation: Any) -> None:
    claim = parse_claim("lin[random 75] > lin[block 75]", make_ablation())
    prior = Prior(1.0, 20.0, 40.0, 40.0)
    looks = Looks((2, 3, 4))
    clear = np.array([5.0, 5.1, -9.0, 0.1])
    assert judge(claim, clear, prior).verdict == "undecided"
    assert judge(claim, clear, prior, looks=looks).verdict == "holds"
    faint = np.array([1.2, 1.1, 0.2, 0.1])
    before = judge(claim, faint, prior, looks=looks)
    after = judge(claim, np.append(faint, [90.0, 91.0]), prior, looks=looks)
    assert (before.verdict, after.verdict) == ("undecided", "undecided")
    assert after.p == before.p
    assert (after.ci_low, after.ci_high) == (before.ci_low, before.ci_high)


def test_an_interval_at_a_look_is_wider_than_without_looks(make_ablation: Any) -> None:
    claim = parse_claim("lin[random 75] > lin[block 75]", make_ablation())
    seeds = np.array([1.0, 2.0, 1.5])
    fixed, looked = judge(claim, seeds), judge(claim, seeds, looks=LOOKS)
    assert (looked.ci_high or 0) - (looked.ci_low or 0) > (fixed.ci_high or 0) - (fixed.ci_low or 0)
