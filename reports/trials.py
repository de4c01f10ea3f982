"""The trials of a search: a table, and the measured curve with the published one over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments.searching.space import row_label
from reports.collect import merge, stem, tidy
from reports.files import write_atomically
from reports.render.phrases import measured_text, scale_sentence
from reports.verdicts.cells import summarise

if TYPE_CHECKING:
    from experiments.searching.space import Search, Space
    from experiments.searching.study import Trial

TRIAL_COLUMNS = ("trial", "suggested", "value", "visible", "mean", "std", "n", "ci_low", "ci_high", "scale", "note")


def trials_table(trials: Sequence[Trial], space: Space, scale: str) -> pd.DataFrame:
    """Return one line per finished trial with the columns `TRIAL_COLUMNS`.

    `value` is what was computed for the `suggested` one; `visible` is the number of patches it keeps, empty when the
    parameter is no masking ratio. A trial that diverged has n = 0, and says so in `note`.
    """
    lines = []
    for trial in trials:
        found = summarise(result.value for result in trial.results)
        visible = None if space.visible is None else space.visible(trial.value)
        spread = (found.mean, found.std, found.n, found.ci_low, found.ci_high)
        lines.append((trial.number, trial.suggested, trial.value, visible, *spread, scale, trial.reason))
    frame: pd.DataFrame = pd.DataFrame(lines, columns=list(TRIAL_COLUMNS))
    return frame.astype({name: "float64" for name in ("mean", "std", "ci_low", "ci_high")} | {"visible": "Int64"})


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Return the trial with the highest mean, the earliest of equals; None when none was measured."""
    return max((t for t in trials if t.mean is not None), key=lambda t: (t.mean or 0.0, -t.number), default=None)


def render_trials(search: Search, table: pd.DataFrame, best: Trial | None, scale: str) -> str:
    """Return the table as text, and under it the best value beside the published best."""
    key = search.parameter.key
    lines = [f"{search.title}: {search.question}", f"{'trial':>5}  {'suggested':>9}  {key:>12}  {search.metric}"]
    for line in table.to_dict("records"):
        measured = line["note"] or measured_text(line["mean"], line["std"], line["n"])
        kept = "" if pd.isna(line["visible"]) else f"  ({line['visible']} patches kept)"
        lines.append(f"{line['trial']:>5}  {line['suggested']:>9.4g}  {line['value']:>12g}  {measured}{kept}")
    if best is None:
        lines.append("best: none, no trial has been measured")
    else:
        found = summarise(result.value for result in best.results)
        measured = measured_text(found.mean or 0.0, found.std or 0.0, found.n)
        lines.append(f"best: {key}={best.value:g} with {search.metric} {measured}")
    curve = search.curve(scale)
    if curve:
        where = max(curve, key=lambda value: curve[value])
        lines.append(f"paper: {key}={where:g} with {curve[where]:g}, the best of {len(curve)} published")
    return "\n".join([*lines, scale_sentence(scale)])


def write_trials(
    search: Search, trials: Sequence[Trial], space: Space, scale: str, variant: str, report_dir: Path
) -> tuple[str, list[Path]]:
    """Write the table of `trials` as CSV and the figure as PNG and SVG; return the table as text, and the files."""
    from reports.render.figures import write_figure

    table = trials_table(trials, space, scale)
    curve = search.curve(scale)
    measured = [trial for trial in trials if trial.results]
    drawn = search.table(sorted({trial.value for trial in measured} | set(curve)), curve)
    # trials that settled on one value share its runs: each is drawn once
    frame = merge(
        tidy(),
        tidy(
            (drawn.name, variant, row_label(t.value), r.seed, scale, search.metric, r.value, r.fingerprint, r.run_id)
            for t in measured
            for r in t.results
        ),
    )
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    path = report_dir / "tables" / f"{stem(drawn.name, variant)}.csv"
    written = [write_atomically(path, text), *write_figure(drawn, frame, report_dir / "figures", variant)]
    return render_trials(search, table, best_trial(trials), scale), written
