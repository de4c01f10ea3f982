"""Claims, read from text."""

from __future__ import annotations

from typing import Any

import pytest

from reports.verdicts.claims import contrast, parse_claim


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
        ("|lin[random 75]| > 1", "where < and a number after"),
        ("|lin[random 75] < 1", r"where \\| after the expression is expected"),
        ("|lin[random 75]| < lin[block 75]", "a number that bounds the absolute value"),
        ("|lin[random 75]| < 0", "has no margin"),
    ],
)
def test_a_claim_that_cannot_be_read_says_what_and_where(make_ablation: Any, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_claim(text, make_ablation())


def test_an_equivalence_bounds_the_absolute_value_of_an_expression(make_ablation: Any) -> None:
    ablation = make_ablation(rows={"8": {"ft": 84.9}, "1": {"ft": 84.8}, "|x| < 1": {"ft": 80.0}})
    claim = parse_claim("|ft[8] - ft[1] + 0.5| < 1.5", ablation)
    assert (claim.margin, claim.constant) == (1.5, 0.5)
    assert claim.weights == {("ft", "8"): 1.0, ("ft", "1"): -1.0}
    assert [claim.satisfied(value) for value in (-1.6, -1.4, 1.4, 1.6)] == [False, True, True, False]
    assert claim.paper is True
    assert parse_claim("|ft[|x| < 1] - ft[8]| < 1", ablation).paper is False


def test_a_contrast_cancels_what_all_rows_share_in_each_of_its_columns(make_ablation: Any) -> None:
    ablation = make_ablation(rows={"8": {}, "1": {}, "4": {}})

    def found(text: str) -> Any:
        shape = contrast(parse_claim(text, ablation))
        return shape and (dict(shape.columns), shape.size)

    assert found("ft[8] > ft[1]") == ({"ft": 1.0}, 2.0)
    assert found("ft[8] - ft[4] < ft[4] - ft[1]") == ({"ft": 1.0}, 6.0)
    assert found("lin[8] - lin[1] > 2*ft[8] - 2*ft[1]") == ({"lin": 1.0, "ft": -2.0}, 2.0)
    assert found("ft[8] > lin[8]") is None
    assert found("ft[8] > 50") is None
    assert found("lin[8] - lin[1] > ft[8] - ft[4]") is None
