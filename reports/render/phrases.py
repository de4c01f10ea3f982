"""What every rendering of a table says, in the same words: its cells, its claims, its scale, and its remarks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.verdicts.cells import LEVEL
from reports.verdicts.judge import VERDICTS

if TYPE_CHECKING:
    from experiments.ablation import Ablation

_ORIENTATION = "published values are shown for orientation, not comparison"
_SENTENCES = {
    "smoke": f"scale=smoke: proves that the plumbing works and claims nothing; {_ORIENTATION}.",
    "desk": f"scale=desk: a trend on small data; {_ORIENTATION}.",
    "study": f"scale=study: a trend on small data, from longer trainings than desk's; {_ORIENTATION}.",
    "gpu": f"scale=gpu: a trend on public data with one card; {_ORIENTATION}.",
    "day": f"scale=day: a trend on pictures like the paper's, in a day of one card a row; {_ORIENTATION}.",
    "paper": (
        "scale=paper: the published recipe; a value counts as reproduced when its interval over seeds lies within the "
        "column's tolerance of the published number."
    ),
}
#: What the verdicts rest on, for the head of a report.
METHOD = (
    "A claim holds, or is contradicted, when the interval of its paired differences over seeds lies on one side of its "
    "border; else it is undecided. Variances are shared across the tables of a scale (moderated t). Behind a bar "
    "stands the verdict after Holm's correction for the claims of the table, where it is another one."
)


@dataclass(frozen=True)
class Line:
    """A row of a table as text: its label, and published and measured value of each column in turn."""

    label: str
    default: bool
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ClaimLine:
    """A claim as text: whose it is, what is decided by itself and after correction, and what stands behind that."""

    claim: str
    source: str
    verdict: str
    evidence: str

    @property
    def kind(self) -> str:
        """The verdict by itself, in one word where it has one."""
        return self.verdict.partition(" |")[0]


def scale_sentence(scale: str) -> str:
    """Say in one sentence what a measurement at this scale may be used for."""
    return _SENTENCES.get(scale, f"scale={scale}: not the published recipe; {_ORIENTATION}.")


def place(ablation: Ablation) -> str:
    """Say where in which paper the table stands, if it is one of a paper."""
    where, arxiv = (ablation.paper.get(key) for key in ("where", "arxiv"))
    if where is None:
        return "a table of no paper"
    return where if arxiv is None else f"{where} of arXiv {arxiv}"


def remarks(ablation: Ablation, values: pd.DataFrame, scale: str, variant: str = "") -> list[str]:
    """Say in sentences what else a reader of one scale must know: what stands for what, and what could not be read.

    `values` are lines of `reports.tables.table`, of that scale at least. A variant may have data of the user's own.
    """
    found = []
    # long variants are cut short, so the choice of the data may show only in its classes or its source
    own = any(sign in variant for sign in ("data=", "data.classes=", "data.source."))
    if ablation.inputs == "clips" and scale != "paper" and not own:
        found.append(
            "Built-in clips fill this table: their motion labels stand for Something-Something V2, their appearance "
            "labels for Kinetics-400 and the other sets."
        )
    lines = values[(values["scale"] == scale) & (values["unreadable"] > 0)].to_dict("records")
    if lines:
        counts = ", ".join(f"{line['unreadable']} ({line['row']}, {line['metric']})" for line in lines)
        found.append(f"Items that could not be read and were left out: {counts}.")
    fallen = values[(values["scale"] == scale) & (values["collapsed"] > 0)]
    if len(fallen):
        rows = ", ".join(f"{row} ({count} seeds)" for row, count in fallen.groupby("row")["collapsed"].max().items())
        found.append(f"Pre-training collapsed, so that all samples got nearly the same features: {rows}.")
    return found


def headings(ablation: Ablation) -> list[str]:
    """Return the heading of each column, which spans its published and its measured values."""
    return [f"{column.label} ({column.unit})" if column.unit else column.label for column in ablation.columns.values()]


def table_lines(ablation: Ablation, values: pd.DataFrame, scale: str) -> list[Line]:
    """Return the rows of one scale as text, from the lines of `reports.tables.table`, in their order."""
    wide: dict[str, list[str]] = {}
    for line in values[values["scale"] == scale].to_dict("records"):
        verdict = line["verdict"] if scale == "paper" and line["n"] else ""
        measured = f"{measured_text(line['mean'], line['std'], line['n'])} {verdict}".rstrip()
        wide.setdefault(line["row"], []).extend((number(line["paper"], published=True), measured))
    return [Line(label, label == ablation.default, tuple(cells)) for label, cells in wide.items()]


def claim_lines(ablation: Ablation, claims: pd.DataFrame, scale: str) -> list[ClaimLine]:
    """Return the claims of one scale as text, from the lines of `reports.tables.claims_table`, the paper's first."""
    sources = {entry.that: entry.source for entry in ablation.claims}
    here = claims[claims["scale"] == scale].to_dict("records")
    return [
        ClaimLine(line["claim"], sources.get(line["claim"], line["whose"]), _verdict(line), claim_evidence(line))
        for line in sorted(here, key=lambda line: line["whose"] != "paper")
    ]


