"""Figures: what is on which axis, with all, half and none of the rows measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reports.render.figures import draw, write_figure

ROWS = {"0.5": {"ft": 79.1}, "1": {"ft": 81.0}, "4": {"ft": None}}
LINES = {"columns": {"ft": {"metric": "finetune/top1"}}, "rows": ROWS, "figure": {"kind": "lines"}}


def test_published_points_are_open_and_on_their_own_axis_off_paper_scale(make_ablation: Any, make_frame: Any) -> None:
    frame = make_frame({("0.5", "finetune/top1"): [40.0, 42.0], ("1", "finetune/top1"): [44.0, 45.0]})
    figure = draw(make_ablation(**LINES), frame, ["desk"])
    measured, published = figure.axes
    (points,) = published.lines
    x, y = np.asarray(points.get_xdata()), np.asarray(points.get_ydata())
    assert published.get_ylabel() == "paper"
    assert points.get_markerfacecolor() == "white"
    assert x.tolist() == [0.5, 1.0]
    assert y.tolist() == [79.1, 81.0]
    assert measured.lines[0].get_ydata() == pytest.approx([41.0, 44.5])
    assert "scale=desk" in measured.get_title()


def test_at_paper_scale_both_share_one_axis(make_ablation: Any, make_frame: Any) -> None:
    frame = make_frame({("1", "finetune/top1"): [81.0, 81.1]}, "paper")
    assert len(draw(make_ablation(**LINES), frame, ["paper"]).axes) == 1


@pytest.mark.parametrize("kind", ["lines", "bars"])
def test_no_run_at_all_says_so_and_still_shows_the_published_points(
    kind: str, make_ablation: Any, make_frame: Any
) -> None:
    figure = draw(make_ablation(**(LINES | {"figure": {"kind": kind}})), make_frame({}), ["desk"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["not run yet"]
    assert len(figure.axes[1].lines) == 1


def test_bars_of_one_unit_share_a_panel_and_markers_stand_on_their_bars(make_ablation: Any, make_frame: Any) -> None:
    columns = {
        "ft": {"metric": "finetune/top1"},
        "lin": {"metric": "linear/top1"},
        "cost": {"metric": "pretrain/seconds", "unit": "x", "relative_to": "block 75"},
    }
    values = {
        (row, metric): [1.0, 2.0] for row in ("block 75", "grid 75") for metric in ("finetune/top1", "linear/top1")
    }
    figure = draw(make_ablation(columns=columns), make_frame(values), ["desk"])
    percent, cost, published = figure.axes  # of the cost nothing is published, so it has no second axis
    patches: list[Any] = list(percent.patches)
    bars = {round(bar.get_x() + bar.get_width() / 2, 6) for bar in patches if bar.get_height() > 0}
    marks = {x for line in published.lines for x in np.asarray(line.get_xdata()).round(6).tolist()}
    assert len(bars) == 4
    assert {0.8, 1.2, 1.8} <= bars & marks  # lin of the last row is not published
    assert [text.get_text() for text in cost.texts] == ["not run yet"]


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
