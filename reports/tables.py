"""Tables: the published number beside the measured one, for every row and column, run or not."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reports.claims import judge, parse_claim
from reports.collect import scales_of, stem
from reports.files import write_atomically
from reports.statistics import LEVEL, cells, summarise, unreadable, value_verdict

if TYPE_CHECKING:
    from experiments.spec import Ablation

TABLE_COLUMNS = ("row", "metric", "paper", "mean", "std", "n", "ci_low", "ci_high", "scale", "verdict", "unreadable")
CLAIM_COLUMNS = ("claim", "scale", "verdict", "difference", "leans", "ci_low", "ci_high", "n", "paper")
_TABLE_TEXT = ("row", "metric", "scale", "verdict")
_COUNTS = ("n", "unreadable")
_CLAIM_TEXT = ("claim", "scale", "verdict", "leans", "paper")

_ORIENTATION = "published values are shown for orientation, not comparison"
_SENTENCES = {
    "smoke": f"scale=smoke: proves that the plumbing works and claims nothing; {_ORIENTATION}.",
    "desk": f"scale=desk: a trend on small data; {_ORIENTATION}.",
    "gpu": f"scale=gpu: a trend on public data with one card; {_ORIENTATION}.",
    "paper": (
        "scale=paper: the published recipe; a value counts as reproduced when the published number, to its "
        f"rounding, lies in the {LEVEL:.0%} interval over at least two seeds."
    ),
}


def scale_sentence(scale: str) -> str:
    """Say in one sentence what a measurement at this scale may be used for."""
    return _SENTENCES.get(scale, f"scale={scale}: not the published recipe; {_ORIENTATION}.")


def remarks(ablation: Ablation, values: pd.DataFrame, scale: str, variant: str = "") -> list[str]:
    """Say in sentences what else a reader of one scale must know: what stands for what, and what could not be read.

    `values` are lines of `table`, of that scale at least. A variant may have data of the user's own.
    """
    found = []
    # long variants are cut short, so the choice of the data may show only in its classes or its source
    own = any(sign in variant for sign in ("data=", "data.classes=", "data.source."))
    if ablation.method == "videomae" and scale != "paper" and not own:
        found.append(
            "Built-in clips fill this table: their motion labels stand for Something-Something V2, their appearance "
            "labels for Kinetics-400 and the other sets."
        )
    lines = values[(values["scale"] == scale) & (values["unreadable"] > 0)].to_dict("records")
    if lines:
        counts = ", ".join(f"{line['unreadable']} ({line['row']}, {line['metric']})" for line in lines)
        found.append(f"Items that could not be read and were left out: {counts}.")
    return found


def table(ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "") -> pd.DataFrame:
    """Return one line per row and column of the published table, with the columns `TABLE_COLUMNS`.

    `metric` is the ablation's name of the column. A cell that was not run has n = 0 and an empty mean. `unreadable`
    is the most items that a seed could not read.
    """
    measured = cells(ablation, frame, scale, variant)
    lost = unreadable(ablation, frame, scale, variant)
    lines: list[tuple[object, ...]] = []
    for label, row in ablation.rows.items():
        for name in ablation.columns:
            here = measured.loc[(measured["row"] == label) & (measured["metric"] == name), "value"]
            found, published = summarise(here), row.paper.get(name)
            verdict = value_verdict(scale, published, found)
            interval = (found.ci_low, found.ci_high)
            numbers = (published, found.mean, found.std, found.n, *interval)
            lines.append((label, name, *numbers, scale, verdict, lost.get((label, name), 0)))
    return _typed(lines, TABLE_COLUMNS)


def claims_table(ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "") -> pd.DataFrame:
    """Return one line per claim with the columns `CLAIM_COLUMNS`.

    `difference` is left minus right of the claim, and `leans` towards the claim or against it; `paper` is yes when the
    published numbers satisfy it, no when they do not, and empty when one of them is not published.
    """
    measured = cells(ablation, frame, scale, variant)
    lines: list[tuple[object, ...]] = []
    for text in ablation.claims:
        found = judge(parse_claim(text, ablation), measured)
        published = {True: "yes", False: "no", None: ""}[found.paper]
        leans = {True: "towards", False: "against", None: ""}[found.leans]
        interval = (found.ci_low, found.ci_high)
        lines.append((text, scale, found.verdict, found.difference, leans, *interval, found.n, published))
    return _typed(lines, CLAIM_COLUMNS)


def all_scales(ablation: Ablation, frame: pd.DataFrame, variant: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return table and claims with every measured scale stacked, or the default scale if nothing was run."""
    scales = scales_of(frame, ablation.name, variant)
    tables = [table(ablation, frame, scale, variant) for scale in scales]
    claims = [claims_table(ablation, frame, scale, variant) for scale in scales]
    return pd.concat(tables, ignore_index=True), pd.concat(claims, ignore_index=True)


