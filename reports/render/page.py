"""The report as one page: every ablation with its question, table, figure, claims, and the command behind it.

The page is assembled from the generated files of a report folder, so building one ablation leaves the others
as they were. It needs nothing but itself: figures are embedded, and there is no script.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pandas as pd

from reports.collect import stem, variant_of
from reports.render.markup import escape_markdown, markdown_scale
from reports.render.phrases import (
    METHOD,
    claim_lines,
    headings,
    place,
    remarks,
    scale_sentence,
    table_lines,
    tally,
)
from reports.tables import read_table

if TYPE_CHECKING:
    from experiments.ablation import Ablation

TITLE = "Ablations of MAE and VideoMAE: published beside measured"

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --soft: #5b6370; --rule: #d8dce2;
  --tint: #f3f5f8; --holds: #1a6e4c; --contradicted: #a8321f; --link: #0b57a4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #15181c; --soft: #a2abb8; --rule: #363c45;
    --tint: #1f242a; --holds: #6fd0a2; --contradicted: #ff9c86; --link: #86bdff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
a { color: var(--link); }
section { border-top: 1px solid var(--rule); margin-top: 2.5rem; }
.soft { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: left; border-bottom: 1px solid var(--rule); vertical-align: top; }
thead th { background: var(--tint); }
td.value { white-space: nowrap; }
tr.default th, tr.default td { font-weight: 600; }
.holds { color: var(--holds); font-weight: 600; }
.contradicted { color: var(--contradicted); font-weight: 600; }
img { max-width: 100%; height: auto; background: #fff; border-radius: .4rem; }
pre { overflow-x: auto; padding: .6rem .8rem; background: var(--tint); border-radius: .4rem; }
"""


@dataclass(frozen=True)
class Section:
    """One ablation in one variant: what was generated for it; `svg` is None where no figure was drawn."""

    ablation: Ablation
    variant: str
    values: pd.DataFrame
    claims: pd.DataFrame
    svg: bytes | None

    @property
    def name(self) -> str:
        """File name, without suffix, of the generated files."""
        return stem(self.ablation.name, self.variant)

    @property
    def scales(self) -> list[str]:
        """Scales of the table, least first."""
        return [str(scale) for scale in self.values["scale"].unique()]

    @property
    def where(self) -> str:
        """Place in the paper."""
        return place(self.ablation)

    def title(self) -> str:
        """Title with the variant."""
        return self.ablation.title + (f" ({self.variant})" if self.variant else "")

    def command(self, scale: str) -> str:
        """Command that measures this section again, the overrides read back from the name of the variant."""
        words = [f"python experiments/run.py ablation={self.ablation.name} scale={scale}"]
        for override in filter(None, self.variant.split("+")):
            key, equals, value = override.partition("=")
            words.append(key.replace("-", "/") + equals + value)  # a group such as evaluate/linear
        return " ".join(words)


def sections(ablations: Sequence[Ablation], report_dir: Path) -> list[Section]:
    """Return a section for every table of `ablations` in `report_dir/tables`, none for those not built."""
    found = []
    for ablation in ablations:
        folder = report_dir / "tables"
        others = [path for path in folder.glob(f"{ablation.name}--*.csv") if not path.stem.endswith("_claims")]
        for path in [folder / f"{ablation.name}.csv", *sorted(others)]:
            if path.exists():
                figure = report_dir / "figures" / f"{path.stem}.svg"
                claims = read_table(path.with_name(f"{path.stem}_claims.csv"))
                svg = figure.read_bytes() if figure.exists() else None
                found.append(Section(ablation, variant_of(path.stem), read_table(path), claims, svg))
    return found


def html(parts: Sequence[Section]) -> str:
    """Return the page: an overview, then one section for each of `parts`."""
    overview = "".join(
        f'<tr><th scope="row"><a href="#{escape(quote(part.name))}">{escape(part.title())}</a></th>'
        f"<td>{escape(part.where)}</td><td>{escape(scale)}</td><td>{_coverage(part, scale)}</td>"
        f"<td>{escape(tally(part.claims, scale))}</td></tr>\n"
        for part in parts
        for scale in part.scales
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(TITLE)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(TITLE)}</h1>\n"
        f"<p>{escape(METHOD)}</p>\n"
        '<div class="scroll"><table>\n<thead><tr><th>ablation</th><th>where</th><th>scale</th>'
        f"<th>cells run</th><th>claims</th></tr></thead>\n<tbody>\n{overview}</tbody></table></div>\n"
        f"{''.join(_section(part) for part in parts)}</body>\n</html>\n"
    )


