"""Seeds where they decide: trainings are added, seed by seed, to the rows of claims that are not decided yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from experiments.ablation import Ablation, exists
from experiments.plan import FIRST_LOOK, MOST_SEEDS, Job, plan, variant
from reports.verdicts.allocation import Open, Step, Survey, forecast, next_steps, open_claims, survey
from reports.verdicts.sequential import Looks
from reports.verdicts.sharing import Sharing

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Deciding:
    """The tables whose claims are to be decided, at a scale and under the user's overrides."""

    ablations: Sequence[Ablation]
    scale: str
    overrides: tuple[str, ...]
    rows: tuple[str, ...]
    precision: str
    looks: Looks = field(default_factory=lambda: Looks(tuple(range(FIRST_LOOK, MOST_SEEDS + 1))))

    def first(self) -> list[Job]:
        """The trainings of the first look."""
        return self.jobs(self.ablations, range(self.looks.counts[0]), self.rows)

    def jobs(self, ablations: Sequence[Ablation], seeds: Sequence[int], rows: Sequence[str]) -> list[Job]:
        """The trainings of some rows for some seeds."""
        return plan(ablations, self.scale, seeds, self.overrides, rows, self.precision)

    def surveys(self, frame: pd.DataFrame) -> list[Survey]:
        """How every table stands by the measurements in ``frame``."""
        name = variant(self.overrides)
        sharing = Sharing(frame, self.scale, name)
        return [
            survey(ablation, frame, self.scale, sharing, self.looks, name, self._rows(ablation))
            for ablation in self.ablations
        ]

    def _rows(self, ablation: Ablation) -> list[str]:
        rows = [label for label, row in ablation.rows.items() if exists(row, self.scale)]
        return [label for label in rows if not self.rows or label in self.rows]

    def next(self, frame: pd.DataFrame, count: int, seconds: float) -> list[Step]:
        """The ``count`` most informative runs that ``seconds`` allow; none when all is decided."""
        steps = next_steps(self.surveys(frame), self.looks)
        return [step for step in steps if step.minutes * 60 <= seconds][:count]

    def jobs_of(self, steps: Sequence[Step]) -> list[Job]:
        """The trainings behind runs of tables."""
        named = {ablation.name: ablation for ablation in self.ablations}
        jobs: dict[str, Job] = {}
        for step in steps:
            table, row, seed = step.run
            for job in self.jobs([named[table]], [seed], [row]):
                jobs.setdefault(job.fingerprint, job)
        return list(jobs.values())

    def decide(
        self, measured: Callable[[], pd.DataFrame], run: Callable[[Sequence[Job]], None], workers: int, budget: float
    ) -> str:
        """Add seeds until every claim is decided or ``budget`` seconds are spent; say in words how it ended.

        ``measured`` gives the measurements so far, ``run`` does trainings that are not done yet. Started again, it goes
        on from what is measured.
        """
        began = time.monotonic()
        run(self.first())
        while steps := self.next(measured(), workers, budget - (time.monotonic() - began)):
            run(self.jobs_of(steps))
        left = open_claims(self.surveys(measured()), self.looks)
        spent = (time.monotonic() - began) / 60
        if not left:
            return f"every claim is decided, or has had its {self.looks.counts[-1]} seeds, after {spent:.0f} min"
        return f"the budget is spent after {spent:.0f} min; not decided: {_named(left)}"

    def expect(self, frame: pd.DataFrame, workers: int, budget: float) -> str:
        """What a budget is likely to decide, in words."""
        within, beyond = forecast(self.surveys(frame), self.looks, workers * budget / 60)
        return (
            f"of {len(within) + len(beyond)} open claims this budget is likely to bring {len(within)} to a decision"
            f"{f' ({_named(within)})' if within else ''}; {len(beyond)} are left"
            f"{f' ({_named(beyond)})' if beyond else ''}"
        )


def _named(claims: Sequence[Open]) -> str:
    shown = [f"{claim.table}: {claim.judged.claim.text}" for claim in claims[:6]]
    return "; ".join(shown) + (f" and {len(claims) - 6} more" if len(claims) > 6 else "")
