"""What the templates of the page show: one object for each table, with every number as the words that stand for it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

import pandas as pd

from reports.ledger import seeds_of
from reports.recommend import sentences
from reports.render.evidence import Evidence
from reports.render.part import Part
from reports.render.phrases import (
    claim_evidence,
    duration,
    headings,
    measured_text,
    number,
    remarks,
    scale_sentence,
    tally,
)
from reports.render.plots import Plot, Point, curve, scatter, strips
from reports.verdicts.judge import VERDICTS

#: More names than this of runs or trainings are counted.
_MOST = 3
#: A sign beside each verdict, so that colour is not all that tells them apart.
SIGNS = {"holds": "✓", "contradicted": "✗", "undecided": "?", "not run": "–"}
#: Verdicts on values look like verdicts on claims.
_KINDS = {"reproduced": "holds", "differs": "contradicted"}


@dataclass(frozen=True)
class Cell:
    """Text, the key that it is sorted by, and a class for its look."""

    text: str
    key: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table: cells as its columns have them, the minutes of one seed, and the command that repeats it."""

    label: str
    default: bool
    cells: tuple[Cell, ...]
    cost: str
    command: str
    seeds: str
    runs: str
    trainings: str


@dataclass(frozen=True)
class Claim:
    """A claim: what stands behind it, and its sort keys."""

    that: str
    source: str
    whose: str
    verdict: str
    corrected: str
    evidence: str
    line: Mapping[Hashable, Any]

    @property
    def difference(self) -> str:
        """The difference, to sort by."""
        return _key(self.line["difference"])

    @property
    def lacking(self) -> str:
        """How many seeds it still needs, to sort by; nothing where that is not known."""
        return "0" if self.verdict in ("holds", "contradicted") else _key(self.line["seeds"] - self.line["n"])

    @property
    def needed(self) -> str:
        """How many seeds it still needs, in words."""
        if self.verdict in ("holds", "contradicted"):
            return "none"
        if pd.isna(self.line["seeds"]):
            return "not known: run two seeds first" if self.line["n"] < 2 else "more than 200"
        cost = "" if pd.isna(self.line["minutes"]) else f", {duration(60 * self.line['minutes'])}"
        return f"{self.line['seeds'] - self.line['n']:.0f} more{cost}"


