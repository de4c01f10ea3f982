"""The prior of variances, and the variances that it moderates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.verdicts.claims import contrast, parse_claim
from reports.verdicts.moderation import fit, moderate, prior_of
from reports.verdicts.sharing import Sharing, family


def drawn(prior_df: float, degrees: int, sets: int, contrasts: int) -> Any:
    """Variances whose truths are scaled inverse chi-squared around 4."""
    rng = np.random.default_rng(0)
    truth = 4 * prior_df / rng.chisquare(prior_df, (sets, contrasts))
    return truth * rng.chisquare(degrees, (sets, contrasts)) / degrees


@pytest.mark.parametrize("degrees", [1, 2, 4])
def test_the_prior_behind_many_variances_is_found(degrees: int) -> None:
    variance, df = fit(drawn(4.0, degrees, 40, 400), np.full(400, float(degrees)), np.ones(400))
    assert np.median(variance) == pytest.approx(4.0, rel=0.15)
    assert np.median(df) == pytest.approx(4.0, rel=0.25)


def test_equal_variances_are_worth_the_more_the_more_there_are() -> None:
    found = [
        np.median(fit(4 * np.random.default_rng(0).chisquare(2, (60, n)) / 2, np.full(n, 2.0), np.ones(n))[1])
        for n in (6, 30, 150)
    ]
    assert found[0] < found[1] < found[2]
    assert found[0] < 4


def test_too_little_and_too_unequal_are_said() -> None:
    few = prior_of(np.array([1.0, 2.0]), np.ones(2), np.ones(2))
    assert (few.df, few.reason) == (0.0, "too little to share a variance (2.0 contrasts, 2.0 degrees of freedom)")
    wild = np.exp(np.random.default_rng(0).normal(0, 4, 60))
    found = prior_of(wild, np.full(60, 4.0), np.ones(60))
    assert (found.df, found.reason) == (0.0, "spreads too unequal to be shared")


def test_an_outlying_variance_is_shrunk_less_than_a_common_one() -> None:
    variances, one = np.array([0.5, 1.0, 30.0]), np.ones(3)
    shrunk, df = moderate(variances, 2 * one, one, 8 * one, 1e9)
    assert shrunk[:2] == pytest.approx([(8 + 2 * 0.5) / 10, 1.0])
    assert shrunk[2] > 25
    assert df[0] == 10
    assert df[2] < 3


def test_without_a_prior_the_variance_is_its_own() -> None:
    shrunk, df = moderate(np.array([0.0, 3.0]), np.full(2, 2.0), np.zeros(2), np.zeros(2), 0.0)
    assert (shrunk.tolist(), df.tolist()) == ([0.0, 3.0], [2.0, 2.0])


def test_claims_of_every_size_share_one_variance_per_squared_weight(make_ablation: Any, make_frame: Any) -> None:
    rng = np.random.default_rng(0)
    rows = {f"r{i}": {} for i in range(80)}
    ablation = make_ablation(rows=rows)
    noise = {(row, f"{stage}/top1"): list(rng.normal(0, 2, 3)) for row in rows for stage in ("linear", "finetune")}
    sharing = Sharing(make_frame(noise), "desk")
    for text, variance in (
        ("lin[r0] > lin[r1]", 8.0),
        ("lin[r0] - lin[r1] > lin[r1] - lin[r2]", 24.0),
        ("lin[r0] - lin[r1] > ft[r0] - ft[r1]", 16.0),
        ("2*ft[r0] - 2*ft[r1] > lin[r0] - lin[r1]", 40.0),
    ):
        shape = contrast(parse_claim(text, ablation))
        assert shape is not None
        found = family(shape, ablation)
        assert found is not None
        assert sharing.prior(found[0]).variance * found[1] == pytest.approx(variance, rel=0.2)


def test_a_training_that_several_tables_show_counts_once(make_ablation: Any, make_frame: Any) -> None:
    rng = np.random.default_rng(0)
    values = {(f"r{i}", "linear/top1"): list(rng.normal(size=3)) for i in range(16)}
    once = make_frame(values)
    again = once.assign(ablation="decoder_depth")  # the same fingerprints
    anew = again.assign(fingerprint=again["fingerprint"] + "x")
    units = [
        Sharing(pd.concat(parts), "desk").prior((("linear/top1", 1.0),)).units
        for parts in ([once], [once, again], [once, anew])
    ]
    assert units == pytest.approx([8.0, 8.0, 16.0])