def index_markdown(parts: Sequence[Section]) -> str:
    """Return the same report as one Markdown document that links to the files beside it."""
    lines = [
        f"# {TITLE}",
        "",
        "| ablation | where | scale | cells run | claims |",
        "| --- | --- | --- | --- | --- |",
    ]
    for part in parts:
        for scale in part.scales:
            cells = (
                escape_markdown(part.title()),
                escape_markdown(part.where),
                scale,
                _coverage(part, scale),
            )
            lines.append(f"| {' | '.join(cells)} | {tally(part.claims, scale)} |")
    for part in parts:
        lines += ["", f"## {escape_markdown(part.title())}", "", escape_markdown(f"{part.ablation.question}")]
        lines += ["", f"{escape_markdown(part.where)}. [CSV](tables/{quote(quote(part.name))}.csv)"]
        lines[-1] += f" · [LaTeX](tables/{quote(quote(part.name))}.tex)"
        for scale in part.scales:
            lines += ["", f"### {escape_markdown(f'scale={scale}')}", ""]
            lines += markdown_scale(part.ablation, part.values, part.claims, scale, part.variant)
            lines += ["", "```", part.command(scale), "```"]
        if part.svg is not None:
            lines += ["", f"![{escape_markdown(part.title())}](figures/{quote(quote(part.name))}.svg)"]
        lines += ["", *(f"- {escape_markdown(note)}" for note in part.ablation.notes)] if part.ablation.notes else []
    return "\n".join(lines) + "\n"


def _section(part: Section) -> str:
    scales = "".join(_scale(part, scale) for scale in part.scales)
    figure = ""
    if part.svg is not None:
        data = base64.b64encode(part.svg).decode("ascii")
        words = f"Figure of {part.title()}: measured and published values, as in the tables of this section"
        figure = f'<p><img alt="{escape(words)}" src="data:image/svg+xml;base64,{data}"></p>\n'
    notes = "".join(f"<li>{escape(note)}</li>" for note in part.ablation.notes)
    return (
        f'<section id="{escape(quote(part.name))}">\n<h2>{escape(part.title())}</h2>\n'
        f'<p>{escape(part.ablation.question)}</p>\n<p class="soft">{escape(part.where)}</p>\n'
        f"{scales}{figure}{f'<ul>{notes}</ul>' if notes else ''}</section>\n"
    )


def _scale(part: Section, scale: str) -> str:
    titles = headings(part.ablation)
    groups = "".join(f'<th colspan="2">{escape(title)}</th>' for title in titles)
    rows = ""
    for line in table_lines(part.ablation, part.values, scale):
        cells = "".join(f'<td class="value">{escape(cell)}</td>' for cell in line.cells)
        shown = escape(line.label) + (" (default)" if line.default else "")
        rows += f'<tr{" class=default" if line.default else ""}><th scope="row">{shown}</th>{cells}</tr>\n'
    claims = "".join(
        f'<tr><td><code>{escape(claim.claim)}</code><br><span class="soft">{escape(claim.source)}</span></td>'
        f'<td class="{escape(claim.kind.replace(" ", "-"))}">{escape(claim.verdict)}</td>'
        f"<td>{escape(claim.evidence)}</td></tr>\n"
        for claim in claim_lines(part.ablation, part.claims, scale)
    )
    judged = (
        '<div class="scroll"><table><thead><tr><th>claim</th><th>verdict</th><th>evidence</th></tr></thead>\n'
        f"<tbody>\n{claims}</tbody></table></div>\n"
    )
    said = " ".join([scale_sentence(scale), *remarks(part.ablation, part.values, scale, part.variant)])
    return (
        f"<h3>scale={escape(scale)}</h3>\n"
        f'<div class="scroll"><table><thead><tr><th rowspan="2">row</th>{groups}</tr>\n'
        f"<tr>{'<th>paper</th><th>measured</th>' * len(titles)}</tr></thead>\n"
        f"<tbody>\n{rows}</tbody></table></div>\n"
        f'<p class="soft">{escape(said)} Measured: mean ± standard deviation (seeds).</p>\n'
        f"{judged if claims else ''}<pre>{escape(part.command(scale))}</pre>\n"
    )


def _coverage(part: Section, scale: str) -> str:
    here = part.values[part.values["scale"] == scale]
    run = here.loc[here["n"] > 0, "n"]
    if run.empty:
        return f"0 of {len(here)}"
    seeds = str(run.min()) if run.min() == run.max() else f"{run.min()} to {run.max()}"
    return f"{len(run)} of {len(here)}, n = {seeds}"
