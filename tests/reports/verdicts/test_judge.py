"""Verdicts on claims, from the differences of paired seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.claim_entry import ClaimEntry
from reports.verdicts.cells import cells
from reports.verdicts.claims import differences, parse_claim
from reports.verdicts.judge import Judgement, holm, judge, judge_table
from reports.verdicts.moderation import Prior
from reports.verdicts.sharing import Sharing

CLAIM = "lin[random 75] > lin[block 75]"


def verdict(make_ablation: Any, make_frame: Any, left: list[float], right: list[float], claim: str = CLAIM) -> Any:
    ablation = make_ablation()
    frame = make_frame({("random 75", "linear/top1"): left, ("block 75", "linear/top1"): right})
    parsed = parse_claim(claim, ablation)
    return judge(parsed, differences(parsed, cells(ablation, frame, "desk")))


def test_interval_of_a_difference_is_that_of_the_paired_t_test(make_ablation: Any, make_frame: Any) -> None:
    left, right = [35.0, 36.5, 34.0], [32.0, 32.5, 31.75]
    found = verdict(make_ablation, make_frame, left, right)
    expected = stats.ttest_rel(left, right).confidence_interval(0.95)
    assert (found.ci_low, found.ci_high) == pytest.approx((expected.low, expected.high))
    assert found.difference == pytest.approx(2.0 + 13 / 12)
    assert (found.n, found.verdict) == (3, "holds")


def test_pairing_decides_where_the_spread_between_seeds_would_not(make_ablation: Any, make_frame: Any) -> None:
    left, right = [20.0, 40.0, 60.0], [19.0, 39.1, 58.9]
    assert stats.ttest_ind(left, right).pvalue > 0.9
    assert verdict(make_ablation, make_frame, left, right).verdict == "holds"


def test_seeds_without_a_partner_do_not_count(make_ablation: Any, make_frame: Any) -> None:
    found = verdict(make_ablation, make_frame, [35.0, 36.0, 99.0], [32.0, 32.9])
    assert found.n == 2
    assert found.difference == pytest.approx(3.05)


@pytest.mark.parametrize(
    ("left", "right", "operator", "expected"),
    [
        ([5.0, 5.1], [1.0, 1.0], ">", "holds"),
        ([5.0, 5.1], [1.0, 1.0], "<", "contradicted"),
        ([1.0, 1.0], [5.0, 5.1], ">", "contradicted"),
        ([1.0, 1.0], [5.0, 5.1], "<", "holds"),
        ([5.0, 1.0], [1.0, 5.0], ">", "undecided"),
        ([5.0, 5.0], [5.0, 5.0], ">", "undecided"),
        ([5.0], [1.0], ">", "undecided"),
        ([5.0], [], ">", "not run"),
        ([], [], "<", "not run"),
    ],
)
def test_verdict_follows_the_side_of_zero_that_the_interval_is_on(
    make_ablation: Any, make_frame: Any, left: list[float], right: list[float], operator: str, expected: str
) -> None:
    claim = f"lin[random 75] {operator} lin[block 75]"
    assert verdict(make_ablation, make_frame, left, right, claim).verdict == expected


def test_one_seed_reports_the_signed_difference_without_an_interval(make_ablation: Any, make_frame: Any) -> None:
    found = verdict(make_ablation, make_frame, [30.0], [32.0])
    assert (found.difference, found.ci_low, found.n) == (-2.0, None, 1)


@pytest.mark.parametrize(
    ("left", "right", "operator", "leans"),
    [
        ([3.0], [1.0], ">", True),
        ([3.0], [1.0], "<", False),
        ([1.0, 4.0], [2.0, 2.0], ">", True),
        ([2.0], [2.0], ">", None),
        ([], [1.0], ">", None),
    ],
)
def test_an_undecided_claim_still_says_which_way_its_difference_points(
    make_ablation: Any, make_frame: Any, left: list[float], right: list[float], operator: str, leans: bool | None
) -> None:
    claim = f"lin[random 75] {operator} lin[block 75]"
    assert verdict(make_ablation, make_frame, left, right, claim).leans is leans


def test_linear_expressions_with_numbers_and_factors(make_ablation: Any, make_frame: Any) -> None:
    ablation = make_ablation(rows={"8": {"ft": 84.9, "lin": 73.5}, "1": {"ft": 84.8, "lin": 65.5}})
    frame = make_frame(
        {
            ("8", "finetune/top1"): [50.0, 51.0],
            ("1", "finetune/top1"): [49.0, 50.0],
            ("8", "linear/top1"): [40.0, 41.5],
            ("1", "linear/top1"): [30.0, 31.0],
        }
    )
    measured = cells(ablation, frame, "desk")

    def of(text: str) -> Judgement:
        claim = parse_claim(text, ablation)
        return judge(claim, differences(claim, measured))

    first = of("ft[8] - ft[1] < lin[8] - lin[1]")
    assert first.difference == pytest.approx(1 - 10.25)
    assert first.verdict == "holds"
    assert first.claim.paper is True
    second = of("-1.5 + 2*lin[8] > 3 + lin[1]")
    assert second.difference == pytest.approx(2 * 40.75 - 30.5 - 4.5)
    same = of("ft[8] - ft[8] > 0")
    assert (same.difference, same.verdict) == (0.0, "undecided")


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        ([30.1, 30.0, 30.2], "holds"),
        ([33.0, 33.1, 33.2], "contradicted"),
        ([27.0, 27.1, 27.2], "contradicted"),
        ([31.1, 30.9, 31.0], "undecided"),  # at the border
        ([25.0, 35.0, 30.0], "undecided"),
        ([30.0], "undecided"),
        ([], "not run"),
    ],
)
def test_an_equivalence_takes_two_one_sided_tests(
    make_ablation: Any, make_frame: Any, left: list[float], expected: str
) -> None:
    found = verdict(make_ablation, make_frame, left, [30.0, 30.0, 30.0], "|lin[random 75] - lin[block 75]| < 1")
    assert found.verdict == expected


def test_interval_and_p_of_an_equivalence_are_those_of_two_tests_at_five_per_cent(
    make_ablation: Any, make_frame: Any
) -> None:
    left, right = [30.4, 30.0, 30.6, 29.9], [30.0, 30.1, 29.8, 30.2]
    found = verdict(make_ablation, make_frame, left, right, "|lin[random 75] - lin[block 75]| < 1")
    pair = stats.ttest_rel(left, right).confidence_interval(0.90)
    assert (found.level, found.ci_low, found.ci_high) == pytest.approx((0.9, pair.low, pair.high))
    gap = np.subtract(left, right)
    upper = stats.ttest_1samp(gap, 1, alternative="less").pvalue
    lower = stats.ttest_1samp(gap, -1, alternative="greater").pvalue
    assert found.p == pytest.approx(max(upper, lower))


def test_a_shared_variance_narrows_the_interval_and_adds_its_degrees_of_freedom(make_ablation: Any) -> None:
    claim = parse_claim(CLAIM, make_ablation())
    seeds = np.array([1.0, 2.5])
    alone, shared = judge(claim, seeds), judge(claim, seeds, Prior(1.0, 10.0, 20.0, 20.0))
    assert (alone.verdict, shared.verdict) == ("undecided", "holds")
    assert (alone.df, shared.df) == (1.0, 11.0)
    assert shared.spread == pytest.approx(((10 * 1.0 + 1.125) / 11) ** 0.5)
    half = stats.t.ppf(0.975, 11) * (shared.spread or 0) / 2**0.5
    assert (shared.ci_low, shared.ci_high) == pytest.approx((1.75 - half, 1.75 + half))


def test_columns_without_chance_are_decided_by_one_seed(make_ablation: Any, make_frame: Any) -> None:
    columns = {"flops": {"metric": "pretrain/gflops", "exact": 0.02}}
    ablation = make_ablation(
        columns=columns, rows={"a": {}, "b": {}}, claims=("flops[a] > flops[b]", "flops[b] > flops[a]")
    )
    frame = make_frame({("a", "pretrain/gflops"): [3.0], ("b", "pretrain/gflops"): [1.0]})
    found = judge_table(ablation, cells(ablation, frame, "desk"))
    assert [one.verdict for one in found] == [one.corrected for one in found] == ["holds", "contradicted"]


def test_holm_lets_verdicts_stand_in_the_order_of_their_p(make_ablation: Any) -> None:
    blank = judge(parse_claim(CLAIM, make_ablation()), np.array([1.0, 1.1]))
    judged = [replace(blank, p=p, verdict="holds") for p in (0.02, 0.001, None, 0.04, 0.012)]
    assert [one.corrected for one in holm(judged)] == ["holds", "holds", "holds", "holds", "holds"]
    judged = [replace(blank, p=p, verdict="holds") for p in (0.026, 0.001, None, 0.03, 0.012)]
    corrected = [one.corrected for one in holm(judged)]
    assert corrected == ["undecided", "holds", blank.corrected, "undecided", "holds"]


def test_the_tables_of_a_scale_share_a_variance_and_the_claim_says_so(make_ablation: Any, make_frame: Any) -> None:
    rng = np.random.default_rng(0)
    rows = {f"row {i}": {} for i in range(26)}
    claims = (
        "lin[row 0] > lin[row 1]",
        ClaimEntry("lin[row 0] > 10", ours=True, why="to see"),
    )
    ablation = make_ablation(rows=rows, claims=claims)
    frame = make_frame({(row, "linear/top1"): list(30 + rng.normal(size=2)) for row in rows})
    measured = cells(ablation, frame, "desk")
    shared, other = judge_table(ablation, measured, Sharing(frame, "desk"))
    assert shared.test == "moderated t"
    assert shared.df > 1
    assert other.test == "plain t: not a contrast of rows"
    assert [shared.ours, other.ours] == [False, True]
    few = frame[frame["row"].isin(["row 0", "row 1", "row 2"])]
    first, _ = judge_table(ablation, cells(ablation, few, "desk"), Sharing(few, "desk"))
    assert first.test == "plain t: too little to share a variance (1.5 contrasts, 1.5 degrees of freedom)"
