"""Claims: orderings and equivalences of cells, read from text.

    lin[random 75] > lin[block 75]
    ft[8] - ft[1] < lin[8] - lin[1]
    flops_factor[encoder w/ [M]] > 2
    |ft[8] - ft[1]| < 1

An ordering compares two linear expressions with `>` or `<`. A term is a number, a cell `column[row]`, or
`number * cell`. An equivalence bounds the absolute value of one expression by a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from experiments.ablation import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from experiments.ablation import Ablation

Cell = tuple[str, str]  # (column, row)

_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+")
_CELL = re.compile(r"([A-Za-z_]\w*)\s*\[")
_SPACE = re.compile(r"\s*")
_BAR = re.compile(r"\|")


@dataclass(frozen=True)
class Claim:
    """Left minus right of a claim, as a sum of weight x cell plus a constant, and the published truth of it.

    `margin` is the bound of an equivalence, and None for an ordering. `paper` is True when the published numbers
    satisfy the claim, False when they do not, None when one of them is not published.
    """

    text: str
    weights: dict[Cell, float]
    constant: float
    operator: str
    margin: float | None
    paper: bool | None

    def satisfied(self, difference: float) -> bool:
        """Say whether a difference of left and right that is known exactly satisfies the claim."""
        if self.margin is not None:
            return abs(difference) < self.margin
        return difference > 0 if self.operator == ">" else difference < 0


def parse_claim(text: str, ablation: Ablation) -> Claim:
    """Read a claim over the columns and rows of `ablation`; ValueError names the unknown and what is near."""
    reader = _Reader(text, ablation)
    weights: dict[Cell, float] = {}
    margin = None
    if reader.take(_BAR):
        constant = reader.expression(weights, 1.0)
        reader.expect(_BAR, "| after the expression")
        operator = reader.expect(re.compile("<(?!=)"), "< and a number after |...|")
        margin = float(reader.expect(_NUMBER, "a number that bounds the absolute value"))
    else:
        constant = reader.expression(weights, 1.0)
        operator = reader.expect(re.compile("[<>](?!=)"), "> or <")
        constant += reader.expression(weights, -1.0)
    reader.end()
    if not weights:
        raise ValueError(f"Claim {text!r} of ablation {ablation.name} names no cell; write one as column[row].")
    if margin == 0:
        raise ValueError(f"Claim {text!r} of ablation {ablation.name} has no margin: bound it by a number above 0.")
    claim = Claim(text, weights, constant, operator, margin, None)
    published = [ablation.rows[row].paper.get(column) for column, row in weights]
    if None in published:
        return claim
    difference = constant + sum(w * (value or 0.0) for w, value in zip(weights.values(), published, strict=True))
    return Claim(text, weights, constant, operator, margin, claim.satisfied(round(difference, 9)))


def differences(claim: Claim, measured: pd.DataFrame) -> NDArray[np.float64]:
    """Return left minus right for each seed that measured every cell of the claim, in the order of the seeds.

    `measured` is the frame of `reports.verdicts.cells.cells`.
    """
    values = measured.set_index(["metric", "row", "seed"])["value"].sort_index()
    total: pd.Series | None = None
    for cell, weight in claim.weights.items():
        term = weight * (values.loc[cell] if cell in values.index else pd.Series(dtype=float))
        total = term if total is None else (total + term).dropna()
    # Nine decimals: seeds that agree exactly must not disagree by the rounding of a subtraction.
    found = [] if total is None else [round(float(value) + claim.constant, 9) for value in total.sort_index()]
    return np.asarray(found, dtype=np.float64)


@dataclass(frozen=True)
class Contrast:
    """A claim whose weights cancel whatever all rows of a column share, such as the effect of a seed.

    `columns` holds each column's factor, the first being 1; `size` is the sum of squared weights of the rows. The
    variance of the claim is `size` times that of one row's sum of columns.
    """

    columns: Mapping[str, float]
    size: float


def contrast(claim: Claim) -> Contrast | None:
    """Return the claim as a contrast of rows, the same in each column up to a factor; None when it is none."""
    by_column: dict[str, dict[str, float]] = {}
    for (column, row), weight in claim.weights.items():
        by_column.setdefault(column, {})[row] = weight
    first = next(iter(by_column.values()))
    size = sum(weight**2 for weight in first.values())
    if size == 0 or abs(sum(first.values())) > 1e-9:
        return None
    factors: dict[str, float] = {}
    for column, rows in by_column.items():
        if set(rows) != set(first):
            return None
        factor = sum(rows[row] * first[row] for row in rows) / size
        if any(abs(rows[row] - factor * first[row]) > 1e-9 for row in rows):
            return None
        factors[column] = factor
    return Contrast(factors, size)


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

    def expect(self, pattern: re.Pattern[str], wanted: str) -> str:
        """Read `pattern`, or say what was `wanted`."""
        match = self.take(pattern)
        if not match:
            raise self.error(wanted)
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
