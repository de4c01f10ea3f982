"""Claims: the orderings that a paper states, read from text and judged on paired seeds.

    lin[random 75] > lin[block 75]
    ft[8] - ft[1] < lin[8] - lin[1]
    flops_factor[encoder w/ [M]] > 2

A claim compares two linear expressions with `>` or `<`. A term is a number, a cell `column[row]`,
or `number * cell`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from experiments.spec import nearest
from reports.statistics import summarise

if TYPE_CHECKING:
    from experiments.spec import Ablation

Cell = tuple[str, str]  # (column, row)

_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+")
_CELL = re.compile(r"([A-Za-z_]\w*)\s*\[")
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Claim:
    """Left minus right of a claim, as a sum of weight x cell plus a constant, and the published truth of it.

    `paper` is True when they satisfy the claim, False when they do not, None when one of them is not
    published.
    """

    text: str
    weights: dict[Cell, float]
    constant: float
    operator: str
    paper: bool | None


@dataclass(frozen=True)
class Judgement:
    """Verdict on a claim: holds, contradicted, undecided, or not run.

    `difference` is left minus right, the mean over the n seeds that measured every cell, with its 95%
    t-interval; `leans` says whether that mean satisfies the claim, whatever its interval,
    and is None where it is zero.
    """

    claim: str
    verdict: str
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    n: int
    paper: bool | None
    leans: bool | None


def parse_claim(text: str, ablation: Ablation) -> Claim:
    """Read a claim over the columns and rows of `ablation`; ValueError names the unknown and what is near."""
    reader = _Reader(text, ablation)
    weights: dict[Cell, float] = {}
    constant = reader.expression(weights, 1.0)
    operator = reader.operator()
    constant += reader.expression(weights, -1.0)
    reader.end()
    if not weights:
        raise ValueError(f"Claim {text!r} of ablation {ablation.name} names no cell; write one as column[row].")
    published = [ablation.rows[row].paper.get(column) for column, row in weights]
    difference = constant
    for weight, value in zip(weights.values(), published, strict=True):
        difference += weight * (value or 0.0)
    paper = None if None in published else _satisfied(round(difference, 9), operator)
    return Claim(text, weights, constant, operator, paper)


def judge(claim: Claim, measured: pd.DataFrame) -> Judgement:
    """Judge a claim on `measured`, the frame of `reports.statistics.cells`: paired by seed, 95% t-interval.

    It holds when the whole interval is on the claimed side of zero and is contradicted when the whole
    interval is on the other side. One seed has a difference but no interval, and stays undecided.
    """
    values = measured.set_index(["metric", "row", "seed"])["value"].sort_index()
    total: pd.Series | None = None
    for cell, weight in claim.weights.items():
        term = weight * (values.loc[cell] if cell in values.index else pd.Series(dtype=float))
        total = term if total is None else (total + term).dropna()
    # Nine decimals: seeds that agree exactly must not disagree by the rounding of a subtraction.
    differences = [] if total is None else [round(float(value) + claim.constant, 9) for value in total]
    summary = summarise(differences)
    if summary.n == 0:
        verdict = "not run"
    elif summary.ci_low is None or summary.ci_high is None:
        verdict = "undecided"
    elif _satisfied(summary.ci_low, claim.operator) and _satisfied(summary.ci_high, claim.operator):
        verdict = "holds"
    elif summary.ci_low > 0 or summary.ci_high < 0:
        verdict = "contradicted"
    else:
        verdict = "undecided"
    leans = _satisfied(summary.mean, claim.operator) if summary.mean else None
    interval = (summary.ci_low, summary.ci_high)
    return Judgement(claim.text, verdict, summary.mean, *interval, summary.n, claim.paper, leans)


def _satisfied(difference: float, operator: str) -> bool:
    return difference > 0 if operator == ">" else difference < 0


class _Reader:
    """Reads a claim from left to right; labels may hold brackets and operators, so known rows are matched."""

    def __init__(self, text: str, ablation: Ablation) -> None:
        self.text, self.ablation, self.position = text, ablation, 0
        self.labels = sorted(ablation.rows, key=len, reverse=True)  # the longest label that fits is meant

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Skip space, then consume `pattern` if it stands here."""
        space = _SPACE.match(self.text, self.position)
        start = space.end() if space else self.position
        match = pattern.match(self.text, start)
        if match:
            self.position = match.end()
        return match

    def expression(self, weights: dict[Cell, float], side: float) -> float:
        """Read `term (+|- term)*`, add `side` x its weights to `weights`, return `side` x its constant."""
        constant = 0.0
        sign = self.take(re.compile("[+-]"))
        while True:
            factor = -side if sign and sign.group() == "-" else side
            number = self.take(_NUMBER)
            if number:
                factor *= float(number.group())
            if number and not self.take(re.compile(r"\*")):
                constant += factor
            else:
                cell = self.cell()
                weights[cell] = weights.get(cell, 0.0) + factor
            sign = self.take(re.compile("[+-]"))
            if not sign:
                return constant

    def cell(self) -> Cell:
        """Read `column[row]`."""
        match = self.take(_CELL)
        if not match:
            raise self.error("a cell such as column[row] or a number")
        column = match.group(1)
        where = f"Claim {self.text!r} of ablation {self.ablation.name}"
        if column not in self.ablation.columns:
            raise ValueError(f"{where} names the unknown column {column!r}: {nearest(column, self.ablation.columns)}")
        for label in self.labels:
            if self.text.startswith(label + "]", self.position):
                self.position += len(label) + 1
                return column, label
        label = self.text[self.position :].split("]")[0]
        raise ValueError(f"{where} names the unknown row {label!r}: {nearest(label, self.ablation.rows)}")

    def operator(self) -> str:
        """Read `>` or `<`."""
        match = self.take(re.compile("[<>](?!=)"))
        if not match:
            raise self.error("> or <")
        return match.group()

    def end(self) -> None:
        """Require that nothing is left."""
        if self.text[self.position :].strip():
            raise self.error("the end of the claim")

    def error(self, expected: str) -> ValueError:
        """Return the error for a claim that cannot be read from here on."""
        rest = self.text[self.position :].strip() or "nothing"
        return ValueError(
            f"Claim {self.text!r} of ablation {self.ablation.name} has {rest!r} where {expected} is expected."
        )
