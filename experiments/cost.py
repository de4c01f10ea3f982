"""How long jobs take on this machine, by what earlier runs took."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from experiments.ablation import SpecError
from experiments.plan import Job

if TYPE_CHECKING:
    from experiments.record import Record


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


def pace_of(finished: Mapping[str, Record], scale: str, workers: int = 1) -> Pace:
    """The pace of finished runs of a scale; where there are none, what a matrix product suggests."""
    rates: dict[str, list[float]] = {}
    for run in finished.values():
        if run.scale == scale and (rate := run.results.get(f"{run.stage}/gflops_per_second")):
            rates.setdefault(run.stage, []).append(1e9 * rate)
    if rates:
        usual = median(rate for found in rates.values() for rate in found)
        return Pace({stage: median(found) for stage, found in rates.items()}, usual, workers)
    return Pace({}, product_rate() / workers, workers)


#: Seconds for which products are timed, and the side of their matrices: one takes a few milliseconds, so that on a busy
#: machine some find the cores free.
TIMED, SIDE = 0.3, 512


def product_rate(clock: Callable[[], float] = time.perf_counter) -> float:
    """Half of the FLOP per second of the fastest of several products of matrices: what a training may reach.

    Others on this machine make a product slow, and nothing makes it fast. ``clock`` tells seconds.
    """
    import numpy as np

    left, right = np.ones((SIDE, SIDE), np.float32), np.ones((SIDE, SIDE), np.float32)
    left @ right  # the first one wakes the threads
    begun = then = clock()
    fastest = math.inf
    while then - begun < TIMED or fastest == math.inf:
        left @ right
        now = clock()
        fastest, then = min(fastest, now - then), now
    return 0.5 * 2 * SIDE**3 / fastest
