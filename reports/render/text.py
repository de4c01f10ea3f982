"""A table as text for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.recommend import sentences
from reports.render.phrases import (
    claim_lines,
    duration,
    headings,
    place,
    remarks,
    scale_sentence,
    table_lines,
    tally,
)
from reports.tables import advice, claims_table, table

if TYPE_CHECKING:
    import pandas as pd

    from experiments.ablation import Ablation


def render_text(
    ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "", elapsed: float | None = None
) -> str:
    """Return the table of one scale for a terminal, then its claims, then what the scale means.

    Each column shows the published value, then the measured `mean ± std (n)`; `*` marks the default row. `frame` holds
    the measurements of all tables. `elapsed` is in seconds.
    """
    values = table(ablation, frame, scale, variant)
    title = f"{ablation.title} ({place(ablation)}){f', variant {variant}' if variant else ''}"
    lines = [title, ablation.question, "", *grid(ablation, values, scale)]
    if ablation.default is not None:
        lines.append("* default row; measured: mean ± standard deviation (seeds)")
    claims = claims_table(ablation, frame, scale, variant)
    shown = claim_lines(ablation, claims, scale)
    if shown:
        lines += ["", f"claims ({tally(claims, scale)}); after the bar: corrected for the claims of this table"]
        width = max(len(claim.verdict) for claim in shown)
        for claim in shown:
            lines.append(f"  {claim.verdict:<{width}}  {claim.claim}")
            lines += [f"  {'':{width}}  {claim.source}", f"  {'':{width}}  {claim.evidence}"]
    says = sentences(advice(ablation, frame, scale, variant), scale)
    lines += ["", "for data of your own:", *(f"  {sentence}" for sentence in says)] if says else []
    lines += ["", scale_sentence(scale), *remarks(ablation, values, scale, variant)]
    if elapsed is not None:
        lines.append(f"Took {duration(elapsed)}.")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def grid(ablation: Ablation, values: pd.DataFrame, scale: str) -> list[str]:
    """Return the lines of one scale of the table, with its head and rules."""
    titles, shown = headings(ablation), table_lines(ablation, values, scale)
    head = ["row", *["paper", "measured"] * len(titles)]
    body = [[f"{line.label} *" if line.default else line.label, *line.cells] for line in shown]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    top = " " * widths[0]
    for i, title in zip(range(1, len(widths), 2), titles, strict=True):
        # A heading spans its two columns, so it widens the second only by what the first leaves over.
        widths[i + 1] = max(widths[i + 1], len(title) - widths[i] - 2)
        top += "  " + title.ljust(widths[i] + widths[i + 1] + 2)
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *body]]
    rule = "-" * max(len(line.rstrip()) for line in [top, *rows])
    return [top, rows[0], rule, *rows[1:], rule]
