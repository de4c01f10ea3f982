"""What the seeds say about each setting: what differs from the default row, what does not matter, what is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from experiments.claim_entry import ClaimEntry
from reports.render.phrases import duration, number
from reports.verdicts.judge import CONTRADICTED, HOLDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from experiments.ablation import Ablation

ADVICE_COLUMNS = ("scale", "row", "column", "what", "words")
DIFFERS, EQUAL, OPEN = "differs", "does not matter", "open"
#: Rows that lie within so many points of the default row do not matter: the margin of the papers' own equivalences.
MARGIN = 1.0
_LEADS = {
    DIFFERS: "Differs from the default, with support of the seeds",
    EQUAL: f"Does not matter here (within {MARGIN:g} point of the default)",
    OPEN: "Open",
}


def recommend(ablation: Ablation, scale: str, judged: Callable[[Ablation], pd.DataFrame]) -> pd.DataFrame:
    """Return a line for each measured row and column in percent, the default row left out, with `ADVICE_COLUMNS`.

    `judged` returns the lines of `reports.tables.claims_table` for a table with other claims. Both questions, whether a
    row differs and whether it is as good, are corrected for all rows and columns of the table by Holm's method.
    """
    default = ablation.default
    pairs = [
        (row, name)
        for name, column in ablation.columns.items()
        for row in ablation.rows
        if column.unit == "%" and default is not None and row != default
    ]
    lines: list[tuple[str, ...]] = []
    if pairs:
        forms = ("{n}[{r}] > {n}[{d}]", f"|{{n}}[{{r}}] - {{n}}[{{d}}]| < {MARGIN:g}")
        differs, equal = (
            judged(replace(ablation, claims=_asked(form, pairs, str(default)))).to_dict("records") for form in forms
        )
        for (row, name), one, same in zip(pairs, differs, equal, strict=True):
            if not one["n"]:
                continue
            place = f"{row}, {ablation.columns[name].label}"
            if one["corrected"] in (HOLDS, CONTRADICTED):
                side = "higher" if one["difference"] > 0 else "lower"
                interval = "" if pd.isna(one["ci_low"]) else f", {number(one['ci_low'])} to {number(one['ci_high'])}"
                what, words = DIFFERS, f"{place}: {number(abs(one['difference']))} {side} (n={one['n']}{interval})"
            elif same["corrected"] == HOLDS:
                what, words = EQUAL, f"{place} (n={one['n']})"
            elif pd.isna(one["seeds"]):
                why = "run two seeds first" if one["n"] < 2 else "more than 200 seeds would be needed"
                what, words = OPEN, f"{place}: {why}"
            else:
                cost = "" if pd.isna(one["minutes"]) else f", {duration(60 * one['minutes'])}"
                what, words = OPEN, f"{place}: about {max(one['seeds'] - one['n'], 0):.0f} more seeds{cost}"
            lines.append((scale, row, name, what, words))
    frame: pd.DataFrame = pd.DataFrame(lines, columns=list(ADVICE_COLUMNS)).astype("str")
    return frame


def _asked(form: str, pairs: Sequence[tuple[str, str]], default: str) -> tuple[ClaimEntry, ...]:
    """One claim of ours for each row and column."""
    return tuple(ClaimEntry(form.format(n=name, r=row, d=default), ours=True, why="advice") for row, name in pairs)


def sentences(advice: pd.DataFrame, scale: str) -> list[str]:
    """Return the lines of one scale as three sentences at most; what is open for the same reason is said once.

    The scale smoke, which claims nothing, recommends nothing.
    """
    if scale == "smoke":
        return []
    here = advice[advice["scale"] == scale]
    found = []
    for what, lead in _LEADS.items():
        words = here.loc[here["what"] == what, "words"].tolist()
        if words:
            found.append(f"{lead}: {'; '.join(_grouped(words))}.")
    return found


def _grouped(words: Sequence[str]) -> list[str]:
    """Put what ends in the same reason together."""
    places: dict[str, list[str]] = {}
    for word in words:
        place, _, reason = word.rpartition(": ")
        places.setdefault(reason if place else "", []).append(place or word)
    return [f"{'; '.join(names)}: {reason}" if reason else "; ".join(names) for reason, names in places.items()]