def write_tables(ablation: Ablation, frame: pd.DataFrame, folder: Path, variant: str = "") -> list[Path]:
    """Write the table as CSV, Markdown and LaTeX, its claims as CSV, into `folder`; return the four paths."""
    from reports.markup import latex, markdown

    values, claims = all_scales(ablation, frame, variant)
    name = stem(ablation.name, variant)
    texts = {
        f"{name}.csv": _csv(values),
        f"{name}_claims.csv": _csv(claims),
        f"{name}.md": markdown(ablation, values, claims, variant),
        f"{name}.tex": latex(ablation, values, variant),
    }
    return [write_atomically(folder / file, text) for file, text in texts.items()]


class ReportError(ValueError):
    """A generated file cannot be read; the message says which and what to do."""


def read_table(path: Path) -> pd.DataFrame:
    """Read a table or claims file of `write_tables`, with labels such as `8` or `none` left as text.

    ReportError when it has other columns: an earlier version wrote it.
    """
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    columns = CLAIM_COLUMNS if "claim" in frame.columns else TABLE_COLUMNS
    if tuple(frame.columns) != columns:
        raise ReportError(
            f"{path} was written by another version, with other columns; the runs are safe: delete {path.parent} and "
            f"run python reports/build.py"
        )
    text = _CLAIM_TEXT if columns == CLAIM_COLUMNS else _TABLE_TEXT
    lines = [
        [value if name in text else (value or None) for name, value in zip(columns, line, strict=True)]
        for line in frame.to_numpy(dtype=object)
    ]
    return _typed(lines, columns)


@dataclass(frozen=True)
class Pair:
    """One cell as text: published value, measured value, and the verdict where the scale allows one."""

    paper: str
    measured: str
    verdict: str


def pairs(values: pd.DataFrame) -> dict[str, dict[str, Pair]]:
    """Return `row -> column -> Pair` for the lines of one scale, in the order of the table."""
    wide: dict[str, dict[str, Pair]] = {}
    for line in values.to_dict("records"):
        verdict = line["verdict"] if line["scale"] == "paper" and line["n"] else ""
        pair = Pair(
            number(line["paper"], published=True),
            measured_text(line["mean"], line["std"], line["n"]),
            verdict,
        )
        wide.setdefault(line["row"], {})[line["metric"]] = pair
    return wide


def number(value: float, *, published: bool = False) -> str:
    """Return a number for a reader: one decimal or more, as printed, if published; two if measured."""
    if pd.isna(value):
        return "–"
    if published:
        return f"{value:.1f}" if round(value, 1) == value else f"{value:g}"
    return f"{value:,.{_decimals(value)}f}"


def measured_text(mean: float, std: float, n: int) -> str:
    """Return `mean ± std (n)` to the same digit, without a spread for one seed; `not run` for none."""
    if n == 0:
        return "not run"
    return f"{number(mean)} (1)" if n == 1 else f"{number(mean)} ± {std:,.{_decimals(mean)}f} ({n})"


