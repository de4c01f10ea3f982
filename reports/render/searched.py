"""The figure of a search: its trials, over the table that varies the same value and what is published of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.verdicts.cells import summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from experiments.searching.declared import Parameter, Point, Search
    from experiments.searching.trials import Trial

# colour-blind safe; published is black and open, as in the figures of tables
_TRIALS, _TABLE, _FRONT = "#0072b2", "#e69f00", "#d55e00"
_PANEL = (5.4, 4.0)  # inches

#: Values by what they were measured at: several seeds each.
Curve = Mapping[float, Sequence[float]]


def draw_search(
    search: Search, trials: Sequence[Trial], own: Point, scale: str, table: Curve, seconds: bool = False
) -> Figure:
    """Return a panel for each parameter and, where `seconds` are an objective, one of accuracy over them.

    `table` are measurements of the ablation that varies the one parameter of `search`. They and published values are
    drawn with the trials as differences to the recipe's `own` point, since they have other data.
    """
    import seaborn as sns
    from matplotlib.figure import Figure

    measured = [trial for trial in trials if trial.results]
    panels = len(search.parameters) + seconds
    across = min(panels, 2)
    down = -(-panels // across)
    with sns.axes_style("whitegrid"), sns.plotting_context("notebook", font_scale=0.85):
        figure = Figure(figsize=(_PANEL[0] * across, _PANEL[1] * down + 0.4), layout="constrained")
        axes = list(figure.subplots(down, across, squeeze=False).flat)
        for ax in axes[panels:]:
            ax.remove()
        for parameter, ax in zip(search.parameters, axes, strict=False):
            _slice(search, parameter, measured, own, scale, table, ax)
        if seconds:
            _front(search, measured, axes[panels - 1])
        for ax in axes[:panels]:
            if ax.get_legend_handles_labels()[0]:
                ax.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
        figure.suptitle(f"{search.title}: {len(measured)} trials, scale={scale}")
    return figure


def _slice(
    search: Search, parameter: Parameter, trials: Sequence[Trial], own: Point, scale: str, table: Curve, ax: Axes
) -> None:
    """Draw what was measured over the values of one parameter."""
    column = search.beside.columns[search.published.column]
    words = f"{column.label} on validation data ({column.unit})"
    if parameter.log:
        ax.set_xscale("log")
    if len(search.parameters) > 1:  # the other values differ from trial to trial: no two are seeds of one
        ax.scatter(
            [trial.point[parameter.key] for trial in trials], [trial.mean or 0.0 for trial in trials], color=_TRIALS
        )
        ax.set(xlabel=parameter.label, ylabel=words)
        return
    here: dict[float, dict[str, float]] = {}
    for trial in trials:  # trials that settled on one point share its runs
        runs = here.setdefault(trial.point[parameter.key], {})
        runs.update({result.fingerprint: result.value for result in trial.results})
    found: Curve = {x: list(runs.values()) for x, runs in here.items()}
    published = {x: [y] for x, y in search.curve(scale).items()}
    at = own[parameter.key]
    if at in found:
        words = f"{column.label}, difference to {at:g} (points)"
        ax.axhline(0, color="0.4", linewidth=1, zorder=1)
        known = {"color": "black", "marker": "D", "linestyle": ":", "markerfacecolor": "white", "label": "published"}
        _series(
            _less(table, at), ax, color=_TABLE, marker="s", label=f"table {search.published.ablation}, on test data"
        )
        _series(_less(published, at), ax, **known)
        found = _less(found, at)
    _series(found, ax, color=_TRIALS, marker="o", linestyle="", label="trials, on validation data")
    ax.set(xlabel=parameter.label, ylabel=words)


def _less(curve: Curve, at: float) -> Curve:
    """Return a curve as differences to its mean at a point, and nothing where it has none there."""
    if not curve.get(at):
        return {}
    base = sum(curve[at]) / len(curve[at])
    return {x: [value - base for value in values] for x, values in curve.items()}


def _series(curve: Curve, ax: Axes, **style: Any) -> None:
    """Draw means with the 95% intervals over their seeds."""
    if not curve:
        return
    places = sorted(curve)
    means, halves = [], []
    for found in (summarise(curve[x]) for x in places):
        means.append(found.mean or 0.0)
        halves.append(0.0 if found.ci_high is None else found.ci_high - means[-1])
    ax.errorbar(places, means, yerr=halves, capsize=3, linewidth=1, **style)


def _front(search: Search, trials: Iterable[Trial], ax: Axes) -> None:
    """Draw accuracy over seconds, and the trials that no other betters in both as stairs."""
    points = sorted((t.seconds or 0.0, t.mean or 0.0, t.front) for t in trials)
    ax.scatter([x for x, _, _ in points], [y for _, y, _ in points], color=_TRIALS, label="trials")
    front = [(x, y) for x, y, on in points if on]
    if front:
        ax.step(*zip(*front, strict=True), where="post", color=_FRONT, marker="o", label="Pareto front")
    ax.set(xlabel="seconds of training", ylabel=f"{search.metric} on validation data (%)")
