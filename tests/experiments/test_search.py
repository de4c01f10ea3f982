"""Searches: a study is resumed, not repeated; what a table has trained is read; what is wrong is said in a sentence."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import execute as execution
from experiments.ablation import CONF, SpecError, load_ablation
from experiments.plan import Job, plan
from experiments.preflight import offer_of
from experiments.search import main
from experiments.searching.space import Parameter, load_search, parse_search, space_of
from experiments.searching.study import Result, Study, storage_url
from experiments.spec import PRETRAIN, Spec, spec_of
from experiments.tracking import Tracker, tracking_uri
from mae.errors import NotFinite

RATIO = Parameter("mask.ratio", 0.1, 0.95, "masking ratio")
Stop = Callable[[int], BaseException | None]


class Executor:
    """Stands in for training: the accuracy is a parabola over the ratio; ``stop`` may end a call before it trains."""

    def __init__(self) -> None:
        self.calls: list[list[Job]] = []
        self.stop: Stop = lambda call: None

    def __call__(self, jobs: Sequence[Job], tracker: Tracker, place: Any, again: bool = False) -> None:
        self.calls.append(list(jobs))
        if error := self.stop(len(self.calls)):
            raise error
        for job in jobs:
            facts = {"stage": job.stage, "scale": job.spec.scale, "seed": str(job.spec.seed)}
            tables = {f"table.{cell.table}": cell.row for cell in job.cells}
            record = tracker.open(job.name, {**facts, **tables, "fingerprint": job.fingerprint}, {})
            record.finish({f"{job.stage}/top1": accuracy(ratio(job), job.spec.seed)}, {})

    @property
    def ratios(self) -> list[float]:
        """The ratio of each call."""
        return [ratio(jobs[0]) for jobs in self.calls]


def ratio(job: Job) -> float:
    found: float = job.spec.method["mask"]["ratio"]
    return found


def accuracy(ratio: float, seed: int) -> float:
    return 50 - 40 * (ratio - 0.6) ** 2 + seed


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Executor:
    made = Executor()
    monkeypatch.setattr(execution, "execute", made)
    return made


def search(out: Path, *arguments: str) -> int:
    return main(["search=masking_ratio", "scale=smoke", f"out={out}", f"report_dir={out / 'report'}", *arguments])


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "report" / "tables" / "search_masking_ratio.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_study_stopped_in_the_middle_ends_with_exactly_the_trials_asked_for(out: Path, executor: Executor) -> None:
    executor.stop = lambda call: KeyboardInterrupt() if call == 3 else None
    assert search(out, "trials=4") == 130
    executor.stop = lambda call: None
    assert search(out, "trials=4") == 0
    assert [line["trial"] for line in table(out)] == ["0", "1", "2", "3"]
    assert executor.ratios[3] == executor.ratios[2]  # what was stopped goes on first
    assert len(executor.calls) == 5
    assert search(out, "trials=4") == 0
    assert len(executor.calls) == 5


def test_the_papers_ratio_is_the_first_trial_and_the_figure_is_drawn(out: Path, executor: Executor) -> None:
    assert search(out, "trials=2") == 0
    assert executor.ratios[0] == load_search("masking_ratio").enqueue[0] == 0.75
    assert float(table(out)[0]["value"]) == 0.75
    assert all((out / "report" / "figures" / f"search_masking_ratio.{kind}").stat().st_size for kind in ("png", "svg"))


def test_trials_are_tested_on_validation_data_and_never_on_the_test_set_of_tables(
    out: Path, executor: Executor
) -> None:
    assert search(out, "trials=2") == 0
    trained = [job for jobs in executor.calls for job in jobs]
    assert [job.stage for job in trained] == [PRETRAIN, "finetune"] * 2
    assert {job.spec.tested for job in trained} == {"val"}
    assert {job.spec.data.samples["val"] for job in trained} == {32}
    precision = offer_of("auto").precision
    of_table = plan([load_ablation("masking_ratio")], "smoke", 1, rows=["75", "50"], precision=precision)
    assert {job.fingerprint for job in trained}.isdisjoint(job.fingerprint for job in of_table)


def test_runs_of_a_search_name_their_study_and_trial(out: Path, executor: Executor) -> None:
    assert search(out, "trials=2") == 0
    tags = [run.data.tags for run in Tracker(tracking_uri(out), out).runs("")]
    assert {(tag["trial"], tag["stage"]) for tag in tags} == {(t, s) for t in "01" for s in ("pretrain", "finetune")}
    assert len({tag["study"] for tag in tags}) == 1


def test_a_trial_is_the_mean_of_its_seeds(out: Path, executor: Executor) -> None:
    assert search(out, "trials=1", "seeds=2") == 0
    (line,) = table(out)
    assert line["n"] == "2"
    assert float(line["mean"]) == pytest.approx((accuracy(0.75, 0) + accuracy(0.75, 1)) / 2, rel=1e-5)


def test_a_trial_that_diverges_counts_says_so_and_is_not_the_best(
    out: Path, executor: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    executor.stop = lambda call: NotFinite("the loss of step 3 is nan") if call == 1 else None
    assert search(out, "trials=2") == 0
    first, second = table(out)
    assert (first["n"], second["n"]) == ("0", "1")
    assert "step 3" in first["note"]
    assert f"best: mask.ratio={float(second['value']):g}" in capsys.readouterr().out


def test_plan_only_trains_nothing(out: Path, executor: Executor, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(out, "plan_only=true") == 0
    assert not executor.calls
    assert "0 of 12 trials" in capsys.readouterr().out


def test_a_real_training_reports_the_metric_that_the_search_maximises(out: Path) -> None:
    few = ["data.samples.pretrain=32", "data.samples.train=20", "data.samples.test=20"]
    assert search(out, "trials=1", *few) == 0
    (path,) = (out / "report" / "tables").glob("search_masking_ratio--*.csv")
    assert len(path.read_text().splitlines()) == 2


def test_two_processes_on_one_study_make_different_trials(tmp_path: Path) -> None:
    one, two = (Study("s", storage_url(tmp_path), tmp_path, RATIO, (0.75, 0.5)) for _ in range(2))
    with one.claim(3, lambda count: None) as mine, two.claim(3, lambda count: None) as theirs:
        assert mine is not None
        assert theirs is not None
        assert (mine.suggested, theirs.suggested) == (0.75, 0.5)
        one.complete(mine, 0.75, [Result(0, 50.0, "f00d", "run")])
        two.prune(theirs, 0.5, "diverged")
    assert [trial.number for trial in one.trials()] == [0, 1]


def test_the_trial_of_a_dead_process_is_taken_over_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    one, two = (Study("s", storage_url(tmp_path), tmp_path, RATIO, (0.75,)) for _ in range(2))
    dying = ExitStack()
    first = dying.enter_context(one.claim(2, lambda count: None))
    assert first is not None
    with two.claim(2, lambda count: None) as other:
        assert other is not None
        assert other.number != first.number
        two.prune(other, other.suggested, "diverged")
    dying.close()  # lets go of the lock without a word to the study, as the end of a process does
    with two.claim(2, lambda count: None) as again:
        assert again is not None
        assert (again.number, again.suggested) == (first.number, first.suggested)
        two.prune(again, again.suggested, "diverged")
    with two.claim(2, lambda count: None) as none:
        assert none is None


def test_the_last_trial_of_another_machine_is_left_to_it(tmp_path: Path) -> None:
    url = storage_url(tmp_path)
    near, far = (Study("s", url, tmp_path / name, RATIO, (0.75,)) for name in ("near", "far"))
    with far.claim(1, lambda count: None) as theirs, near.claim(1, lambda count: None) as mine:
        assert theirs is not None
        assert mine is None


def test_what_is_suggested_next_depends_on_the_finished_trials_alone(tmp_path: Path) -> None:
    suggested: list[float] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for _ in range(3):  # a new process for each trial of b, one for all of a
            if name == "b" or not suggested:
                study = Study("s", storage_url(tmp_path / name), tmp_path / name, RATIO, (0.75,))
            with study.claim(9, lambda count: None) as claim:
                assert claim is not None
                suggested.append(claim.suggested)
                study.prune(claim, claim.suggested, "diverged")
    assert suggested[:3] == suggested[3:]


def test_ratios_that_keep_equally_many_patches_settle_on_one_and_a_published_one_stays() -> None:
    found = load_search("masking_ratio")
    space = space_of(found, default_spec(), "smoke")
    assert space.visible is not None
    ratios = [k / 1000 for k in range(100, 951)]
    settled = {ratio: space.settle(ratio) for ratio in ratios}
    assert all(space.visible(ratio) == space.visible(name) for ratio, name in settled.items())
    assert len(set(settled.values())) == len({space.visible(ratio) for ratio in ratios})
    published = found.curve("smoke")
    kept = {space.visible(ratio) for ratio in published}
    assert sum(space.settle(ratio) == ratio for ratio in published) == len(kept)
    assert all(space.settle(value) == value for value in found.enqueue)


def test_a_range_wider_than_the_grid_is_narrowed_to_ratios_that_exist() -> None:
    spec = default_spec("model.patch=[1,8,8]")  # nine patches: 0.9 would keep none
    space = space_of(load_search("masking_ratio"), spec, "smoke")
    assert space.parameter.low == 0.1
    assert 0.8 < space.parameter.high < 0.9
    assert 0.9 not in space.enqueue
    assert space.enqueue[0] == 0.75


def default_spec(*overrides: str) -> Spec:
    table = load_ablation("masking_ratio")
    return spec_of(table, table.rows["75"], "smoke", 0, overrides)


def declared(**changed: Any) -> str:
    """The file of masking_ratio with some of its keys changed."""
    text = (CONF / "search" / "masking_ratio.yaml").read_text()
    return yaml.safe_dump(yaml.safe_load(text) | changed)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"parameter": {"key": "mask.ratio", "low": 0.9, "high": 0.1, "label": "r"}}, "low must be below high"),
        ({"parameter": {"key": "mask.ratio", "low": 0, "high": 1, "label": "r", "step": 2}}, "step 2 does not fit"),
        ({"parameter": {"key": "mask.ratio", "from": 0.1}}, "not a valid search"),
        ({"enqueue": [0.99]}, "0.99 is outside 0.1 to 0.95"),
        ({"enqueue": []}, "enqueue is empty"),
        ({"metric": "finetun/top1"}, "did you mean finetune"),
        ({"published": {"ablation": "masking_ratio", "column": "fft"}}, "did you mean ft"),
        ({"metrik": "finetune/top1"}, "did you mean metric"),
    ],
)
def test_a_search_that_cannot_be_is_refused_in_a_sentence(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        parse_search("masking_ratio", declared(**changed))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["search=masking_rato"], "did you mean masking_ratio?"),
        (["scale=smoke"], "say which search"),
        (["search=masking_ratio", "trails=4"], "did you mean trials?"),
        (["search=masking_ratio", "trials=none"], "whole number"),
        (["search=masking_ratio", "scale=smoke", "mask.ratio=0.5"], "mask.ratio is what this search varies"),
        (["search=masking_ratio", "scale=smoke", "mask=grid"], "nothing to choose from"),
    ],
)
def test_a_command_that_cannot_be_run_exits_with_2_and_one_sentence(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error
    assert len(error.splitlines()) == 1


def test_a_damaged_study_is_named_in_one_sentence(
    out: Path, executor: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "optuna.db").write_bytes(b"not a database at all" * 100)
    assert search(out, "trials=1") == 2
    error = capsys.readouterr().err
    assert "optuna.db" in error
    assert "move a damaged file away" in error


def test_a_narrowed_range_leaves_out_the_trials_beyond_it(tmp_path: Path) -> None:
    wide = Study("s", storage_url(tmp_path), tmp_path, RATIO, (0.9, 0.5))
    for _ in range(2):
        with wide.claim(2, lambda count: None) as turn:
            assert turn is not None
            wide.complete(turn, turn.suggested, [Result(0, turn.suggested, "f", "r")])
    narrow = Study("s", storage_url(tmp_path), tmp_path, Parameter("mask.ratio", 0.2, 0.8, "masking ratio"), (0.5,))
    assert [trial.value for trial in narrow.trials()] == [0.5]
    with narrow.claim(2, lambda count: None) as turn:
        assert turn is not None
        assert 0.2 <= turn.suggested <= 0.8


def test_a_logarithmic_range_is_drawn_evenly_in_the_logarithm(tmp_path: Path) -> None:
    rate = Parameter("pretrain.base_lr", 1e-6, 1.0, "base rate", log=True)
    study = Study("s", storage_url(tmp_path), tmp_path, rate, (1e-3,))
    drawn = []
    for _ in range(5):
        with study.claim(5, lambda count: None) as turn:
            assert turn is not None
            drawn.append(turn.suggested)
            study.complete(turn, turn.suggested, [Result(0, 1.0, "f", "r")])
    assert min(drawn) < 1e-2  # drawn evenly, one in a hundred would be