def tally(claims: pd.DataFrame, scale: str) -> str:
    """Count the verdicts of one scale, those on the paper's claims and those on ours apart."""
    parts = []
    for whose in ("paper", "ours"):
        here = claims[(claims["scale"] == scale) & (claims["whose"] == whose)]
        counts = Counter(here["verdict"])
        found = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        if found:
            parts.append(f"{whose}: {found}")
    return "; ".join(parts) or "none"


def number(value: float, *, published: bool = False) -> str:
    """Return a number for a reader: one decimal or more, as printed, if published; two if measured; else `none`."""
    if pd.isna(value):
        return "none"
    if published:
        return f"{value:.1f}" if round(value, 1) == value else f"{value:g}"
    return f"{value:,.{_decimals(value)}f}"


def measured_text(mean: float, std: float, n: int) -> str:
    """Return `mean ± std (n)` to the same digit, without a spread for one seed; `not run` for none."""
    if n == 0:
        return "not run"
    return f"{number(mean)} (1)" if n == 1 else f"{number(mean)} ± {std:,.{_decimals(mean)}f} ({n})"


def claim_evidence(line: Mapping[Hashable, Any]) -> str:
    """Return what stands behind a verdict, from a line of `reports.tables.claims_table`.

    It says the difference and its side, the interval, n and the test, what the seeds could have seen, what more seeds
    would cost, and what the published numbers say.
    """
    published = {"yes": "the published numbers satisfy it", "no": "the published numbers do not satisfy it"}
    says = published.get(line["paper"], "not all of its numbers are published")
    if line["n"] == 0:
        return says
    side = {"towards": "as claimed", "against": "against the claim"}.get(line["leans"], "neither way")
    parts = [f"difference {line['difference']:+.2f}, {side}"]
    if pd.isna(line["ci_low"]):
        parts[0] += f", {'no interval' if not line['test'] else line['test']}, n={line['n']}"
    else:
        parts[0] += f", {line['level']:.0%} interval {line['ci_low']:+.2f} to {line['ci_high']:+.2f}, n={line['n']}"
        parts[0] += f" ({line['test']})"
        what = "difference" if line["level"] == LEVEL else "margin"
        parts.append(f"smallest visible {what} {number(line['visible'])}")
    if line["verdict"] == "undecided" and not pd.isna(line["seeds"]):
        cost = "" if pd.isna(line["minutes"]) else f" ({duration(60 * line['minutes'])} more)"
        parts.append(f"about {line['seeds']:.0f} seeds to decide{cost}")
    return "; ".join([*parts, says])


def duration(seconds: float) -> str:
    """Return a duration with its two largest units, such as `3 min 12 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _verdict(line: Mapping[Hashable, Any]) -> str:
    same = line["corrected"] == line["verdict"]
    return str(line["verdict"] if same else f"{line['verdict']} | {line['corrected']}")


def _decimals(value: float) -> int:
    size = abs(value)
    return 0 if size >= 1000 else 2 if size >= 0.1 or size == 0 else 1 - floor(log10(size))
