"""How long jobs take on this machine, by what earlier runs took."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.ablation import SpecError
from experiments.plan import Job

if TYPE_CHECKING:
    from mlflow.entities import Run


_UNITS = {"h": 3600.0, "min": 60.0, "": 60.0, "s": 1.0}


def seconds_of(text: str) -> float:
    """A budget such as ``2h``, ``90min`` or ``90`` (minutes) in seconds; SpecError if it is none."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(h|min|s|)", text.strip())
    if match is None or float(match.group(1)) <= 0:
        raise SpecError(f"budget={text}: give a time above 0, as in budget=2h or budget=90min")
    return float(match.group(1)) * _UNITS[match.group(2)]


@dataclass(frozen=True)
class Pace:
    """How fast jobs go here: FLOP per second of one process, by stage and for any other, and how many run at a time."""

    of_stage: Mapping[str, float]
    of_others: float
    workers: int = 1

    def seconds(self, jobs: Iterable[Job]) -> float:
        """How long ``jobs`` take together if no process is ever idle."""
        return sum(job.flops / self.of_stage.get(job.stage, self.of_others) for job in jobs) / self.workers

    def describe(self, jobs: Sequence[Job]) -> str:
        """The time that ``jobs`` take, and the rate behind it, in words."""
        seconds = self.seconds(jobs)
        rate = sum(job.flops for job in jobs) / seconds / 1e9
        source = "as earlier runs went" if self.of_stage else "as a matrix product suggests"
        return f"about {seconds / 60:.0f} min on this machine, at {rate:.0f} GFLOP/s, {source}"


def pace_of(finished: Mapping[str, Run], scale: str, workers: int = 1) -> Pace:
    """The pace of finished runs of a scale; where there are none, what a matrix product suggests."""
    import numpy as np

    rates: dict[str, list[float]] = {}
    for run in finished.values():
        stage = run.data.tags["stage"]
        if run.data.tags["scale"] == scale and (rate := run.data.metrics.get(f"{stage}/gflops_per_second")):
            rates.setdefault(stage, []).append(1e9 * rate)
    if rates:
        usual = float(np.median([rate for found in rates.values() for rate in found]))
        return Pace({stage: float(np.median(found)) for stage, found in rates.items()}, usual, workers)
    size = 768
    left, right = np.ones((size, size), np.float32), np.ones((size, size), np.float32)
    left @ right
    start = time.perf_counter()
    for _ in range(10):
        left @ right
    together = 0.5 * 10 * 2 * size**3 / (time.perf_counter() - start)
    return Pace({}, together / workers, workers)
