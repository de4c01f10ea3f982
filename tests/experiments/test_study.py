"""Studies: exactly the trials asked for whoever makes them, none lost with its process, none of another space."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import TrialState

from experiments.ablation import SpecError
from experiments.searching import study as studies
from experiments.searching.address import storage_url
from experiments.searching.declared import SAMPLERS, Parameter, Point
from experiments.searching.space import Space
from experiments.searching.study import StorageAway, Study
from experiments.searching.trials import Result, best_trial
from mae.errors import NotFinite

RATIO = Parameter("mask.ratio", 0.1, 0.95, "masking ratio", grid=(0.1, 0.5, 0.9))
DEPTH = Parameter("depth", 1, 12, "blocks", whole=True, grid=(1, 8))
ONE = Space((RATIO,), ({"mask.ratio": 0.75}, {"mask.ratio": 0.5}), {})
ALONE = Space((RATIO,), ({"mask.ratio": 0.75},), {})
TWO = Space((RATIO, DEPTH), ({"mask.ratio": 0.75, "depth": 8},), {})


def opened(folder: Path, space: Space = ONE, computes: str = "c", minimise: str = "", sampler: str = "tpe") -> Study:
    objectives = ["top1", minimise] if minimise else ["top1"]
    return Study("s", storage_url(folder), folder, space, computes, objectives, sampler)


def measured(value: float, seconds: float = 1.0) -> list[Result]:
    return [Result(0, value, seconds, "f00d", "run")]


def parabola(number: int, point: Point) -> list[Result]:
    return measured(50 - 40 * (point["mask.ratio"] - 0.6) ** 2, 10 * point.get("depth", 1.0))


def never(number: int, point: Point) -> Sequence[Result]:
    raise AssertionError(f"trial {number} is not wanted")


def states(study: Study) -> list[str]:
    return [trial.state.name for trial in study._study.get_trials()]


def unheard(count: int) -> None:
    """What is said while others make the last trials."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial counts as dead after a second without a sign of life."""
    for name, seconds in {"HEARTBEAT": 1, "GRACE": 1, "POLL": 0.1}.items():
        monkeypatch.setattr(studies, name, seconds)


