"""Trials of a search as they are reported: what was tried, and what each seed measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.searching.declared import Point


@dataclass(frozen=True)
class Result:
    """What one seed of a trial measured, in how many seconds of training, and the run that holds it."""

    seed: int
    value: float
    seconds: float
    fingerprint: str
    run_id: str


@dataclass(frozen=True)
class Trial:
    """A finished trial: ``suggested`` by the sampler, ``point`` computed for it; no results where training diverged.

    ``front`` says that no other trial is better in every objective.
    """

    number: int
    suggested: Point
    point: Point
    results: tuple[Result, ...]
    reason: str = ""
    front: bool = False

    @property
    def mean(self) -> float | None:
        """Mean of the metric over seeds."""
        return _mean([result.value for result in self.results])

    @property
    def seconds(self) -> float | None:
        """Mean over seeds of the seconds spent in the steps of its trainings."""
        return _mean([result.seconds for result in self.results])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The trial with the highest mean, the earliest of equals; None when none was measured."""
    return max((t for t in trials if t.mean is not None), key=lambda t: (t.mean or 0.0, -t.number), default=None)
