"""Which seed to run next: the most informative row per minute, and what a budget is likely to decide."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reports.verdicts.cells import cells
from reports.verdicts.judge import NOT_RUN, UNDECIDED, Judgement, judge_table, prior_of_claim
from reports.verdicts.power import chance, minutes_per_seed, seeds_needed
from reports.verdicts.sequential import Looks

if TYPE_CHECKING:
    import pandas as pd

    from experiments.ablation import Ablation
    from reports.verdicts.moderation import Prior
    from reports.verdicts.sharing import Sharing

#: Name of the measurement, behind that of the stage, that says how many seeds were planned at most.
PLANNED_SEEDS = "/planned_seeds"
#: A training to run: table, row, seed.
Run = tuple[str, str, int]


@dataclass(frozen=True)
class Survey:
    """A table as it stands: its verdicts, the prior behind each, the seeds of its rows, and what a seed costs.

    `seeds` holds the seeds for which each row measured every column; `minutes` the minutes of one seed of a row.
    """

    ablation: Ablation
    judged: Sequence[Judgement]
    priors: Sequence[Prior]
    seeds: Mapping[str, frozenset[int]]
    minutes: Mapping[str, float]


@dataclass(frozen=True)
class Open:
    """An undecided claim: the seeds at which it is likely to be decided, the runs that lack, their cost in minutes.

    `chance` is the probability that it is then decided, if the present mean is the truth; None before there is one.
    """

    table: str
    judged: Judgement
    target: int
    chance: float | None
    missing: tuple[Run, ...]
    minutes: float

    @property
    def rate(self) -> float:
        """Decisions per minute. A claim of which nothing is known yet is given an even chance."""
        return (0.5 if self.chance is None else self.chance) / max(self.minutes, 1e-9)


@dataclass(frozen=True)
class Step:
    """A run that undecided claims wait for: `rate` is the decisions per minute of them all."""

    run: Run
    minutes: float
    rate: float
    claims: tuple[str, ...] = field(default=())


def planned_looks(ablation: Ablation, frame: pd.DataFrame, scale: str, variant: str = "") -> Looks | None:
    """Return the looks of a table whose seeds were added until something was decided, or None where they were fixed.

    A training that was run for such a plan measures `<stage>/planned_seeds`, the most seeds that the plan allowed.
    """
    here = (frame["ablation"] == ablation.name) & (frame["variant"] == variant) & (frame["scale"] == scale)
    planned = frame.loc[here & frame["metric"].str.endswith(PLANNED_SEEDS), "value"]
    return None if planned.empty or planned.max() < 2 else Looks(tuple(range(2, int(planned.max()) + 1)))


def survey(
    ablation: Ablation,
    frame: pd.DataFrame,
    scale: str,
    sharing: Sharing,
    looks: Looks,
    variant: str = "",
    rows: Collection[str] | None = None,
) -> Survey:
    """Judge a table at its looks and count the seeds of `rows`, those that exist at this scale (default: all).

    `frame` holds the measurements of all tables.
    """
    measured = cells(ablation, frame, scale, variant)
    judged = judge_table(ablation, measured, sharing, looks)
    priors = [prior_of_claim(one.claim, ablation, sharing) for one in judged]
    found: dict[str, set[int]] = {}
    for row, lines in measured.groupby("row"):
        kinds = lines.groupby("seed")["metric"].nunique()
        found[str(row)] = {int(seed) for seed in kinds[kinds == kinds.max()].index}
    seeds = {row: frozenset(found.get(row, set())) for row in (ablation.rows if rows is None else rows)}
    return Survey(ablation, judged, priors, seeds, minutes_per_seed(ablation, frame, scale, variant))


def open_claims(surveys: Sequence[Survey], looks: Looks) -> list[Open]:
    """Return the claims that are not decided after correction, have looks left and can be run, in their order."""
    return [
        _open(one, judged, prior, looks)
        for one in surveys
        for judged, prior in zip(one.judged, one.priors, strict=True)
        if judged.corrected in (UNDECIDED, NOT_RUN) and judged.n < looks.counts[-1]
        if all(row in one.seeds for _, row in judged.claim.weights)
    ]


def next_steps(surveys: Sequence[Survey], looks: Looks) -> list[Step]:
    """Return the runs that undecided claims wait for, the most informative per minute first; none when all are decided.

    A row is never run ahead of the others of its claim: only the next seed that a claim lacks is a step.
    """
    waiting: dict[Run, list[Open]] = {}
    for claim in open_claims(surveys, looks):
        if claim.missing:
            seed = min(seed for _, _, seed in claim.missing)
            for run in claim.missing:
                if run[2] == seed:
                    waiting.setdefault(run, []).append(claim)
    cost = {one.ablation.name: one for one in surveys}
    steps = [
        Step(
            run, _minutes(cost[run[0]], run[1]), sum(c.rate for c in claims), tuple(c.judged.claim.text for c in claims)
        )
        for run, claims in waiting.items()
    ]
    return sorted(steps, key=lambda step: (-step.rate, step.run[2], step.run))


def forecast(surveys: Sequence[Survey], looks: Looks, budget: float) -> tuple[list[Open], list[Open]]:
    """Return the undecided claims that `budget` minutes are likely to decide, in order, and those that they are not.

    Claims with the most decisions per minute come first. A run that several claims wait for is paid once.
    """
    left = open_claims(surveys, looks)
    cost = {one.ablation.name: one for one in surveys}
    within: list[Open] = []
    paid: set[Run] = set()
    spent = 0.0
    for claim in sorted(left, key=lambda one: -one.rate):
        price = sum(_minutes(cost[run[0]], run[1]) for run in set(claim.missing) - paid)
        if spent + price <= budget:
            spent += price
            paid |= set(claim.missing)
            within.append(claim)
    return within, [claim for claim in left if claim not in within]


def _open(one: Survey, judged: Judgement, prior: Prior, looks: Looks) -> Open:
    rows = sorted({row for _, row in judged.claim.weights})
    common = frozenset.intersection(*(one.seeds[row] for row in rows))
    most = looks.counts[-1]
    first = min(count for count in looks.counts if count > len(common)) if len(common) < most else most
    unknown = judged.spread is None or judged.difference is None
    target = first if unknown else max(first, min(seeds_needed(judged, prior) or most, most))
    added = [seed for seed in range(target + len(common)) if seed not in common][: target - len(common)]
    missing = tuple((one.ablation.name, row, seed) for seed in added for row in rows if seed not in one.seeds[row])
    minutes = sum(_minutes(one, row) for _, row, _ in missing)
    return Open(one.ablation.name, judged, target, chance(judged, prior, target), missing, minutes)


def _minutes(one: Survey, row: str) -> float:
    """Minutes of one seed of a row: its own, or the mean of its table, or one where nothing was timed."""
    known = list(one.minutes.values())
    return one.minutes.get(row, sum(known) / len(known) if known else 1.0)
