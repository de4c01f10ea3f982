"""What a mean over classes hides: the average precision of each class, row by row, beside a table of detection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from reports.collect import SCALES, stem
from reports.files import write_atomically

if TYPE_CHECKING:
    from experiments.ablation import Ablation

#: Between the stage and the class in the name of a metric: `action_detection/ap_walk`.
MARK = "/ap_"


def by_class(ablation: Ablation, frame: pd.DataFrame, variant: str = "") -> pd.DataFrame:
    """Return `class`, `row`, `scale`, `mean`, `std` and `n` over seeds, rows in the table's order, classes by name."""
    part = frame[(frame["ablation"] == ablation.name) & (frame["variant"] == variant)]
    part = part[part["metric"].str.contains(MARK, regex=False)]
    named = part.assign(**{"class": part["metric"].str.split(MARK, n=1).str[1]})
    found = named.groupby(["scale", "row", "class"])["value"].agg(["mean", "std", "count"]).reset_index()
    found = found.rename(columns={"count": "n"})
    order = {label: place for place, label in enumerate(ablation.rows)}
    ranks = {scale: place for place, scale in enumerate(SCALES)}
    keys = {"scale": ranks, "row": order}
    ordered = found.sort_values(
        ["scale", "row", "class"], key=lambda column: column.map(keys[column.name]) if column.name in keys else column
    )
    return ordered[["class", "row", "scale", "mean", "std", "n"]].reset_index(drop=True)


def markdown(ablation: Ablation, found: pd.DataFrame) -> str:
    """Return a table for each scale: classes down, the table's rows across, `mean ± std (n)` in percent."""
    parts = [f"# {ablation.title}: average precision of each class, in percent"]
    for scale, part in found.groupby("scale", sort=False):
        rows = list(dict.fromkeys(part["row"]))
        lines = [f"| {scale} | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
        for name, own in part.groupby("class", sort=True):
            cells = {line["row"]: _cell(line["mean"], line["std"], line["n"]) for line in own.to_dict("records")}
            lines.append(f"| {str(name).replace('_', ' ')} | " + " | ".join(cells.get(row, "") for row in rows) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _cell(mean: float, std: float, n: int) -> str:
    spread = f" ± {std:.1f}" if n > 1 else ""
    return f"{mean:.1f}{spread} ({n})"


def write_classes(ablation: Ablation, frame: pd.DataFrame, folder: Path, variant: str = "") -> list[Path]:
    """Write both forms into `folder` and return them: nothing for a table without such metrics."""
    found = by_class(ablation, frame, variant)
    if found.empty:
        return []
    name = stem(ablation.name, variant)
    text = found.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return [
        write_atomically(folder / f"{name}.csv", text),
        write_atomically(folder / f"{name}.md", markdown(ablation, found)),
    ]
