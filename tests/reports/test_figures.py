"""Figures: what is on which axis, with all, half and none of the rows measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports.render.comparable import comparable
from reports.render.figures import MEASURED, PUBLISHED, draw, write_figure
from reports.verdicts.cells import cells

ROWS = {"0.5": {"ft": 79.1}, "1": {"ft": 81.0}, "4": {"ft": None}}
LINES = {"columns": {"ft": {"metric": "finetune/top1"}}, "rows": ROWS, "figure": {"kind": "lines"}}


def test_off_paper_scale_both_are_differences_to_the_default_row_on_one_axis(
    make_ablation: Any, make_frame: Any
) -> None:
    frame = make_frame({("0.5", "finetune/top1"): [40.0, 42.0], ("1", "finetune/top1"): [44.0, 45.0]})
    figure = draw(make_ablation(**LINES), frame, ["desk"])
    (ax,) = figure.axes
    lines = {line.get_label(): line for line in ax.lines}
    published = lines[PUBLISHED]
    assert published.get_markerfacecolor() == "white"
    assert np.asarray(published.get_xdata()).tolist() == [0.5, 1.0]
    assert np.asarray(published.get_ydata()) == pytest.approx([0.0, 81.0 - 79.1])
    assert np.asarray(lines[MEASURED].get_ydata()) == pytest.approx([0.0, 3.5])  # paired by seed: 4 and 3
    assert "scale=desk" in ax.get_title()
    assert "difference to 0.5 (points)" in ax.get_ylabel()


def test_at_paper_scale_both_are_the_values(make_ablation: Any, make_frame: Any) -> None:
    frame = make_frame({("1", "finetune/top1"): [81.0, 81.1]}, "paper")
    (ax,) = draw(make_ablation(**LINES), frame, ["paper"]).axes
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in ax.lines}
    assert lines[PUBLISHED] == pytest.approx([79.1, 81.0])
    assert lines[MEASURED] == pytest.approx([81.05])


def test_hours_are_ratios_to_the_default_row_quotients_stay_and_without_a_default_row_ranks_are_drawn(
    make_ablation: Any, make_frame: Any
) -> None:
    columns = {
        "ft": {"metric": "finetune/top1"},
        "hours": {"metric": "pretrain/hours", "unit": "h"},
        "cost": {"metric": "pretrain/hours", "unit": "x", "relative_to": "b"},
    }
    rows = {"a": {"hours": 10.0, "ft": 84.0}, "b": {"hours": 5.0, "ft": 85.0}}
    values = {("a", "pretrain/hours"): [0.4], ("b", "pretrain/hours"): [0.1]}
    values |= {("a", "finetune/top1"): [51.0], ("b", "finetune/top1"): [40.0]}
    table, frame = make_ablation(columns=columns, rows=rows), make_frame(values)
    measured = cells(table, frame, "desk")
    hours, cost = (comparable(table, measured, name, "desk") for name in ("hours", "cost"))
    assert hours.published == {"a": 1.0, "b": 0.5}
    assert dict(zip(hours.measured["row"], hours.measured["value"], strict=True)) == {"a": 1.0, "b": 0.25}
    assert dict(zip(cost.measured["row"], cost.measured["value"], strict=True)) == {"a": 4.0, "b": 1.0}
    ranks = comparable(make_ablation(columns=columns, rows=rows, default=None), measured, "ft", "desk")
    assert ranks.published == {"a": 1.0, "b": 2.0}
    assert dict(zip(ranks.measured["row"], ranks.measured["value"], strict=True)) == {"a": 2.0, "b": 1.0}


@pytest.mark.parametrize("kind", ["lines", "bars"])
def test_no_run_at_all_says_so_and_still_shows_the_published_points(
    kind: str, make_ablation: Any, make_frame: Any
) -> None:
    figure = draw(make_ablation(**(LINES | {"figure": {"kind": kind}})), make_frame({}), ["desk"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["not run yet"]
    assert {line.get_label() for line in figure.axes[0].lines} >= {PUBLISHED}


def test_markers_of_a_row_stand_on_its_line(make_ablation: Any, make_frame: Any) -> None:
    values = {(row, "finetune/top1"): [value, value + 1] for row, value in (("random 75", 3.0), ("grid 75", 5.0))}
    figure = draw(make_ablation(), make_frame(values), ["desk"])
    ft, lin = figure.axes
    published = next(line for line in ft.lines if line.get_label() == PUBLISHED)
    assert np.asarray(published.get_ydata()).tolist() == [0, 1, 2]
    assert [label.get_text() for label in ft.get_yticklabels()] == ["random 75", "block 75", "grid 75"]
    placed = {(round(x, 3), y) for line in ft.lines for x, y in np.asarray(line.get_xydata()).tolist()}
    assert {(0.0, 0), (2.0, 2)} <= placed
    assert [text.get_text() for text in lin.texts] == ["not run yet"]


def test_files_do_not_change_when_the_measurements_do_not(tmp_path: Path, make_ablation: Any, make_frame: Any) -> None:
    frame = make_frame({("1", "finetune/top1"): [44.0, 45.0]})
    first = write_figure(make_ablation(**LINES), frame, tmp_path / "a")
    second = write_figure(make_ablation(**LINES), frame, tmp_path / "b")
    assert [path.name for path in first] == ["mask_sampling.png", "mask_sampling.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize(
    ("rows", "figure", "message"),
    [
        ({"all": {}}, {"kind": "lines"}, "use kind bars"),
        ({"0": {}}, {"kind": "lines", "log": True}, "set log to false"),
        ({"1": {}}, {"kind": "pie"}, "known: 'lines', 'bars'"),
    ],
)
def test_a_figure_that_cannot_be_drawn_says_why(
    rows: Any, figure: Any, message: str, make_ablation: Any, make_frame: Any
) -> None:
    with pytest.raises(ValueError, match=message):
        draw(make_ablation(rows=rows, figure=figure), make_frame({}), ["desk"])
