"""Tables as frames and files: the published number beside the measured one for every row and column, and the claims."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from reports.collect import scales_of, stem
from reports.deviations import DEVIATION_COLUMNS, deviations
from reports.files import write_atomically
from reports.ledger import Entry, ledger
from reports.recommend import ADVICE_COLUMNS, recommend
from reports.trainings import SHOWN_COLUMNS, shown
from reports.verdicts.allocation import planned_looks
from reports.verdicts.cells import cells, collapsed, summarise, unreadable
from reports.verdicts.judge import UNDECIDED, judge_table, prior_of_claim
from reports.verdicts.power import minutes_per_seed, seeds_needed, smallest_visible
from reports.verdicts.sharing import Sharing
from reports.verdicts.values import value_verdict

if TYPE_CHECKING:
    from experiments.ablation import Ablation
    from reports.verdicts.judge import Judgement

TABLE_COLUMNS = (
    "row", "metric", "paper", "mean", "std", "n", "ci_low", "ci_high", "scale", "verdict", "unreadable",
    "collapsed", "minutes", "pretraining", "seeds", "trainings", "runs",
)  # fmt: skip
CLAIM_COLUMNS = (
    "claim", "whose", "scale", "verdict", "corrected", "difference", "leans", "ci_low", "ci_high", "level", "n", "p",
    "test", "visible", "seeds", "minutes", "paper",
)  # fmt: skip
#: What the files beside a table end with.
CLAIMS, DEVIATIONS, ADVICE, SHOWN = "_claims", "_deviations", "_advice", "_trainings"
_TABLE_TEXT = ("row", "metric", "scale", "verdict", "seeds", "trainings", "runs")
_COUNTS = ("n", "unreadable", "collapsed")
_CLAIM_TEXT = ("claim", "whose", "scale", "verdict", "corrected", "leans", "test", "paper")


def table(ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "") -> pd.DataFrame:
    """Return one line per row and column of the published table, with the columns `TABLE_COLUMNS`.

    `metric` is the ablation's name of the column. A cell that was not run has n = 0 and an empty mean. `unreadable`
    is the most items that a seed could not read, `collapsed` the number of seeds whose pre-training collapsed. The last
    five are those of `reports.ledger.Entry`.
    """
    measured = cells(ablation, frame, scale, variant)
    lost, fallen = unreadable(ablation, frame, scale, variant), collapsed(ablation, frame, scale, variant)
    behind = ledger(ablation, frame, measured, scale, variant)
    values = {key: part["value"] for key, part in measured.groupby(["row", "metric"])}
    lines: list[tuple[object, ...]] = []
    for label, row in ablation.rows.items():
        for name in ablation.columns:
            found, published = summarise(values.get((label, name), ())), row.paper.get(name)
            verdict = value_verdict(scale, published, found, ablation.columns[name])
            interval = (found.ci_low, found.ci_high)
            numbers = (published, found.mean, found.std, found.n, *interval)
            entry = behind.get((label, name), Entry())
            lines.append((
                label, name, *numbers, scale, verdict, lost.get((label, name), 0), fallen.get(label, 0),
                entry.minutes, entry.pretraining, entry.seeds, entry.trainings, entry.runs,
            ))  # fmt: skip
    return _typed(lines, TABLE_COLUMNS)


def claims_table(ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "") -> pd.DataFrame:
    """Return one line per claim with the columns `CLAIM_COLUMNS`.

    `frame` holds the measurements of all tables, for they share their variances. `whose` is paper or ours. `corrected`
    is the verdict after Holm's correction. `difference` is left minus right of the claim, with its interval at `level`,
    and `leans` towards the claim or against it. `visible` is the smallest difference that these seeds could have seen,
    `seeds` how many are needed in all, `minutes` what those that lack cost. `paper` is yes when the published numbers
    satisfy the claim, no when they do not, and empty when one of them is not published.
    """
    measured, sharing = cells(ablation, frame, scale, variant), Sharing(frame, scale, variant)
    looks = planned_looks(ablation, frame, scale, variant)
    lines: list[tuple[object, ...]] = []
    for one in judge_table(ablation, measured, sharing, looks):
        published = {True: "yes", False: "no", None: ""}[one.claim.paper]
        leans = {True: "towards", False: "against", None: ""}[one.leans]
        seeds = seeds_needed(one, prior_of_claim(one.claim, ablation, sharing)) if one.verdict == UNDECIDED else None
        minutes = None if seeds is None else _minutes(one, seeds, ablation, frame, scale, variant)
        lines.append((
            one.claim.text, "ours" if one.ours else "paper", scale, one.verdict, one.corrected, one.difference, leans,
            one.ci_low, one.ci_high, one.level, one.n, one.p, one.test, smallest_visible(one), seeds, minutes,
            published,
        ))  # fmt: skip
    return _typed(lines, CLAIM_COLUMNS)


def advice(ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "") -> pd.DataFrame:
    """Return what the seeds say about each row against the default row: the lines of `reports.recommend.recommend`."""
    return recommend(ablation, scale, lambda asked: claims_table(asked, frame, scale, variant))


def _minutes(
    one: Judgement, seeds: int, ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str
) -> float | None:
    """Minutes of the seeds that a claim lacks, over its rows; None when one of them was not timed."""
    names, rows = {column for column, _ in one.claim.weights}, {row for _, row in one.claim.weights}
    cost = minutes_per_seed(ablation, frame, scale, variant, names)
    return None if rows - set(cost) else (seeds - one.n) * sum(cost[row] for row in rows)


def all_scales(ablation: Ablation, frame: pd.DataFrame, variant: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return table and claims with every measured scale stacked, or the default scale if nothing was run."""
    scales = scales_of(frame, ablation.name, variant)
    tables = [table(ablation, frame, scale, variant) for scale in scales]
    claims = [claims_table(ablation, frame, scale, variant) for scale in scales]
    return pd.concat(tables, ignore_index=True), pd.concat(claims, ignore_index=True)


