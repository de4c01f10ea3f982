"""The study behind a search: the only file that imports Optuna.

Optuna keeps the trials, chooses the points, notices that a process has died (its heartbeat) and queues the trial anew.
What it has nothing for is here: that processes which ask at once never make more trials than are wanted, and that a
process which has nothing to ask for looks after the trials of others.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, OptunaError, StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from experiments.ablation import SpecError
from experiments.remember import fingerprint
from experiments.searching.address import cause, shown
from experiments.searching.declared import Parameter, Point
from experiments.searching.space import Space
from experiments.searching.trials import Result, Trial
from mae.disk import locked
from mae.errors import NotFinite, UserError

#: Seconds between two signs of life of a trial that is being made, and after how many without one it counts as dead.
HEARTBEAT, GRACE = 10, 60

#: How often a trial is queued anew whose process has died, before another point takes its place.
RETRIES = 3

#: Seconds between two looks at the trials of other processes.
POLL = 2.0

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

log = logging.getLogger(__name__)


class StorageAway(UserError, RuntimeError):
    """The database of a study does not answer any more."""


#: What makes a trial of a number and a point; it raises NotFinite where training diverges.
Make = Callable[[int, Point], Sequence[Result]]


class Study:
    """Trials over a space, shared by any number of processes and machines that reach its database."""

    def __init__(
        self,
        name: str,
        url: str,
        out: Path,
        space: Space,
        computes: str,
        objectives: Sequence[str],
        sampler: str = "tpe",
    ) -> None:
        """Open or create the study ``name`` in the database ``url``.

        ``computes`` names what its first trial computes. The first of the ``objectives`` is maximised, a second one
        minimised. SpecError if the database cannot be opened, or holds a study of this name that searches something
        else.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name, self.space, self.url = name, space, url
        self._several, grid = len(objectives) > 1, sampler == "grid"
        self._points = space.grid() if grid else list(space.first)
        self.most = len(self._points) if grid else None
        self._seen: set[int] = set()
        with locked(out / "locks" / "studies"), _opening(url):
            self._storage = _storage_at(url)
            how: dict[str, Any] = {
                "storage": self._storage,
                "study_name": name,
                "sampler": _Seeded(name, "random" if grid else sampler, len(space.parameters)),
            }
            try:
                self._study = optuna.create_study(directions=["maximize", "minimize"][: len(objectives)], **how)
                new = True
            except optuna.exceptions.DuplicatedStudyError:
                self._study = optuna.load_study(**how)
                new = False
            ranges = [_identity(p) for p in space.parameters]
            points = "those of the grid" if grid else "the sampler's"
            self._agree({"ranges": ranges, "points": points, "objectives": list(objectives), "runs": computes}, new)

    @property
    def shown(self) -> str:
        """The address of its database without a password."""
        return shown(self.url)

    def _agree(self, ours: Mapping[str, Any], new: bool) -> None:
        """Queue what comes first in a ``new`` study, and write what it searches; SpecError if an old one searches
        something else. Who finds a study that says nothing yet waits for its maker, and does its part if it has died.
        """
        until = time.monotonic() + GRACE
        while not new and "searches" not in self._study.user_attrs and not self._trials(*FINISHED):
            new = time.monotonic() > until
            time.sleep(0.1)
        if new:
            for point in self._points:
                self._study.enqueue_trial(dict(point), skip_if_exists=True)
            with _quiet():
                self._study.set_metric_names(ours["objectives"])  # for people who look at it
            self._study.set_user_attr("searches", ours)
        theirs = self._study.user_attrs.get("searches", {})
        for key, value in ours.items():
            if theirs.get(key) != value:
                there = f" ({'; '.join(theirs.get(key, ['none']))})" if key == "ranges" else ""
                raise SpecError(
                    f"the study {self.name} in {self.shown} has other {key}{there}: give this one another name, "
                    f"study=NAME, or ask for what that one searches"
                )

    def trials(self) -> list[Trial]:
        """The finished trials, in order."""
        with self._answering():
            front = {trial.number for trial in self._study.best_trials}
            return [
                Trial(
                    number=trial.number,
                    suggested=trial.params,
                    point=trial.user_attrs["point"],
                    results=tuple(Result(*result) for result in trial.user_attrs.get("results", ())),
                    reason=trial.user_attrs.get("reason", ""),
                    front=trial.number in front,
                )
                for trial in self._trials(*FINISHED)
            ]

    def run(self, total: int, make: Make, waiting: Callable[[int], None]) -> None:
        """Make trials until exactly ``total`` are finished, by this process or by others; a grid may have fewer.

        While the last ones are being made by others it waits, in case one of them dies, and calls ``waiting`` with
        their number once. An error of ``make`` is raised after its trial has been queued anew. StorageAway if the
        database is gone.
        """
        total, told = min(total, self.most or total), False
        with self._answering():
            while (done := len(self._trials(*FINISHED))) < total:
                if done + len(running := self._trials(TrialState.RUNNING)) < total:
                    self._one(total, make)
                    continue
                if not told:
                    waiting(len(running))
                    told = True
                self._watch(running)
                time.sleep(POLL)

    def _watch(self, running: Sequence[Any]) -> None:
        """Queue the trials anew whose processes have died, which Optuna does only before it asks for a trial.

        A process may die between asking and its first sign of life. Whoever sees such a trial gives that sign in its
        place, once: if no other follows, the trial counts as dead.
        """
        with _quiet():
            optuna.storages.fail_stale_trials(self._study)
        for trial in running:
            if trial.number not in self._seen:
                self._seen.add(trial.number)
                self._storage.record_heartbeat(trial._trial_id)

    def _one(self, total: int, make: Make) -> None:
        """Make one trial, the first that is queued or, when none is, one of the sampler's choice."""
        number: int | None = None

        def objective(handle: Any) -> float | tuple[float, float]:
            nonlocal number
            if self._surplus(handle.number, total):
                raise _Surplus(handle.number)
            number = handle.number
            suggested = {p.key: _suggest(handle, p) for p in self.space.parameters}
            point = self.space.settle(suggested)
            handle.set_user_attr("point", point)
            try:
                results = make(number, point)
            except NotFinite as error:
                handle.set_user_attr("reason", f"diverged: {error}")
                raise optuna.TrialPruned from error  # it counts, and the sampler keeps away from there
            handle.set_user_attr("results", [astuple(result) for result in results])
            trial = Trial(number, suggested, point, tuple(results))
            return (trial.mean or 0.0, trial.seconds or 0.0) if self._several else trial.mean or 0.0

        try:
            with _quiet():
                self._study.optimize(objective, n_trials=1)
        except _Surplus as error:
            self._requeue(error.number)
        except BaseException as error:
            if number is None or self._requeue(number) or not isinstance(error, ValueError | UpdateFinishedTrialError):
                raise
            log.warning("trial %d was slow to give a sign of life, and is made again; what it trained is used", number)

    def _surplus(self, number: int, total: int) -> bool:
        """Whether ``total`` trials with smaller numbers are finished or will be: processes that ask at once may ask for
        more than are wanted. Numbers are given one after another and no failed trial comes back, so that there are
        never more than ``total`` that find fewer than ``total`` before them.
        """
        return sum(t.number < number and t.state != TrialState.FAIL for t in self._trials()) >= total

    def _requeue(self, number: int) -> bool:
        """Queue the point of a failed trial anew; False if another process, to which it seemed dead, has done so."""
        trials = self._trials()
        retry = RetryHeartbeatStaleTrialCallback
        with _quiet():
            if any(number in retry.retry_history(trial) for trial in trials):
                return False
            found = next(trial for trial in trials if trial.number == number)
            # one that still runs, since the database was away, will count as dead
            if found.state == TrialState.FAIL and (found.params or found.system_attrs):
                retry(max_retry=RETRIES)(self._study, found)
        return True

    def _trials(self, *states: TrialState) -> list[Any]:
        found: list[Any] = self._study.get_trials(deepcopy=False, states=states or None)
        return found

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """A database that is gone, as a sentence."""
        try:
            yield
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
            raise StorageAway(
                f"the storage {self.shown} does not answer: {cause(error)}; when it is back, the same command "
                f"goes on from here, and trains nothing twice"
            ) from error


