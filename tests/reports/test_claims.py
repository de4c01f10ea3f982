"""Claims: read from text, judged on paired seeds."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from reports.claims import judge, parse_claim
from reports.statistics import cells

CLAIM = "lin[random 75] > lin[block 75]"


def verdict(make_ablation: Any, make_frame: Any, left: list[float], right: list[float], claim: str = CLAIM) -> Any:
    ablation = make_ablation()
    frame = make_frame({("random 75", "linear/top1"): left, ("block 75", "linear/top1"): right})
    return judge(parse_claim(claim, ablation), cells(ablation, frame, "desk"))


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
    first = judge(parse_claim("ft[8] - ft[1] < lin[8] - lin[1]", ablation), measured)
    assert first.difference == pytest.approx(1 - 10.25)
    assert first.verdict == "holds"
    assert first.paper is True
    second = judge(parse_claim("-1.5 + 2*lin[8] > 3 + lin[1]", ablation), measured)
    assert second.difference == pytest.approx(2 * 40.75 - 30.5 - 4.5)
    same = judge(parse_claim("ft[8] - ft[8] > 0", ablation), measured)
    assert (same.difference, same.verdict) == (0.0, "undecided")


@pytest.mark.parametrize("label", ["encoder w/ [M]", "encoder w/o [M]", "a] > b[c", "0.5", "crop + color jit", "x]"])
def test_labels_may_hold_whatever_a_paper_prints(make_ablation: Any, label: str) -> None:
    ablation = make_ablation(rows={label: {"lin": 3.3}, "x": {"lin": 1.0}})
    claim = parse_claim(f"lin[{label}] > 2 + lin[x]", ablation)
    assert claim.weights == {("lin", label): 1.0, ("lin", "x"): -1.0}
    assert claim.constant == -2.0


def test_published_numbers_are_judged_too_and_a_missing_one_leaves_it_open(make_ablation: Any) -> None:
    ablation = make_ablation()
    assert parse_claim("lin[random 75] > lin[block 75]", ablation).paper is True
    assert parse_claim("lin[random 75] < lin[block 75]", ablation).paper is False
    assert parse_claim("lin[random 75] > lin[grid 75]", ablation).paper is None
    assert parse_claim("ft[random 75] - ft[block 75] > 2.1", ablation).paper is False  # 84.9 - 82.8 is 2.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("line[random 75] > 1", "unknown column 'line': did you mean lin"),
        ("lin[random 57] > 1", "unknown row 'random 57': did you mean random 75"),
        ("lin[random 75 > 1", "unknown row"),
        ("lin[random 75]", "'nothing' where > or < is expected"),
        ("lin[random 75] >= 1", "where > or < is expected"),
        ("lin[random 75] > 1 > 0", "the end of the claim"),
        ("lin[random 75] > ", "a cell such as column"),
        ("2 lin[random 75] > 1", "where > or < is expected"),
        ("2 > 1", "names no cell"),
    ],
)
def test_a_claim_that_cannot_be_read_says_what_and_where(make_ablation: Any, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_claim(text, make_ablation())
