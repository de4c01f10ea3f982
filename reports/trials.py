"""The trials of a search: a table, a figure, and what was chosen tested beside the recipe."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments.searching.trials import best_trial
from reports.collect import EVIDENCE, collect, stem
from reports.files import write_atomically
from reports.render.phrases import measured_text, scale_sentence
from reports.verdicts.cells import Summary, summarise

if TYPE_CHECKING:
    from experiments.searching.declared import Point, Search
    from experiments.searching.space import Space
    from experiments.searching.trials import Trial
    from reports.render.searched import Curve


def trials_table(search: Search, trials: Sequence[Trial], space: Space, scale: str) -> pd.DataFrame:
    """Return one line per finished trial.

    Each parameter has a column with what was computed, and one with what the sampler suggested. `visible` is the number
    of patches kept, empty where no parameter is a masking ratio; `front` says that no trial is better in every
    objective. A trial that diverged has n = 0, and says so in `note`.
    """
    lines = []
    for trial in trials:
        found = summarise(result.value for result in trial.results)
        line: dict[str, object] = {"trial": trial.number}
        for parameter in search.parameters:
            line[parameter.key] = trial.point[parameter.key]
            line[f"suggested {parameter.key}"] = trial.suggested[parameter.key]
        line["visible"] = space.patches(trial.point)
        line |= {"mean": found.mean, "std": found.std, "n": found.n, "ci_low": found.ci_low, "ci_high": found.ci_high}
        line |= {"seconds": trial.seconds, "front": trial.front, "scale": scale, "note": trial.reason}
        lines.append(line)
    frame = pd.DataFrame(lines)
    numbers = ("mean", "std", "ci_low", "ci_high", "seconds")
    return frame.astype({name: "float64" for name in numbers} | {"visible": "Int64"}) if lines else frame


def render_trials(search: Search, trials: Sequence[Trial], space: Space, scale: str, seconds: bool) -> str:
    """Return the trials as text, and under them the best, the Pareto front if there is one, and the published best."""
    lines = [f"{search.title}: {search.question}", f"trial  {search.metric} on validation data"]
    for trial in trials:
        kept = space.patches(trial.point)
        patches = "" if kept is None else f"  ({kept} patches kept)"
        lines.append(f"{trial.number:>5}  {_measured(trial, seconds):<28}  {_words(trial.point)}{patches}")
    best = best_trial(trials)
    if best is None:
        lines.append("best: none, no trial has been measured")
    else:
        lines.append(f"best: {_words(best.point)} with {search.metric} {_measured(best, seconds)}")
    if seconds:
        lines.append("Pareto front, from the least seconds: more accuracy is had only for more of them")
        front = sorted((trial for trial in trials if trial.front), key=lambda trial: trial.seconds or 0.0)
        lines += [f"{trial.number:>5}  {_measured(trial, seconds):<28}  {_words(trial.point)}" for trial in front]
    return "\n".join([*lines, *_published(search, scale), scale_sentence(scale)])


def _measured(trial: Trial, seconds: bool) -> str:
    found = summarise(result.value for result in trial.results)
    if not found.n:
        return trial.reason
    paid = f" in {trial.seconds:.1f} s" if seconds else ""
    return _text(found) + paid


def _text(found: Summary) -> str:
    return measured_text(found.mean or 0.0, found.std or 0.0, found.n)


def _words(point: Point) -> str:
    return ", ".join(f"{key.rpartition('.')[2] if len(point) > 1 else key}={value:g}" for key, value in point.items())


def _published(search: Search, scale: str) -> list[str]:
    """Say what the paper has: the best of its values where it varies the same, else the one of its recipe."""
    if curve := search.curve(scale):
        where = max(curve, key=lambda value: curve[value])
        return [
            f"paper: {search.parameters[0].key}={where:g} with {curve[where]:g}, the best of {len(curve)} published"
        ]
    table = search.beside
    found = table.rows[table.default].paper.get(search.published.column) if table.default else None
    return [] if found is None else [f"paper: {found:g} with its own recipe ({table.paper.get('where', table.name)})"]


def render_tested(search: Search, tested: Sequence[Trial]) -> str:
    """Return what the recipe's own point and the chosen one give on test data, and their difference paired by seed.

    `tested` has the recipe's own point first, and no other where that was chosen.
    """
    seeds = [result.seed for result in tested[0].results]
    lines = [f"on the test set, with seeds that no trial had ({', '.join(map(str, seeds))}):"]
    for name, trial in zip(("recipe", "chosen"), tested, strict=False):
        lines.append(f"  {name}: {_words(trial.point)} gives {search.metric} {_measured(trial, seconds=False)}")
    if len(tested) == 1:
        return "\n".join([*lines, "  the search chose what the recipe has"])
    pairs = zip(tested[0].results, tested[1].results, strict=True)
    found = summarise(new.value - old.value for old, new in pairs)
    interval = "" if found.ci_low is None else f", 95% interval {found.ci_low:+.2f} to {found.ci_high:+.2f}"
    return "\n".join([*lines, f"  chosen less recipe, paired by seed: {found.mean or 0.0:+.2f}{interval}"])


def measured_beside(search: Search, scale: str, local: pd.DataFrame) -> Curve:
    """Return what the table beside a search measured at a scale, by the value of the parameter that both vary.

    `local` are measurements of this machine, which replace committed ones.
    """
    found = collect(EVIDENCE, local)
    metric = search.beside.columns[search.published.column].metric
    here = found[(found["ablation"] == search.beside.name) & (found["variant"] == "") & (found["scale"] == scale)]
    curve: dict[float, list[float]] = {}
    for label, values in here[here["metric"] == metric].groupby("row")["value"]:
        if (setting := search.setting(str(label), scale)) is not None:
            curve[setting] = values.tolist()
    return curve


def write_trials(
    search: Search,
    trials: Sequence[Trial],
    space: Space,
    scale: str,
    variant: str,
    report_dir: Path,
    beside: Curve,
    seconds: bool = False,
) -> tuple[str, list[Path]]:
    """Write the table of `trials` as CSV and the figure as PNG and SVG; return the table as text, and the files.

    `beside` is what `measured_beside` finds; `seconds` says that they are a second objective.
    """
    import matplotlib

    from reports.render.searched import draw_search

    name = stem(f"search_{search.name}", variant)
    text = trials_table(search, trials, space, scale).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    written = [write_atomically(report_dir / "tables" / f"{name}.csv", text)]
    # neither a date nor random ids: the file changes only when the picture does
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        drawn = draw_search(search, trials, space.own, scale, beside, seconds)
        for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            drawn.savefig(buffer, format=suffix, bbox_inches="tight", dpi=150, metadata=metadata)
            written.append(write_atomically(report_dir / "figures" / f"{name}.{suffix}", buffer.getvalue()))
    return render_trials(search, trials, space, scale, seconds), written