def test_the_points_that_come_first_are_tried_first_and_no_more_than_are_asked_for(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.run(1, parabola, unheard)
    assert states(study) == ["COMPLETE", "WAITING"]
    study.run(3, parabola, unheard)
    assert [trial.point["mask.ratio"] for trial in study.trials()][:2] == [0.75, 0.5]
    assert states(study) == ["COMPLETE"] * 3


def test_processes_that_ask_at_once_make_exactly_the_trials_asked_for(tmp_path: Path, quick: None) -> None:
    made: list[int] = []
    gate = threading.Barrier(4)

    def make(number: int, point: Point) -> list[Result]:
        made.append(number)
        return parabola(number, point)

    def work() -> None:
        study = opened(tmp_path)
        gate.wait()
        study.run(6, make, unheard)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == len(set(made)) == len(opened(tmp_path).trials()) == 6


def test_a_trial_that_was_asked_for_beyond_the_last_is_not_made(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.run(2, parabola, unheard)
    study._one(2, never)  # as when another process has asked for the last one in the meantime
    assert states(study) == ["COMPLETE", "COMPLETE", "FAIL"]
    study.run(3, parabola, unheard)
    assert len(study.trials()) == 3


def test_a_queued_point_that_was_taken_up_beyond_the_last_stays_queued(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.run(1, parabola, unheard)
    study._one(1, never)
    assert states(study) == ["COMPLETE", "FAIL", "WAITING"]
    study.run(2, parabola, unheard)
    assert [trial.point["mask.ratio"] for trial in study.trials()] == [0.75, 0.5]


def test_what_its_maker_did_not_live_to_queue_is_queued_by_the_next(tmp_path: Path, quick: None) -> None:
    storage = studies._storage_at(storage_url(tmp_path))
    optuna.create_study(storage=storage, study_name="s", directions=["maximize"])  # and dies
    study = opened(tmp_path)
    study.run(2, parabola, unheard)
    assert [trial.point["mask.ratio"] for trial in study.trials()] == [0.75, 0.5]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
@pytest.mark.parametrize("signs", [0, 1])
def test_the_trial_of_a_process_that_died_is_made_by_another_at_the_same_point(
    tmp_path: Path, quick: None, signs: int
) -> None:
    dead, alive = opened(tmp_path), opened(tmp_path)
    handle = dead._study.ask()
    handle.suggest_float("mask.ratio", 0.1, 0.95)
    for _ in range(signs):
        dead._storage.record_heartbeat(handle._trial_id)
    waited: list[int] = []
    alive.run(2, parabola, waited.append)
    assert waited == [1]
    assert sorted(trial.point["mask.ratio"] for trial in alive.trials()) == [0.5, 0.75]
    assert states(alive) == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_trial_that_seemed_dead_and_was_not_is_counted_once(tmp_path: Path) -> None:
    study = opened(tmp_path, ALONE)
    points: list[Point] = []

    def make(number: int, point: Point) -> list[Result]:
        points.append(point)
        if number == 0:  # another process has found no sign of life, and has queued it anew
            found = study._study.get_trials()[0]
            study._storage.set_trial_state_values(found._trial_id, state=TrialState.FAIL)
            RetryHeartbeatStaleTrialCallback()(study._study, study._study.get_trials()[0])
        return parabola(number, point)

    study.run(1, make, unheard)
    assert points == [{"mask.ratio": 0.75}] * 2
    assert states(study).count("COMPLETE") == 1
    assert "RUNNING" not in states(study)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is full")])
def test_a_trial_that_was_stopped_is_made_again_at_its_point(tmp_path: Path, error: BaseException) -> None:
    def stop(number: int, point: Point) -> Sequence[Result]:
        raise error

    study = opened(tmp_path, ALONE)
    with pytest.raises(type(error)):
        study.run(1, stop, unheard)
    study.run(1, parabola, unheard)
    assert [trial.point["mask.ratio"] for trial in study.trials()] == [0.75]


def test_a_trial_that_ends_every_process_makes_room_for_another_point(tmp_path: Path) -> None:
    def stop(number: int, point: Point) -> Sequence[Result]:
        raise OSError

    study = opened(tmp_path, ALONE)
    for _ in range(1 + studies.RETRIES):
        with pytest.raises(OSError, match=r"^$"):
            study.run(1, stop, unheard)
    study.run(1, parabola, unheard)
    assert study.trials()[0].point["mask.ratio"] != 0.75


def test_a_trial_that_diverges_counts_and_is_not_the_best(tmp_path: Path) -> None:
    def make(number: int, point: Point) -> list[Result]:
        if number == 0:
            raise NotFinite("the loss of step 3 is nan")
        return parabola(number, point)

    study = opened(tmp_path)
    study.run(2, make, unheard)
    first, second = study.trials()
    assert (first.mean, first.reason) == (None, "diverged: the loss of step 3 is nan")
    assert best_trial([first, second]) == second


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_stays_in_the_space_and_depends_on_the_trials_before_alone(tmp_path: Path, sampler: str) -> None:
    total, found = 10, []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        study = opened(tmp_path / name, TWO, sampler=sampler)
        study.run(5, parabola, unheard)
        if name == "b":  # a new process
            study = opened(tmp_path / name, TWO, sampler=sampler)
        study.run(total, parabola, unheard)
        found.append([trial.point for trial in study.trials()])
    assert found[0] == found[1]
    assert len(found[0]) == (7 if sampler == "grid" else total)  # the recipe's own point, and 3 x 2 of the grid
    assert len({tuple(point.items()) for point in found[0]}) == len(found[0])
    assert all(0.1 <= point["mask.ratio"] <= 0.95 and point["depth"] in range(1, 13) for point in found[0])


def test_a_logarithmic_range_is_drawn_evenly_in_the_logarithm(tmp_path: Path) -> None:
    rate = Parameter("base_lr", 1e-6, 1.0, "base rate", log=True)
    study = opened(tmp_path, Space((rate,), ({"base_lr": 1e-3},), {}), sampler="random")
    study.run(6, lambda number, point: measured(1.0), unheard)
    assert min(trial.point["base_lr"] for trial in study.trials()) < 1e-3  # drawn evenly, one in a thousand would be


def test_the_front_is_the_trials_that_no_other_betters_in_accuracy_and_seconds(tmp_path: Path) -> None:
    study = opened(tmp_path, TWO, minimise="seconds")
    study.run(12, parabola, unheard)
    trials = study.trials()
    pairs = {trial.number: (trial.mean or 0.0, -(trial.seconds or 0.0)) for trial in trials}

    def bettered(pair: tuple[float, float]) -> bool:
        return any(o != pair and o[0] >= pair[0] and o[1] >= pair[1] for o in pairs.values())

    front = {number for number, pair in pairs.items() if not bettered(pair)}
    assert {trial.number for trial in trials if trial.front} == front
    assert 0 < len(front) < 12


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"space": Space((Parameter("mask.ratio", 0.2, 0.95, ""),), ONE.first, {})}, "from 0.1 to 0.95"),
        ({"space": TWO}, "other ranges"),
        ({"sampler": "grid"}, "other points"),
        ({"minimise": "seconds"}, "other objectives"),
        ({"computes": "d"}, "other runs"),
    ],
)
def test_a_study_of_the_same_name_that_searches_something_else_is_refused_in_a_sentence(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    opened(tmp_path)
    opened(tmp_path)
    with pytest.raises(SpecError, match=says) as refused:
        opened(tmp_path, **changed)
    assert "study=NAME" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_server_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be opened") as refused:
        Study("s", "postgresql://me:secret@127.0.0.1:1/none", tmp_path, ONE, "c", ["top1"])
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_database_that_goes_away_ends_a_trial_in_a_sentence_and_a_sign_of_life_in_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*arguments: Any, **named: Any) -> None:
        raise optuna.exceptions.StorageInternalError("no connection")

    study = opened(tmp_path)

    def make(number: int, point: Point) -> list[Result]:
        monkeypatch.setattr(RDBStorage, "record_heartbeat", gone)
        study._storage.record_heartbeat(1)
        monkeypatch.setattr(RDBStorage, "set_trial_user_attr", gone)
        return parabola(number, point)

    with pytest.raises(StorageAway, match=r"no connection.*the same command"):
        study.run(1, make, unheard)
