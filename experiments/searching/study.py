"""The study behind a search, by ask and tell: the only file that imports Optuna."""

from __future__ import annotations

import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.ablation import SpecError
from experiments.remember import fingerprint
from mae.disk import locked

if TYPE_CHECKING:
    from experiments.searching.space import Parameter

#: Trials drawn uniformly, the enqueued ones included, before the sampler trusts its model of one parameter.
STARTUP = 5

#: Seconds between two looks at the trials of other processes.
POLL = 2.0


@dataclass(frozen=True)
class Result:
    """What one seed of a trial measured, and the run that holds it."""

    seed: int
    value: float
    fingerprint: str
    run_id: str


@dataclass(frozen=True)
class Trial:
    """A finished trial: ``suggested`` by the sampler, ``value`` computed for it; no results where training diverged."""

    number: int
    suggested: float
    value: float
    results: tuple[Result, ...]
    reason: str = ""

    @property
    def mean(self) -> float | None:
        """Mean of the metric over seeds."""
        return sum(result.value for result in self.results) / len(self.results) if self.results else None


@dataclass(frozen=True)
class Turn:
    """A trial that this process, and no other, is to make; ``handle`` is Optuna's own."""

    number: int
    suggested: float
    handle: Any


class Study:
    """A study of one parameter, shared by any number of processes.

    A trial is claimed under a lock of the study, and is held by a lock of its own while it is made. The end of a
    process, however it comes, lets go of both: a running trial whose lock is free is orphaned, and whoever asks next
    takes it over, so its value is not lost and its training goes on from a checkpoint. Locks reach as far as ``out``;
    trials made elsewhere, in a database shared by machines, are left alone.
    """

    def __init__(self, name: str, url: str, out: Path, parameter: Parameter, enqueue: tuple[float, ...]) -> None:
        """Open or create the study ``name`` in the database ``url``; SpecError if it cannot be opened."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name, self.parameter, self.where = name, parameter, f"{platform.node()}:{out}"
        self._locks, self._key = out / "locks", f"study-{fingerprint({'study': name})}"
        with locked(self._locks / "studies"), _storage_errors(url):
            self._study = optuna.create_study(
                storage=_storage(url), study_name=name, direction="maximize", load_if_exists=True
            )
            for value in enqueue:
                self._study.enqueue_trial({parameter.key: value}, skip_if_exists=True)

    def trials(self) -> list[Trial]:
        """The finished trials, in order."""
        return [
            Trial(
                number=trial.number,
                suggested=trial.params[self.parameter.key],
                value=trial.user_attrs["value"],
                results=tuple(Result(*result) for result in trial.user_attrs.get("results", ())),
                reason=trial.user_attrs.get("reason", ""),
            )
            for trial in self._trials("COMPLETE", "PRUNED")
        ]

    @contextmanager
    def claim(self, total: int, waiting: Callable[[int], None]) -> Iterator[Turn | None]:
        """A trial to make, held until the block ends; None when ``total`` are finished or being made elsewhere.

        While the last ones are being made by other processes on this ``out`` it waits, in case one of them dies, and
        calls ``waiting`` with their number once. A block that raises leaves its trial to be taken over.
        """
        with ExitStack() as held:
            told, turn = False, None
            while turn is None:
                with locked(self._locks / self._key):
                    finished, running = self._trials("COMPLETE", "PRUNED"), self._trials("RUNNING")
                    if len(finished) >= total:
                        break
                    turn = self._take_over(running, held)
                    if turn is None and len(finished) + len(running) < total:
                        turn = self._ask(held)
                    if turn is not None:
                        continue
                    near = [t for t in running if t.user_attrs.get("where", self.where) == self.where]
                    if not near:
                        break
                if not told:
                    waiting(len(near))
                    told = True
                time.sleep(POLL)
            yield turn

    def complete(self, turn: Turn, value: float, results: list[Result]) -> Trial:
        """Tell what a claimed trial computed at ``value``; the study maximises the mean over its seeds."""
        trial = Trial(turn.number, turn.suggested, value, tuple(results))
        turn.handle.set_user_attr("value", value)
        turn.handle.set_user_attr("results", [[r.seed, r.value, r.fingerprint, r.run_id] for r in results])
        self._study.tell(turn.handle, trial.mean)
        return trial

    def prune(self, turn: Turn, value: float, reason: str) -> Trial:
        """Tell that training diverged at ``value``: the trial counts, and the sampler keeps away from there."""
        from optuna.trial import TrialState

        turn.handle.set_user_attr("value", value)
        turn.handle.set_user_attr("reason", reason)
        self._study.tell(turn.handle, state=TrialState.PRUNED)
        return Trial(turn.number, turn.suggested, value, (), reason)

    def _trials(self, *states: str) -> list[Any]:
        from optuna.trial import TrialState

        wanted = tuple(TrialState[state] for state in states)
        found: list[Any] = self._study.get_trials(deepcopy=False, states=wanted)
        key, low, high = self.parameter.key, self.parameter.low, self.parameter.high
        # a range that has been narrowed since leaves out what lies beyond it
        return [trial for trial in found if low <= trial.params.get(key, low) <= high]

    def _lock(self, number: int) -> Path:
        return self._locks / f"{self._key}-{number}"

    def _take_over(self, running: list[Any], held: ExitStack) -> Turn | None:
        """The first of the ``running`` trials whose process has ended; call it under the study's lock."""
        from optuna.trial import Trial as Handle

        for trial in running:
            where = trial.user_attrs.get("where")
            # the moment between asking and signing is short: whoever has not signed after a minute never will
            unsigned = where is None and datetime.now() - trial.datetime_start > timedelta(minutes=1)
            if (where == self.where or unsigned) and held.enter_context(locked(self._lock(trial.number), wait=False)):
                return self._sign(Handle(self._study, trial._trial_id))
        return None

    def _ask(self, held: ExitStack) -> Turn:
        """The next enqueued trial or, when none is left, the sampler's; call it under the study's lock."""
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # what is suggested is a function of the trials before it, whichever process asks and however often it was
            # started; constant_liar keeps processes that ask at the same time apart
            history = {"study": self.name, "trials": len(self._trials("RUNNING", "COMPLETE", "PRUNED"))}
            self._study.sampler = optuna.samplers.TPESampler(
                seed=int(fingerprint(history)[:8], 16), n_startup_trials=STARTUP, constant_liar=True
            )
        handle = self._study.ask()
        held.enter_context(locked(self._lock(handle.number)))
        return self._sign(handle)

    def _sign(self, handle: Any) -> Turn:
        handle.set_user_attr("where", self.where)
        parameter = self.parameter
        # a trial that has been taken over keeps the value that it was given
        value = handle.suggest_float(
            parameter.key, parameter.low, parameter.high, step=parameter.step, log=parameter.log
        )
        return Turn(handle.number, value, handle)


def storage_url(out: Path, given: str | None = None) -> str:
    """``given``, or the SQLite database of ``out`` as an absolute URL."""
    return given or f"sqlite:///{out.resolve() / 'optuna.db'}"


def _storage(url: str) -> Any:
    from optuna.storages import RDBStorage

    # SQLite lets one process write at a time; the others wait this long
    patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    return RDBStorage(url, engine_kwargs=patience)


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """What a database refuses, as one sentence that does not show a password."""
    import optuna
    import sqlalchemy

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, ImportError, RuntimeError, OSError) as error:
        try:
            shown = sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
        except sqlalchemy.exc.ArgumentError:
            shown = "that is given"
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        raise SpecError(
            f"the storage {shown} cannot be opened: {cause}; give storage=sqlite:////PATH.db or "
            f"storage=postgresql://USER@HOST/NAME, or move a damaged file away"
        ) from error
