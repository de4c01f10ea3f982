"""The cells of a table, and their intervals."""

from __future__ import annotations

from typing import Any

import pytest
from scipy import stats

from reports.verdicts.cells import Summary, cells, summarise


def test_interval_is_the_t_interval_of_scipy() -> None:
    sample = [47.0, 49.5, 45.25, 48.0]
    found = summarise(sample)
    low, high = stats.t.interval(0.95, 3, loc=found.mean, scale=stats.sem(sample))
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))
    assert found.std == pytest.approx(stats.tstd(sample))
    assert found.n == 4


def test_one_seed_has_a_mean_but_neither_spread_nor_interval() -> None:
    assert summarise([3.0]) == Summary(3.0, None, 1, None, None)
    assert summarise([]) == Summary(None, None, 0, None, None)


def test_relative_column_is_paired_by_seed_and_needs_the_reference_row(make_ablation: Any, make_frame: Any) -> None:
    columns = {
        "factor": {"metric": "pretrain/seconds", "relative_to": "with"},
        "speedup": {"metric": "pretrain/seconds", "relative_to": "with", "invert": True},
    }
    ablation = make_ablation(columns=columns, rows={"with": {}, "without": {}})
    frame = make_frame({("with", "pretrain/seconds"): [10.0, 30.0], ("without", "pretrain/seconds"): [5.0, 10.0, 7.0]})
    found = cells(ablation, frame, "desk").set_index(["metric", "row", "seed"])["value"]
    assert found["factor", "without"].to_list() == pytest.approx([0.5, 1 / 3])
    assert found["speedup", "without"].to_list() == pytest.approx([2.0, 3.0])
    assert found["speedup", "with"].to_list() == [1.0, 1.0]


def test_reference_of_zero_is_refused_in_one_sentence(make_ablation: Any, make_frame: Any) -> None:
    columns = {"factor": {"metric": "pretrain/seconds", "relative_to": "with"}}
    ablation = make_ablation(columns=columns, rows={"with": {}})
    with pytest.raises(ValueError, match="relative to row 'with'"):
        cells(ablation, make_frame({("with", "pretrain/seconds"): [0.0]}), "desk")


def test_cells_of_other_scales_variants_ablations_and_rows_are_left_out(make_ablation: Any, make_frame: Any) -> None:
    ablation, key = make_ablation(), {("random 75", "linear/top1"): [1.0]}
    assert cells(ablation, make_frame(key, scale="smoke"), "desk").empty
    assert cells(ablation, make_frame(key, variant="data=cifar10"), "desk").empty
    assert cells(ablation, make_frame(key, ablation="decoder_depth"), "desk").empty
    assert cells(ablation, make_frame({("no such row", "linear/top1"): [1.0]}), "desk").empty
    assert len(cells(ablation, make_frame(key), "desk")) == 1
