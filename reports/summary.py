"""What a table came to, in short: the best row of each column beside the default row, and the verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments.browse import ACCURACY
from reports.collect import stem
from reports.render.phrases import measured_text
from reports.tables import CLAIMS, read_table
from reports.verdicts.judge import VERDICTS

if TYPE_CHECKING:
    from experiments.ablation import Ablation, Column


@dataclass(frozen=True)
class Summary:
    """Sentences on a table at a scale, its numbers by name, a word on its claims, and the files that show it.

    `best` is the row with the highest accuracy in the first column that has one; that is among the numbers.
    """

    sentences: tuple[str, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    verdicts: str = ""
    best: str = ""
    files: tuple[Path, ...] = ()


def summarise_table(ablation: Ablation, scale: str, variant: str, report_dir: Path) -> Summary:
    """Return the summary of a table that was built in `report_dir`."""
    name = stem(ablation.name, variant)
    path = report_dir / "tables" / f"{name}.csv"
    values, claims = read_table(path), read_table(path.with_name(f"{name}{CLAIMS}.csv"))
    cells = values[(values["scale"] == scale) & (values["n"] > 0)]
    sentences: list[str] = []
    numbers: dict[str, float] = {}
    first = ""
    for key, column in ablation.columns.items():
        here = cells[cells["metric"] == key].set_index("row")
        if here.empty:
            continue
        best = str(here["mean"].idxmax() if column.better == "higher" else here["mean"].idxmin())
        numbers[f"best/{column.metric}"] = float(here.loc[best, "mean"])
        if not first and column.metric.endswith("/top1"):
            first, numbers[ACCURACY] = best, float(here.loc[best, "mean"])
        sentences.append(f"{column.label}: best {_cell(here, best, column)}")
        if ablation.default is not None and ablation.default in here.index:
            numbers[f"default/{column.metric}"] = float(here.loc[ablation.default, "mean"])
            sentences[-1] += f", default {_cell(here, ablation.default, column)}"
    counts = Counter(claims.loc[claims["scale"] == scale, "verdict"])
    verdicts = ", ".join(f"{counts[word]} {word}" for word in VERDICTS if counts[word])
    shown = (path.with_suffix(".md"), path, report_dir / "figures" / f"{name}.png")
    files = tuple(file for file in shown if file.exists())
    return Summary((*sentences, *([f"claims: {verdicts}"] if verdicts else [])), numbers, verdicts, first, files)


def _cell(here: pd.DataFrame, row: str, column: Column) -> str:
    found = here.loc[row]
    return f"{row} with {measured_text(found['mean'], found['std'], int(found['n']))} {column.unit}"