def _decimals(value: float) -> int:
    size = abs(value)
    return 0 if size >= 1000 else 2 if size >= 0.1 or size == 0 else 1 - floor(log10(size))


def claim_evidence(line: Mapping[Hashable, Any]) -> str:
    """Return what stands behind a verdict: difference and its side, interval, n, what the published numbers say."""
    published = {"yes": "the published numbers satisfy it", "no": "the published numbers do not satisfy it"}
    says = published.get(line["paper"], "not all of its numbers are published")
    if line["n"] == 0:
        return says
    interval = "no interval"
    if not pd.isna(line["ci_low"]):
        interval = f"{LEVEL:.0%} interval {line['ci_low']:+.2f} to {line['ci_high']:+.2f}"
    side = {"towards": "as claimed", "against": "against the claim"}.get(line["leans"], "neither way")
    return f"difference {line['difference']:+.2f}, {side}, {interval}, n={line['n']}; {says}"


def render_text(
    ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "", elapsed: float | None = None
) -> str:
    """Return the table of one scale for a terminal, then its claims, then what the scale means.

    Each column shows the published value, then the measured `mean ± std (n)`; `*` marks the default row.
    `elapsed` is in seconds.
    """
    values = table(ablation, frame, scale, variant)
    wide = pairs(values)
    labels = {label: f"{label} *" if label == ablation.default else label for label in wide}
    head, body = [[""], ["row"]], [[labels[label]] for label in wide]
    for name, column in ablation.columns.items():
        head[0] += [f"{column.label} ({column.unit})", ""]
        head[1] += ["paper", "measured"]
        for line, row in zip(body, wide.values(), strict=True):
            line += [row[name].paper, f"{row[name].measured} {row[name].verdict}".rstrip()]
    # A heading spans its two columns, so it widens the second only by what the first leaves over.
    widths = [max(len(line[i]) for line in [head[1], *body]) for i in range(len(head[1]))]
    for i in range(1, len(widths), 2):
        widths[i + 1] = max(widths[i + 1], len(head[0][i]) - widths[i] - 2)
    top = "  ".join(
        [
            " " * widths[0],
            *(head[0][i].ljust(widths[i] + widths[i + 1] + 2) for i in range(1, len(widths), 2)),
        ]
    )
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head[1], *body]]
    rule = "-" * max(len(line.rstrip()) for line in [top, *rows])
    where = f"{ablation.paper['where']} of arXiv {ablation.paper['arxiv']}"
    lines = [f"{ablation.title} ({where}){f', variant {variant}' if variant else ''}", ablation.question, ""]
    lines += [top, rows[0], rule, *rows[1:], rule]
    if ablation.default is not None:
        lines.append("* default row; measured: mean ± standard deviation (seeds)")
    claims = claims_table(ablation, frame, scale, variant).to_dict("records")
    if claims:
        lines += ["", "claims of the paper"]
        width = max(len(claim["verdict"]) for claim in claims)
        for claim in claims:
            lines.append(f"  {claim['verdict']:<{width}}  {claim['claim']}")
            lines.append(f"  {'':{width}}  {claim_evidence(claim)}")
    lines += ["", scale_sentence(scale), *remarks(ablation, values, scale, variant)]
    if elapsed is not None:
        lines.append(f"Took {duration(elapsed)}.")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def duration(seconds: float) -> str:
    """Return a duration with its two largest units, such as `3 min 12 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _typed(lines: Sequence[Sequence[object]], columns: tuple[str, ...]) -> pd.DataFrame:
    text = _CLAIM_TEXT if columns == CLAIM_COLUMNS else _TABLE_TEXT
    types = {name: "str" if name in text else "int64" if name in _COUNTS else "float64" for name in columns}
    frame: pd.DataFrame = pd.DataFrame(list(lines), columns=list(columns)).astype(types)
    return frame


def _csv(frame: pd.DataFrame) -> str:
    text: str = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    return text
