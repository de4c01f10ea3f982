"""The report over all tables: read back from the files of a report folder, and written as one page and one document.

The page is assembled from the generated files of a report folder, so building one ablation leaves the others as they
were.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from reports.collect import variant_of
from reports.render.html import TITLE
from reports.render.markup import escape_markdown, markdown_scale
from reports.render.part import Part
from reports.render.view import PartView
from reports.tables import ADVICE, CLAIMS, DEVIATIONS, SHOWN, read_table
from reports.trainings import training

if TYPE_CHECKING:
    from experiments.ablation import Ablation

#: What stands beside a table in files of its own.
BESIDE = (CLAIMS, DEVIATIONS, ADVICE, SHOWN)


def parts_in(ablations: Sequence[Ablation], report_dir: Path) -> list[Part]:
    """Return a part for every table of `ablations` in `report_dir/tables`, none for those not built."""
    found = []
    folder = report_dir / "tables"
    for ablation in ablations:
        others = [path for path in folder.glob(f"{ablation.name}--*.csv") if not path.stem.endswith(BESIDE)]
        for path in [folder / f"{ablation.name}.csv", *sorted(others)]:
            if path.exists():
                figure = report_dir / "figures" / f"{path.stem}.svg"
                claims, differs, says, shown = (read_table(path.with_name(f"{path.stem}{end}.csv")) for end in BESIDE)
                svg = figure.read_bytes() if figure.exists() else None
                known = {name: training(report_dir, name) for name in shown["training"].unique()}
                values, variant = read_table(path), variant_of(path.stem)
                found.append(Part(ablation, variant, values, claims, differs, says, svg, shown, known))
    return found


def index_markdown(parts: Sequence[Part]) -> str:
    """Return the report as one Markdown document that links to the files beside it."""
    lines = [
        f"# {TITLE}",
        "",
        "| ablation | where | scale | cells run | seeds | one seed takes | claims |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for part in parts:
        for view in PartView(part).scales:
            words = (part.title(), part.where, view.scale, view.coverage, view.seeds, view.cost, view.tally)
            lines.append(f"| {' | '.join(map(escape_markdown, words))} |")
    for part in parts:
        lines += ["", f"## {escape_markdown(part.title())}", "", escape_markdown(f"{part.ablation.question}")]
        lines += ["", f"{escape_markdown(part.where)}. [CSV](tables/{quote(quote(part.name))}.csv)"]
        lines[-1] += f" · [LaTeX](tables/{quote(quote(part.name))}.tex)"
        for view in PartView(part).scales:
            lines += ["", f"### {escape_markdown(f'scale={view.scale}')}", ""]
            lines += markdown_scale(part.ablation, part.values, part.claims, view.scale, part.variant)
            lines += ["", "```", view.command, "```"]
        if part.svg is not None:
            lines += ["", f"![{escape_markdown(part.title())}](figures/{quote(quote(part.name))}.svg)"]
        lines += ["", *(f"- {escape_markdown(note)}" for note in part.ablation.notes)] if part.ablation.notes else []
    return "\n".join(lines) + "\n"
