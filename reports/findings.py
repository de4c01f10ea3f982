"""Verdicts of all tables, counted: what a reader of the findings wants to see first."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from experiments.ablation import ablation_names, load_ablation
from reports.collect import scales_of
from reports.render.markup import table_line
from reports.tables import claims_table
from reports.verdicts.judge import CONTRADICTED, HOLDS, NOT_RUN, UNDECIDED

_DECISIONS = (HOLDS, CONTRADICTED, UNDECIDED)


def count_verdicts(frame: pd.DataFrame) -> list[str]:
    """Return a Markdown table that counts the verdicts of all tables of the project on the measurements of `frame`.

    A line is a scale, pictures or clips, and whose claims they are. Claims that were not run are left out. One seed is
    run, and decides nothing but columns without chance. Variants are other questions, and are not counted.
    """
    counted: dict[tuple[str, str, str], tuple[Counter[str], Counter[str]]] = {}
    for ablation in map(load_ablation, ablation_names()):
        for scale in scales_of(frame, ablation.name, ""):
            judged = claims_table(ablation, frame, scale)
            for whose, part in judged[judged["verdict"] != NOT_RUN].groupby("whose"):
                alone, corrected = counted.setdefault((scale, ablation.inputs, str(whose)), (Counter(), Counter()))
                alone.update(part["verdict"])
                corrected.update(part["corrected"])
    head = ["scale", "data", "claims of", "run", *_DECISIONS, *(f"{word}, corrected" for word in _DECISIONS)]
    lines = [table_line(head), table_line(["---"] * 3 + ["---:"] * (len(head) - 3))]
    for key, (alone, corrected) in sorted(counted.items(), reverse=True):
        numbers = [alone.total(), *(tally[word] for tally in (alone, corrected) for word in _DECISIONS)]
        lines.append(table_line([*key, *map(str, numbers)]))
    return lines
