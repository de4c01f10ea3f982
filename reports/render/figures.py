"""Figures: measured values with their interval, published values as open markers; PNG and SVG."""

from __future__ import annotations

import io
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.collect import scales_of, stem
from reports.files import write_atomically
from reports.render.phrases import place
from reports.verdicts.cells import cells, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from experiments.ablation import Ablation, Column

PUBLISHED = "published"
_MARKERS = "osD^vPX"
_PANEL = (5.4, 4.0)  # inches


def write_figure(ablation: Ablation, frame: pd.DataFrame, folder: Path, variant: str = "") -> list[Path]:
    """Draw an ablation, one row of panels per measured scale; return the PNG (150 dpi) and SVG written."""
    import matplotlib

    drawn = draw(ablation, frame, scales_of(frame, ablation.name, variant), variant)
    # Neither a date nor random ids: the file changes only when the picture does.
    content = {}
    with matplotlib.rc_context({"svg.hashsalt": ablation.name, "svg.fonttype": "none"}):
        for suffix, options in (("png", {"dpi": 150}), ("svg", {"metadata": {"Date": None}})):
            buffer = io.BytesIO()
            drawn.savefig(buffer, format=suffix, bbox_inches="tight", **options)
            content[suffix] = buffer.getvalue()
    name = stem(ablation.name, variant)
    return [write_atomically(folder / f"{name}.{suffix}", data) for suffix, data in content.items()]


def draw(ablation: Ablation, frame: pd.DataFrame, scales: list[str], variant: str = "") -> Figure:
    """Return the figure: per scale one panel for each column (lines) or for each unit (bars).

    The published points stand on the axis of the measured values at the scale `paper`, on a second one
    elsewhere.
    """
    import seaborn as sns
    from matplotlib.figure import Figure

    panels = _panels(ablation)
    # A bare Figure carries its own canvas: no window, and no change to the backend of a caller.
    with sns.axes_style("whitegrid"), sns.plotting_context("notebook", font_scale=0.85):
        figure = Figure(figsize=(_PANEL[0] * len(panels), _PANEL[1] * len(scales) + 0.4), layout="constrained")
        grid = figure.subplots(len(scales), len(panels), squeeze=False)
        for scale, axes in zip(scales, grid, strict=True):
            measured = cells(ablation, frame, scale, variant)
            for names, ax in zip(panels, axes, strict=True):
                here = measured[measured["metric"].isin(names)]
                paint = _lines if ablation.figure.kind == "lines" else _bars
                paint(ablation, here, names, ax, scale)
        title = ablation.title + (f" ({variant})" if variant else "")
        figure.suptitle(f"{title}: {place(ablation)}")
    return figure


def _panels(ablation: Ablation) -> list[list[str]]:
    kind = ablation.figure.kind
    if kind == "lines":
        return [[name] for name in ablation.columns]
    if kind != "bars":
        raise ValueError(f"Ablation {ablation.name} asks for the figure {kind!r}; known: 'lines', 'bars'.")
    units = dict.fromkeys(column.unit for column in ablation.columns.values())
    return [[name for name, column in ablation.columns.items() if column.unit == unit] for unit in units]


def _lines(ablation: Ablation, measured: pd.DataFrame, names: list[str], ax: Axes, scale: str) -> None:
    import seaborn as sns

    name = names[0]
    column = ablation.columns[name]
    position = _positions(ablation)
    colour = sns.color_palette("colorblind")[list(ablation.columns).index(name) % 10]
    if len(measured):
        data = measured.assign(x=measured["row"].map(position))
        sns.lineplot(
            data, x="x", y="value", ax=ax, color=colour, marker="o", markersize=7, errorbar=_interval,
            err_style="bars", err_kws={"capsize": 3}, label="measured, mean and 95% interval over seeds",
            legend=False,
        )  # fmt: skip
    other = _published_axis(ax, scale)
    points = [(x, ablation.rows[row].paper.get(name)) for row, x in position.items()]
    known = sorted((x, value) for x, value in points if value is not None)
    if known:
        other.plot(
            *zip(*known, strict=True),
            **_open_marker("o", colour),
            linestyle=":",
            linewidth=1,
            label=PUBLISHED,
        )
    if ablation.figure.log:
        ax.set_xscale("log")
    ticks = sorted(position.values())
    if len(ticks) > 1 and (ablation.figure.log or min(_gaps(ticks)) * 20 >= ticks[-1] - ticks[0]):
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        if len(ticks) > 8:
            ax.tick_params(axis="x", rotation=45)  # else neighbours touch
    _finish(ax, other, [column], scale, measured.empty, ablation.figure.xlabel or "row")


