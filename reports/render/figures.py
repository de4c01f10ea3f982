"""Figures: published and measured on one axis, the measured with their interval; PNG and SVG."""

from __future__ import annotations

import io
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.collect import scales_of, stem
from reports.files import write_atomically
from reports.render.comparable import Comparable, comparable
from reports.render.phrases import place
from reports.verdicts.cells import cells, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from experiments.ablation import Ablation

PUBLISHED, MEASURED = "published", "measured, mean and 95% interval over seeds"
# colour-blind safe: blue and filled against black and open
_MEASURED = "#0072b2"
_OPEN: dict[str, Any] = {
    "marker": "D", "color": "black", "markerfacecolor": "white", "markeredgewidth": 1.5, "markersize": 7, "zorder": 4,
}  # fmt: skip
_PANEL = (5.4, 4.0)  # inches
_ACROSS = 2  # panels side by side: more are not readable on a page


def write_figure(ablation: Ablation, frame: pd.DataFrame, folder: Path, variant: str = "") -> list[Path]:
    """Draw an ablation, one row of panels per measured scale; return the PNG (150 dpi) and SVG written."""
    import matplotlib

    drawn = draw(ablation, frame, scales_of(frame, ablation.name, variant), variant)
    name = stem(ablation.name, variant)
    # Neither a date nor random ids: the file changes only when the picture does.
    with matplotlib.rc_context({"svg.hashsalt": ablation.name, "svg.fonttype": "none"}):
        content = {"png": _saved(drawn, "png", {}), "svg": _saved(drawn, "svg", {"Date": None})}
    return [write_atomically(folder / f"{name}.{suffix}", data) for suffix, data in content.items()]


def draw_png(ablation: Ablation, frame: pd.DataFrame, variant: str, source: str) -> bytes:
    """Return the figure as a PNG file that says its `source`, which names what it is drawn from."""
    return _saved(draw(ablation, frame, scales_of(frame, ablation.name, variant), variant), "png", {"Source": source})


def _saved(drawn: Figure, suffix: str, metadata: dict[str, str | None]) -> bytes:
    buffer = io.BytesIO()
    drawn.savefig(buffer, format=suffix, bbox_inches="tight", dpi=150, metadata=metadata)
    return buffer.getvalue()


def draw(ablation: Ablation, frame: pd.DataFrame, scales: list[str], variant: str = "") -> Figure:
    """Return the figure: per scale one panel for each column, with the published points on the axis of the measured."""
    import seaborn as sns
    from matplotlib.figure import Figure

    if ablation.figure.kind not in _PAINT:
        raise ValueError(
            f"Ablation {ablation.name} asks for the figure {ablation.figure.kind!r}; known: 'lines', 'bars'."
        )
    paint, height = _PAINT[ablation.figure.kind], _PANEL[1]
    if ablation.figure.kind == "bars":
        height = max(2.4, 0.45 * len(ablation.rows) + 1.6)
    # A bare Figure carries its own canvas: no window, and no change to the backend of a caller.
    with sns.axes_style("whitegrid"), sns.plotting_context("notebook", font_scale=0.85):
        across = min(len(ablation.columns), _ACROSS)
        down = -(-len(ablation.columns) // across)
        size = (_PANEL[0] * across, height * down * len(scales) + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(down * len(scales), across, squeeze=False).reshape(len(scales), down * across)
        for scale, axes in zip(scales, grid, strict=True):
            measured = cells(ablation, frame, scale, variant)
            for ax in axes[len(ablation.columns) :]:
                ax.remove()
            for name, ax in zip(ablation.columns, axes, strict=False):
                found = comparable(ablation, measured, name, scale)
                paint(ablation, found, ax)
                ax.set_title(f"scale={scale}")
                _finish(ax, found)
        title = ablation.title + (f" ({variant})" if variant else "")
        figure.suptitle(f"{title}: {place(ablation)}")
    return figure


def _lines(ablation: Ablation, found: Comparable, ax: Axes) -> None:
    """Draw a column over the row labels as numbers, with the interval as a band."""
    import seaborn as sns

    position = _positions(ablation)
    if len(found.measured):
        data = found.measured.assign(x=found.measured["row"].map(position))
        sns.lineplot(
            data, x="x", y="value", ax=ax, color=_MEASURED, marker="o", markersize=7, errorbar=_interval,
            err_style="band", label=MEASURED, legend=False,
        )  # fmt: skip
    known = sorted((position[row], value) for row, value in found.published.items())
    if known:
        ax.plot(*zip(*known, strict=True), **_OPEN, linestyle=":", linewidth=1, label=PUBLISHED)
    if found.zero is not None:
        ax.axhline(found.zero, color="0.4", linewidth=1, zorder=1)
    if ablation.figure.log:
        ax.set_xscale("log")
    ticks = sorted(position.values())
    if len(ticks) > 1 and (ablation.figure.log or min(_gaps(ticks)) * 20 >= ticks[-1] - ticks[0]):
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        if len(ticks) > 8:
            ax.tick_params(axis="x", rotation=45)  # else neighbours touch
    ax.set(xlabel=ablation.figure.xlabel or "row", ylabel=found.axis)


def _bars(ablation: Ablation, found: Comparable, ax: Axes) -> None:
    """Draw a column as a point for each row, from the top, with its interval."""
    import seaborn as sns

    rows = list(ablation.rows)
    if len(found.measured):
        sns.pointplot(
            found.measured, x="value", y="row", order=rows, ax=ax, color=_MEASURED, errorbar=_interval, capsize=0.2,
            linestyle="none", markers="o", err_kws={"linewidth": 1.5}, label=MEASURED, legend=False,
        )  # fmt: skip
    known = [(value, rows.index(row)) for row, value in found.published.items()]
    if known:
        ax.plot(*zip(*known, strict=True), **_OPEN, linestyle="", label=PUBLISHED)
    if found.zero is not None:
        ax.axvline(found.zero, color="0.4", linewidth=1, zorder=1)
    ax.set_yticks(range(len(rows)), [textwrap.fill(row, 24) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set(xlabel=found.axis, ylabel=ablation.figure.xlabel)


def _finish(ax: Axes, found: Comparable) -> None:
    if found.measured.empty:
        where: dict[str, Any] = {"transform": ax.transAxes, "ha": "center", "va": "center", "zorder": 5}
        ax.text(0.5, 0.5, "not run yet", fontsize="x-large", color="0.35", **where)
    handles = ax.get_legend_handles_labels()[0]
    if handles:
        ax.legend(handles=handles, fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)


#: What draws each kind of figure.
_PAINT = {"lines": _lines, "bars": _bars}


def _interval(values: pd.Series) -> tuple[float, float]:
    found = summarise(values)
    missing = float("nan")  # seaborn then draws no bar
    return (missing, missing) if found.ci_low is None or found.ci_high is None else (found.ci_low, found.ci_high)


def _positions(ablation: Ablation) -> dict[str, float]:
    try:
        position = {label: float(label) for label in ablation.rows}
    except ValueError as error:
        raise ValueError(
            f"Ablation {ablation.name} draws lines, but a row label is no number ({error}); use kind bars."
        ) from error
    if ablation.figure.log and min(position.values()) <= 0:
        raise ValueError(f"Ablation {ablation.name} has a row at or below 0 and a logarithmic axis; set log to false.")
    return position


def _gaps(ticks: list[float]) -> list[float]:
    return [b - a for a, b in pairwise(ticks)]