class _Surplus(Exception):
    """A trial is not wanted, since as many as are wanted were asked for before it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Storage(RDBStorage):  # type: ignore[misc]
    """A database that may be away for a while: a sign of life that it misses is no death, the next one follows."""

    def record_heartbeat(self, trial_id: int) -> None:
        try:
            super().record_heartbeat(trial_id)
        except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
            log.warning("the database of the study does not answer (%s); training goes on", cause(error))


def _storage_at(url: str) -> _Storage:
    """Open the database at ``url``. Of processes that make its tables at once all but one fail, and find them then."""
    if url.startswith("sqlite"):
        engine: dict[str, Any] = {"connect_args": {"timeout": 60}}  # one process writes at a time; others wait
    else:
        engine = {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}
    for left in (2, 1, 0):
        try:
            with _quiet():
                return _Storage(
                    url,
                    engine_kwargs=engine,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
                )
        except (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.ProgrammingError):
            if not left:
                raise
            time.sleep(1.0)
    raise AssertionError("unreachable")


class _Seeded(BaseSampler):  # type: ignore[misc]
    """A sampler made anew for each trial, with a seed of the study's name and the trial's number.

    What is suggested then depends on the trials before it alone, whichever process asks and however often it was
    started, and processes that ask at once draw apart.
    """

    def __init__(self, study: str, kind: str, parameters: int) -> None:
        self._study, self._kind = study, kind
        # trials that are drawn uniformly, the queued ones included, before the model of so many parameters is trusted
        self._startup = 3 + 2 * parameters
        self._now: BaseSampler = RandomSampler()

    def before_trial(self, study: optuna.Study, trial: Any) -> None:
        seed = int(fingerprint({"study": self._study, "trial": trial.number})[:8], 16)
        if self._kind == "tpe":
            # constant_liar keeps processes apart that are at work at the same time
            self._now = TPESampler(seed=seed, n_startup_trials=self._startup, constant_liar=True)
        elif self._kind == "gp":
            self._now = GPSampler(seed=seed, n_startup_trials=self._startup)
        else:
            self._now = RandomSampler(seed=seed)
        self._now.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: Any) -> dict[str, Any]:
        return self._now.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
        return self._now.sample_relative(study, trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: Any, name: str, distribution: Any) -> Any:
        return self._now.sample_independent(study, trial, name, distribution)

    def after_trial(self, study: optuna.Study, trial: Any, state: TrialState, values: Sequence[float] | None) -> None:
        self._now.after_trial(study, trial, state, values)


def _suggest(handle: Any, parameter: Parameter) -> float:
    """The value of a parameter; a trial that was queued anew keeps the one that it had."""
    low, high = parameter.low, parameter.high
    if parameter.whole:
        return int(handle.suggest_int(parameter.key, int(low), int(high), log=parameter.log))
    return float(handle.suggest_float(parameter.key, low, high, step=parameter.step, log=parameter.log))


def _identity(parameter: Parameter) -> str:
    """What two ranges must agree in to be one, in words."""
    kinds = {"log": parameter.log, "whole": parameter.whole, f"step {parameter.step}": parameter.step}
    ends = f"{parameter.key} from {parameter.low:.6g} to {parameter.high:.6g}"
    return " ".join([ends, *(word for word, holds in kinds.items() if holds)])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's notes on what may change in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@contextmanager
def _opening(url: str) -> Iterator[None]:
    """What a database refuses, as one sentence that does not show a password."""
    try:
        yield
    except SpecError:
        raise
    except (sqlalchemy.exc.SQLAlchemyError, OptunaError, ImportError, RuntimeError, OSError) as error:
        if isinstance(error, ImportError):
            cure = "install the driver: pip install -e '.[postgres]'"
        else:
            cure = "give storage=sqlite:////PATH.db or storage=postgresql://USER@HOST/NAME, or move a damaged file away"
        raise SpecError(f"the storage {shown(url)} cannot be opened: {cause(error)}; {cure}") from error
