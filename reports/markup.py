"""A table as Markdown and as LaTeX: published beside measured, a block per scale, the default row marked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from reports.tables import claim_evidence, pairs, remarks, scale_sentence

if TYPE_CHECKING:
    from experiments.spec import Ablation

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
    where = f"{ablation.paper['where']} of arXiv {ablation.paper['arxiv']}"
    lines = [f"# {name}", "", f"{escape_markdown(ablation.question)} {escape_markdown(where)}."]
    for scale in values["scale"].unique():
        lines += ["", *markdown_scale(ablation, values, claims, str(scale), variant)]
    lines += ["", *(f"- {escape_markdown(note)}" for note in ablation.notes)] if ablation.notes else []
    return "\n".join(lines) + "\n"


def markdown_scale(
    ablation: Ablation, values: pd.DataFrame, claims: pd.DataFrame, scale: str, variant: str = ""
) -> list[str]:
    """Return the lines of one scale: the table, what the scale means, the claims with their verdicts."""
    head = ["row"]
    for column in ablation.columns.values():
        title = escape_markdown(f"{column.label} ({column.unit})")
        head += [f"{title}, paper", f"{title}, measured"]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for label, row in pairs(values[values["scale"] == scale]).items():
        shown = escape_markdown(label)
        cells = [f"**{shown}** (default)" if label == ablation.default else shown]
        for pair in row.values():
            cells += [pair.paper, f"{pair.measured} {pair.verdict}".rstrip()]
        lines.append(_line(cells))
    lines += ["", scale_sentence(scale) + " Measured: mean ± standard deviation (seeds)."]
    lines += [escape_markdown(remark) for remark in remarks(ablation, values, scale, variant)]
    judged = claims[claims["scale"] == scale].to_dict("records")
    if judged:
        lines += ["", _line(["claim", "verdict", "evidence"]), _line(["---"] * 3)]
        lines += [_line([escape_markdown(c["claim"]), c["verdict"], claim_evidence(c)]) for c in judged]
    return lines


def latex(ablation: Ablation, values: pd.DataFrame, variant: str = "") -> str:
    r"""Return one booktabs `tabular` per scale, to be `\input` into a table environment of a paper."""
    columns = list(ablation.columns.values())
    title = " ".join(f"{ablation.name} {variant}".split())
    blocks = [f"% {title}: needs \\usepackage{{booktabs}}"]
    groups = " & ".join(rf"\multicolumn{{2}}{{c}}{{{escape_latex(f'{c.label} ({c.unit})')}}}" for c in columns)
    rules = " ".join(rf"\cmidrule(lr){{{2 * i + 2}-{2 * i + 3}}}" for i in range(len(columns)))
    for scale in values["scale"].unique():
        lines = [rf"\begin{{tabular}}{{l{'rl' * len(columns)}}}", r"\toprule", rf" & {groups} \\", rules]
        lines += [" & ".join(["row", *["paper & measured"] * len(columns)]) + r" \\", r"\midrule"]
        for label, row in pairs(values[values["scale"] == scale]).items():
            shown = escape_latex(label)
            cells = [rf"\textbf{{{shown}}}" if label == ablation.default else shown]
            for pair in row.values():
                cells += [escape_latex(pair.paper), escape_latex(f"{pair.measured} {pair.verdict}".rstrip())]
            lines.append(" & ".join(cells) + r" \\")
        note = " ".join([scale_sentence(str(scale)), *remarks(ablation, values, str(scale), variant)])
        note += " Bold: default row." if ablation.default is not None else ""
        sentence = rf"\par\smallskip{{\footnotesize {escape_latex(note)}\par}}"
        blocks.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", sentence]))
    return "\n\n".join(blocks) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