def write_tables(ablation: Ablation, frame: pd.DataFrame, folder: Path, variant: str = "") -> list[Path]:
    """Write the table as CSV, JSON, HTML, Markdown and LaTeX into `folder`; return the paths.

    Claims, deviations, advice and the trainings that the page shows are CSV files of their own.
    """
    from reports.render.html import table_page
    from reports.render.markup import latex, markdown
    from reports.render.part import Part

    values, claims = all_scales(ablation, frame, variant)
    scales = scales_of(frame, ablation.name, variant)
    differs = pd.concat([deviations(ablation, scale, variant) for scale in scales])
    says = pd.concat([advice(ablation, frame, scale, variant) for scale in scales])
    trained = pd.concat([shown(ablation, frame, scale, variant) for scale in scales])
    name = stem(ablation.name, variant)
    texts = {
        f"{name}.csv": _csv(values),
        f"{name}{CLAIMS}.csv": _csv(claims),
        f"{name}{DEVIATIONS}.csv": _csv(differs),
        f"{name}{ADVICE}.csv": _csv(says),
        f"{name}{SHOWN}.csv": _csv(trained),
        f"{name}.json": _json(
            ablation, variant, {"cells": values, "claims": claims, "deviations": differs, "advice": says}
        ),
        f"{name}.html": table_page(Part(ablation, variant, values, claims, differs, says)),
        f"{name}.md": markdown(ablation, values, claims, variant),
        f"{name}.tex": latex(ablation, values, claims, variant),
    }
    return [write_atomically(folder / file, text) for file, text in texts.items()]


class ReportError(ValueError):
    """A generated file cannot be read; the message says which and what to do."""

    status = 1  # the exit status of a command that fails so


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file of `write_tables`, with labels such as `8` or `none` left as text.

    ReportError when it has other columns: an earlier version wrote it.
    """
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    ends = {CLAIMS: CLAIM_COLUMNS, DEVIATIONS: DEVIATION_COLUMNS, ADVICE: ADVICE_COLUMNS, SHOWN: SHOWN_COLUMNS}
    columns = next((columns for end, columns in ends.items() if path.stem.endswith(end)), TABLE_COLUMNS)
    if tuple(frame.columns) != columns:
        raise ReportError(
            f"{path} was written by another version, with other columns; the runs are safe: delete {path.parent} and "
            f"run python reports/build.py"
        )
    text = _text(columns)
    lines = [
        [value if name in text else (value or None) for name, value in zip(columns, line, strict=True)]
        for line in frame.to_numpy(dtype=object)
    ]
    return _typed(lines, columns)


def _typed(lines: Sequence[Sequence[object]], columns: tuple[str, ...]) -> pd.DataFrame:
    text = _text(columns)
    types = {name: "str" if name in text else "int64" if name in _COUNTS else "float64" for name in columns}
    frame: pd.DataFrame = pd.DataFrame(list(lines), columns=list(columns)).astype(types)
    return frame


def _text(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the columns hold text."""
    whole = (DEVIATION_COLUMNS, ADVICE_COLUMNS, SHOWN_COLUMNS)
    return columns if columns in whole else _CLAIM_TEXT if columns == CLAIM_COLUMNS else _TABLE_TEXT


def _json(ablation: Ablation, variant: str, frames: Mapping[str, pd.DataFrame]) -> str:
    """Everything of a table as one object; what is not known is null."""
    found: dict[str, object] = {
        "table": ablation.name, "variant": variant, "title": ablation.title, "question": ablation.question,
        "paper": dict(ablation.paper), "default": ablation.default,
    }  # fmt: skip
    for name, frame in frames.items():
        found[name] = json.loads(frame.to_json(orient="records", double_precision=6))
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _csv(frame: pd.DataFrame) -> str:
    text: str = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text
