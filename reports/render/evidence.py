"""What stands behind a table's numbers, as the page shows it: reconstructions, training curves, provenance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from reports.deviations import STAGES
from reports.render.part import Part
from reports.render.plots import Point, unit
from reports.trainings import Strip, Training

#: The height in pixels that a tile of a strip has at least.
_TILE = 96
_PLAIN = "Predictions are drawn as they are: no statistics un-normalise them."


@dataclass(frozen=True)
class Pictured:
    """The strip of a row, the training that drew it, and how many times it is enlarged."""

    row: str
    seed: str
    training: str
    strip: Strip

    @property
    def zoom(self) -> int:
        """A whole number, so that pixels stay squares; a strip has two samples below one another."""
        return max(1, round(2 * _TILE / self.strip.png.height))


@dataclass(frozen=True)
class Curve:
    """The loss of a row over its steps, in the unit square of its stage, and in words."""

    row: str
    points: tuple[Point, ...]
    words: str


@dataclass(frozen=True)
class Evidence:
    """What is kept of the trainings that stand for the rows of a table at a scale."""

    part: Part
    scale: str

    @cached_property
    def known(self) -> list[tuple[str, str, str, Training]]:
        """Row, stage, seed and training, for trainings of which something is kept."""
        return [found for found in self._named() if found[3].facts or found[3].curve]

    def _named(self) -> Iterator[tuple[str, str, str, Training]]:
        if len(self.part.shown):
            here = self.part.shown[self.part.shown["scale"] == self.scale]
            for line in here.itertuples():
                yield str(line.row), str(line.stage), str(line.seed), self.part.trainings[str(line.training)]

    @property
    def strips(self) -> list[Pictured]:
        """The reconstructions of each row that has some."""
        return [
            Pictured(row, seed, training.name, training.strip)
            for row, _, seed, training in self.known
            if training.strip is not None
        ]

    @property
    def notes(self) -> list[str]:
        """How predictions were un-normalised: one sentence where all rows have it in common, else one for each."""
        notes = {one.row: f"Predictions are un-normalised by the {one.strip.note}." for one in self.strips}
        notes |= {one.row: _PLAIN for one in self.strips if not one.strip.note}
        if len(set(notes.values())) == 1:
            return list(notes.values())[:1]
        return [f"{row}: {note}" for row, note in notes.items()]

    @property
    def curves(self) -> list[tuple[str, list[Curve]]]:
        """The curves of each stage, all rows of a stage on the same axes."""
        found: dict[str, list[tuple[str, Training]]] = {}
        for row, stage, _, training in self.known:
            if len(training.curve) > 1:
                found.setdefault(stage, []).append((row, training))
        return [(STAGES.get(stage, stage), _curves(rows)) for stage, rows in found.items()]

    @property
    def provenance(self) -> list[str]:
        """Where the trainings come from: code, versions, machine, data; one sentence for each fact."""
        found: dict[str, list[str]] = {}
        for _, _, _, training in self.known:
            for fact, value in training.facts.items():
                if value not in found.setdefault(fact, []):
                    found[fact].append(value)
        if "true" in found.pop("changed since", []):
            found["commit"] = [*found.get("commit", []), "with changes that were not committed"]
        return [f"{fact}: {', '.join(values)}" for fact, values in found.items()]


def _curves(rows: list[tuple[str, Training]]) -> list[Curve]:
    steps = [float(step) for _, training in rows for step, _ in training.curve]
    losses = [loss for _, training in rows for _, loss in training.curve]
    found = []
    for row, training in rows:
        points = tuple(Point(unit(step, steps), unit(loss, losses)) for step, loss in training.curve)
        (_, first), (last_step, last) = training.curve[0], training.curve[-1]
        found.append(Curve(row, points, f"loss {first:.3g} to {last:.3g} in {last_step:,} steps"))
    return found
