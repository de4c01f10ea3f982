"""A table as Markdown and as LaTeX: published beside measured, a block per scale, the default row marked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pandas as pd

from reports.render.phrases import claim_lines, headings, place, remarks, scale_sentence, table_lines

if TYPE_CHECKING:
    from experiments.ablation import Ablation

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    # A row that begins with a bracket would be the optional argument of the line break before it.
    "[": r"{[}",
    "]": r"{]}",
    "±": r"$\pm$",
    "–": r"--",
    "“": r"``",
    "”": r"''",
    "\u00d7": r"$\times$",
}


def escape_markdown(text: str) -> str:
    """Return `text` so that Markdown shows it letter by letter, within a table cell too."""
    return re.sub(r"([\\`*_\[\]<>|~#])", r"\\\1", text).replace("\n", " ")


def escape_latex(text: str) -> str:
    """Return `text` so that LaTeX sets it letter by letter."""
    return "".join(_LATEX.get(letter, letter) for letter in text.replace("\n", " "))


def markdown(ablation: Ablation, values: pd.DataFrame, claims: pd.DataFrame, variant: str = "") -> str:
    """Return the stacked table and claims of `reports.tables.all_scales` as a Markdown document."""
    name = escape_markdown(ablation.title + (f" ({variant})" if variant else ""))
    lines = [f"# {name}", "", f"{escape_markdown(ablation.question)} {escape_markdown(place(ablation))}."]
    for scale in values["scale"].unique():
        lines += ["", *markdown_scale(ablation, values, claims, str(scale), variant)]
    lines += ["", *(f"- {escape_markdown(note)}" for note in ablation.notes)] if ablation.notes else []
    return "\n".join(lines) + "\n"


def markdown_scale(
    ablation: Ablation, values: pd.DataFrame, claims: pd.DataFrame, scale: str, variant: str = ""
) -> list[str]:
    """Return the lines of one scale: the table, what the scale means, the claims with their verdicts."""
    head = ["row"]
    for title in map(escape_markdown, headings(ablation)):
        head += [f"{title}, paper", f"{title}, measured"]
    lines = [table_line(head), table_line(["---", *["---:"] * (len(head) - 1)])]
    for row in table_lines(ablation, values, scale):
        shown = escape_markdown(row.label)
        lines.append(table_line([f"**{shown}** (default)" if row.default else shown, *row.cells]))
    lines += ["", scale_sentence(scale) + " Measured: mean ± standard deviation (seeds)."]
    lines += [escape_markdown(remark) for remark in remarks(ablation, values, scale, variant)]
    judged = markdown_claims(ablation, claims, scale)
    return [*lines, "", *judged] if judged else lines


def markdown_claims(ablation: Ablation, claims: pd.DataFrame, scale: str) -> list[str]:
    """Return the lines of a table of claims, from those of `reports.tables.claims_table`; none without a claim."""
    judged = claim_lines(ablation, claims, scale)
    if not judged:
        return []
    texts = [(c.claim, c.source, c.verdict, c.evidence) for c in judged]
    lines = [table_line([escape_markdown(text) for text in line]) for line in texts]
    return [table_line(["claim", "source", "verdict", "evidence"]), table_line(["---"] * 4), *lines]


def latex(ablation: Ablation, values: pd.DataFrame, claims: pd.DataFrame, variant: str = "") -> str:
    r"""Return two booktabs `tabular` per scale, values and claims, to be `\input` into a table environment."""
    titles = headings(ablation)
    needs = r"\usepackage{booktabs}, and XeLaTeX for letters that are not Latin"
    blocks = [f"% {' '.join(f'{ablation.name} {variant}'.split())}: needs {needs}"]
    groups = " & ".join(rf"\multicolumn{{2}}{{c}}{{{escape_latex(title)}}}" for title in titles)
    rules = " ".join(rf"\cmidrule(lr){{{2 * i + 2}-{2 * i + 3}}}" for i in range(len(titles)))
    for scale in map(str, values["scale"].unique()):
        lines = [rf"\begin{{tabular}}{{l{'rl' * len(titles)}}}", r"\toprule", rf" & {groups} \\", rules]
        lines += [_row(["row", *["paper & measured"] * len(titles)]), r"\midrule"]
        for row in table_lines(ablation, values, scale):
            shown = escape_latex(row.label)
            lines.append(_row([rf"\textbf{{{shown}}}" if row.default else shown, *map(escape_latex, row.cells)]))
        note = " ".join([scale_sentence(scale), *remarks(ablation, values, scale, variant)])
        note += " Bold: default row." if ablation.default is not None else ""
        sentence = rf"\par\smallskip{{\footnotesize {escape_latex(note)}\par}}"
        blocks.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", sentence]))
        judged = claim_lines(ablation, claims, scale)
        if judged:
            lines = [r"\begin{tabular}{lp{.25\linewidth}lp{.35\linewidth}}", r"\toprule"]
            lines += [_row(["claim", "source", "verdict", "evidence"]), r"\midrule"]
            lines += [_row(map(escape_latex, (c.claim, c.source, c.verdict, c.evidence))) for c in judged]
            blocks.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]))
    return "\n\n".join(blocks) + "\n"


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def table_line(cells: Iterable[str]) -> str:
    """Return the cells of one row of a Markdown table."""
    return f"| {' | '.join(cells)} |"