@dataclass(frozen=True)
class ScaleView:
    """One table at one scale."""

    part: Part
    scale: str

    @cached_property
    def lines(self) -> list[dict[Hashable, Any]]:
        """The cells of this scale, row by row."""
        return self.part.values[self.part.values["scale"] == self.scale].to_dict("records")

    @property
    def sentence(self) -> str:
        """What the scale means, and what else a reader must know."""
        return " ".join(
            [scale_sentence(self.scale), *remarks(self.part.ablation, self.part.values, self.scale, self.part.variant)]
        )

    @property
    def headings(self) -> list[str]:
        """One for each column."""
        return headings(self.part.ablation)

    @property
    def judged(self) -> bool:
        """Whether values have verdicts at this scale."""
        return self.scale == "paper"

    @cached_property
    def rows(self) -> list[Row]:
        """The rows in the order of the paper."""
        return [self._row(label) for label in self.part.ablation.rows]

    @cached_property
    def claims(self) -> list[Claim]:
        """The claims, the paper's first."""
        sources = {entry.that: entry.source for entry in self.part.ablation.claims}
        here = self.part.claims[self.part.claims["scale"] == self.scale].to_dict("records")
        return [
            Claim(
                line["claim"], sources.get(line["claim"], line["whose"]), line["whose"], line["verdict"],
                line["corrected"], claim_evidence(line), line,
            )
            for line in sorted(here, key=lambda line: line["whose"] != "paper")
        ]  # fmt: skip

    @property
    def deviations(self) -> list[dict[Hashable, Any]]:
        """Where the recipe departs from the published one."""
        return self.part.deviations[self.part.deviations["scale"] == self.scale].to_dict("records")

    @property
    def advice(self) -> list[str]:
        """What the seeds say about each setting."""
        return sentences(self.part.advice, self.scale)

    @cached_property
    def evidence(self) -> Evidence:
        """Reconstructions, curves and provenance of the trainings behind it."""
        return Evidence(self.part, self.scale)

    @property
    def command(self) -> str:
        """What measures the whole table again."""
        return self.part.command(self.scale, seeds=max((line["n"] for line in self.lines), default=1))

    @property
    def coverage(self) -> str:
        """How many cells were measured, of how many."""
        return f"{sum(line['n'] > 0 for line in self.lines)} of {len(self.lines)}"

    @property
    def seeds(self) -> str:
        """How many seeds the measured cells have."""
        counts = sorted({line["n"] for line in self.lines if line["n"]})
        return "none" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"

    @property
    def cost(self) -> str:
        """What one seed of every row takes."""
        minutes = [self._minutes(label) for label in self.part.ablation.rows]
        known = [value for value in minutes if value is not None]
        if not known:
            return "not timed"
        missing = len(minutes) - len(known)
        return duration(60 * sum(known)) + (f" ({missing} of {len(minutes)} rows not timed)" if missing else "")

    @property
    def tally(self) -> str:
        """The verdicts, counted."""
        return tally(self.part.claims, self.scale)

    @property
    def verdicts(self) -> list[tuple[str, int]]:
        """The verdicts on claims that occur, and how often."""
        found = [claim.verdict for claim in self.claims]
        return [(verdict, found.count(verdict)) for verdict in VERDICTS if verdict in found]

    @cached_property
    def spark(self) -> tuple[str, tuple[Point, ...], tuple[Point, ...]]:
        """The first column that was measured, else the first: its name, the published and the measured curve."""
        names = list(self.part.ablation.columns)
        run = {line["metric"] for line in self.lines if line["n"]}
        name = next((name for name in names if name in run), names[0])
        here = [line for line in self.lines if line["metric"] == name]
        return (
            self.part.ablation.columns[name].label,
            curve([_known(line["paper"]) for line in here]),
            curve([_known(line["mean"]) for line in here]),
        )

    @property
    def scatter(self) -> list[Plot]:
        """Speed against accuracy, for each column in percent of which two rows were timed."""
        found = []
        for name, column in self.part.ablation.columns.items():
            places = {}
            for line in self.lines:
                minutes = _sum(line["pretraining"], line["minutes"])
                if line["metric"] == name and line["n"] and minutes is not None:
                    places[str(line["row"])] = (minutes, float(line["mean"]))
            if column.unit == "%" and len(places) > 1:
                found.append(scatter(places, "minutes a seed", f"{column.label} (%)"))
        return found

    @property
    def strips(self) -> list[Plot]:
        """The seeds of every row, for each column that has a row with two."""
        found = []
        for name, column in self.part.ablation.columns.items():
            seeds = {line["row"]: seeds_of(line["seeds"]) for line in self.lines if line["metric"] == name}
            if any(len(values) > 1 for values in seeds.values()):
                found.append(strips(seeds, f"{column.label} ({column.unit})"))
        return found

    def _row(self, label: str) -> Row:
        here = [line for line in self.lines if line["row"] == label]
        cells: list[Cell] = []
        for line in here:
            cells.append(Cell(number(line["paper"], published=True), _key(line["paper"])))
            cells.append(Cell(measured_text(line["mean"], line["std"], line["n"]), _key(line["mean"])))
            cells.append(_interval(line))
            if self.judged:
                cells.append(Cell(line["verdict"], line["verdict"], _KINDS.get(line["verdict"], "")))
        minutes, most = self._minutes(label), max((line["n"] for line in here), default=0)
        return Row(
            label,
            label == self.part.ablation.default,
            tuple(cells),
            "not timed" if minutes is None else duration(60 * minutes),
            self.part.command(self.scale, label, most),
            ", ".join(dict.fromkeys(str(seed) for line in here for seed in seeds_of(line["seeds"]))) or "none",
            _names(here, "runs"),
            _names(here, "trainings"),
        )

    def _minutes(self, label: str) -> float | None:
        """Minutes of one seed of a row: pre-training and each evaluation once; None when nothing was timed."""
        here = [line for line in self.lines if line["row"] == label]
        stages = {self.part.ablation.columns[line["metric"]].stage: line["minutes"] for line in here}
        return _sum(*stages.values(), next((line["pretraining"] for line in here if line["n"]), None))


@dataclass(frozen=True)
class PartView:
    """One table, at all of its scales."""

    part: Part

    @property
    def id(self) -> str:
        """The place on the page."""
        return quote(self.part.name)

    @cached_property
    def scales(self) -> list[ScaleView]:
        """One for each scale."""
        return [ScaleView(self.part, scale) for scale in self.part.scales]


def _interval(line: Mapping[Hashable, Any]) -> Cell:
    if pd.isna(line["ci_low"]):
        return Cell("not run" if not line["n"] else "one seed", "")
    width = line["ci_high"] - line["ci_low"]
    return Cell(f"{number(line['ci_low'])} to {number(line['ci_high'])}", f"{width:.6g}")


def _names(lines: Sequence[Mapping[Hashable, Any]], key: str) -> str:
    names = list(dict.fromkeys(word for line in lines for word in line[key].split(";") if word))
    more = f" and {len(names) - _MOST} more, in the CSV file" if len(names) > _MOST else ""
    return (", ".join(names[:_MOST]) + more) or "none"


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None and not pd.isna(value)]
    return sum(known) if known else None


def _known(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


def _key(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.6g}"