def _bars(ablation: Ablation, measured: pd.DataFrame, names: list[str], ax: Axes, scale: str) -> None:
    import seaborn as sns

    rows = list(ablation.rows)
    columns = [ablation.columns[name] for name in names]
    palette = sns.color_palette("colorblind")
    colours = {name: palette[list(ablation.columns).index(name) % 10] for name in names}
    if len(measured):
        sns.barplot(
            measured, x="row", y="value", hue="metric", order=rows, hue_order=names, palette=colours, ax=ax,
            errorbar=_interval, capsize=0.15, err_kws={"linewidth": 1.2, "color": "0.2"}, legend=False,
            alpha=0.75, dodge=True,
        )  # fmt: skip
        for container, column in zip(ax.containers, columns, strict=False):
            container.set_label(f"{column.label}, measured, 95% interval over seeds")
    other = _published_axis(ax, scale)
    width = 0.8 / len(names)  # seaborn shares 0.8 of the distance of two rows among the bars of a row
    for k, (name, column) in enumerate(zip(names, columns, strict=True)):
        values = {i: ablation.rows[row].paper.get(name) for i, row in enumerate(rows)}
        known = {i - 0.4 + width * (k + 0.5): value for i, value in values.items() if value is not None}
        style = _open_marker(_MARKERS[k % len(_MARKERS)], "black")
        if known:
            other.plot(list(known), list(known.values()), **style, linestyle="", label=f"{column.label}, {PUBLISHED}")
    ax.set_xticks(range(len(rows)), [textwrap.fill(row, 14) for row in rows])
    if len(rows) > 4:
        ax.tick_params(axis="x", labelsize="small", rotation=25)
    ax.set_xlim(-0.6, len(rows) - 0.4)
    _finish(ax, other, columns, scale, measured.empty, ablation.figure.xlabel)


def _finish(ax: Axes, other: Axes, columns: list[Column], scale: str, empty: bool, xlabel: str) -> None:
    what = f"{columns[0].label}, measured" if len(columns) == 1 else "measured"
    ax.set(xlabel=xlabel, ylabel=f"{what} ({columns[0].unit})", title=f"scale={scale}")
    if empty:
        ax.set_yticks([])
        where: dict[str, Any] = {"transform": ax.transAxes, "ha": "center", "va": "center", "zorder": 5}
        ax.text(0.5, 0.5, "not run yet", fontsize="x-large", color="0.35", **where)
    if other is not ax and not other.has_data():
        other.remove()  # nothing is published here
    handles: list[Any] = []
    below = -0.3 if any(label.get_rotation() for label in ax.get_xticklabels()) else -0.2
    for axes in dict.fromkeys((ax, other)):
        handles += axes.get_legend_handles_labels()[0]
    if handles:
        ax.legend(handles=handles, fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, below))


def _published_axis(ax: Axes, scale: str) -> Axes:
    if scale == "paper":
        return ax
    other = ax.twinx()
    other.set_ylabel("paper", color="0.35")
    other.tick_params(axis="y", colors="0.35")
    other.grid(False)
    other.margins(y=0.15)
    return other


def _open_marker(marker: str, colour: object) -> dict[str, Any]:
    style = {"markerfacecolor": "white", "markeredgecolor": colour, "markersize": 7, "markeredgewidth": 1.5}
    return {"marker": marker, "color": colour, "zorder": 4, **style}


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
