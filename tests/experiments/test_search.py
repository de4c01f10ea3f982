"""Searches: a study is resumed, not repeated; what a table has trained is read; what is wrong is said in a sentence."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from experiments import execute as execution
from experiments.ablation import CONF, SpecError, at_scale, load_ablation
from experiments.plan import Job, plan
from experiments.preflight import offer_of
from experiments.record import Failure, Record, Records
from experiments.search import main
from experiments.searching.declared import load_search, parse_search, search_names
from experiments.searching.space import Space, space_of
from experiments.spec import PRETRAIN, Spec, spec_of
from mae.errors import NotFinite

Stop = Callable[[int], BaseException | None]


class Executor:
    """Stands in for training: the accuracy is a parabola over the ratio; ``stop`` may end a call before it trains."""

    def __init__(self) -> None:
        self.calls: list[list[Job]] = []
        self.stop: Stop = lambda call: None

    def __call__(self, jobs: Sequence[Job], place: Any) -> list[Failure]:
        self.calls.append(list(jobs))
        if error := self.stop(len(self.calls)):
            raise error
        for job in jobs:
            top1 = accuracy(ratio(job), job.spec.seed)
            results = {f"{job.stage}/top1": top1, f"{job.stage}/seconds": 100 * ratio(job)}
            tables = {cell.table: cell.row for cell in job.cells}
            facts = (job.fingerprint, job.name, job.stage, job.spec.scale, job.spec.seed, tables)
            Records(place.out).write(Record(*facts, tags={}, parameters={}, spec={}, ended=1.0, results=results))
        return []

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
    where = [f"out={out}", f"report_dir={out / 'report'}"]
    return main(["search=masking_ratio", "scale=smoke", "confirm=0", *where, *arguments])


def table(out: Path, name: str = "masking_ratio") -> list[dict[str, str]]:
    with open(out / "report" / "tables" / f"search_{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_study_stopped_in_the_middle_ends_with_exactly_the_trials_asked_for(out: Path, executor: Executor) -> None:
    executor.stop = lambda call: KeyboardInterrupt() if call == 3 else None
    assert search(out, "trials=4") == 130
    executor.stop = lambda call: None
    assert search(out, "trials=4") == 0
    assert [line["trial"] for line in table(out)] == ["0", "1", "3", "4"]
    assert executor.ratios == [0.75, 0.5, 0.9, 0.3, 0.6]  # what was stopped is queued behind what was queued before
    assert search(out, "trials=4") == 0
    assert len(executor.calls) == 5
    assert search(out, "trials=5") == 0
    assert executor.ratios[5:] == [0.9]


def test_the_papers_ratio_is_the_first_trial_and_the_figure_is_drawn(out: Path, executor: Executor) -> None:
    assert search(out, "trials=2") == 0
    assert executor.ratios == [0.75, *load_search("masking_ratio").enqueue[0]]
    assert float(table(out)[0]["mask.ratio"]) == 0.75
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
    found = Records(out).finished().values()
    tags = [{**record.tags, "stage": record.stage} for record in found]
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
    assert f"best: mask.ratio={float(second['mask.ratio']):g}" in capsys.readouterr().out


def test_the_winner_and_the_recipe_are_tested_once_on_seeds_that_no_trial_had(
    out: Path, executor: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert search(out, "trials=5", "seeds=2", "confirm=3") == 0
        shown = capsys.readouterr().out
        assert f"chosen less recipe, paired by seed: {accuracy(0.6, 0) - accuracy(0.75, 0):+.2f}" in shown
    tested = [job for jobs in executor.calls for job in jobs if job.spec.tested == "test" and job.stage == "finetune"]
    assert sorted((ratio(job), job.spec.seed) for job in tested) == [(r, s) for r in (0.6, 0.75) for s in (2, 3, 4)]


def test_a_search_that_chooses_the_recipe_tests_that_alone(
    out: Path, executor: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(out, "trials=1", "confirm=1") == 0
    assert "the search chose what the recipe has" in capsys.readouterr().out


def test_two_objectives_print_and_draw_their_front(
    out: Path, executor: Executor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search(out, "trials=5", "minimise=seconds") == 0
    lines = capsys.readouterr().out.partition("Pareto front")[2].partition("paper:")[0].splitlines()[1:]
    # seconds grow with the ratio, and accuracy to 0.6: what lies beyond is bettered by it
    assert [line.rpartition("=")[2] for line in lines] == ["0.3", "0.5", "0.6"]
    assert {line["front"] for line in table(out)} == {"True", "False"}
    assert "Pareto front" in (out / "report" / "figures" / "search_masking_ratio.svg").read_text()


def test_the_figure_has_the_curve_of_the_table_and_the_published_one(out: Path, executor: Executor) -> None:
    for job in plan([load_ablation("masking_ratio")], "smoke", 1, rows=["75", "50"], precision="fp32"):
        executor([job], SimpleNamespace(out=out))
    assert search(out, "trials=2") == 0
    drawn = (out / "report" / "figures" / "search_masking_ratio.svg").read_text()
    assert all(words in drawn for words in ("table masking_ratio, on test data", "published", "trials, on validation"))


def test_plan_only_trains_nothing(out: Path, executor: Executor, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(out, "plan_only=true") == 0
    assert not executor.calls
    assert "0 of 12 trials" in capsys.readouterr().out


def test_a_real_training_reports_the_metric_that_the_search_maximises(out: Path) -> None:
    few = ["data.samples.pretrain=32", "data.samples.train=20", "data.samples.test=20"]
    assert search(out, "trials=1", *few) == 0
    (path,) = (out / "report" / "tables").glob("search_masking_ratio--*.csv")
    (line,) = csv.DictReader(path.read_text().splitlines())
    assert float(line["seconds"]) > 0


def test_ratios_that_keep_equally_many_patches_settle_on_one_and_a_published_one_stays() -> None:
    found = load_search("masking_ratio")
    space = space_of(found, default_spec(), "smoke")
    assert space.visible is not None
    ratios = [k / 1000 for k in range(100, 951)]
    settled = {ratio: settle(space, ratio) for ratio in ratios}
    assert all(space.visible(ratio) == space.visible(name) for ratio, name in settled.items())
    assert len(set(settled.values())) == len({space.visible(ratio) for ratio in ratios})
    published = found.curve("smoke")
    kept = {space.visible(ratio) for ratio in published}
    assert sum(settle(space, ratio) == ratio for ratio in published) == len(kept)
    assert all(settle(space, value) == value for (value,) in found.enqueue)


def settle(space: Space, ratio: float) -> float:
    return space.settle({"mask.ratio": ratio})["mask.ratio"]


def test_a_range_wider_than_the_grid_is_narrowed_to_ratios_that_exist() -> None:
    spec = default_spec("model.patch=[1,8,8]")  # nine patches: 0.9 would keep none
    space = space_of(load_search("masking_ratio"), spec, "smoke")
    (parameter,) = space.parameters
    assert parameter.low == 0.1
    assert 0.8 < parameter.high < 0.9
    assert {"mask.ratio": 0.9} not in space.first
    assert space.own == {"mask.ratio": 0.75}
    assert max(point["mask.ratio"] for point in space.grid()) < 0.9


#: What the papers' recipes have where the searches vary it: MAE Sec. 4.1, Tables 8 and 9 and 1; VideoMAE Sec. 4.3.
PUBLISHED = {
    "masking_ratio": [0.75],
    "decoder": [8, 0.5],
    "pretraining_lr": [1.5e-4],
    "finetuning": [1e-3, 0.75, 0.1, 50],
    "video_masking_ratio": [0.9],
}


@pytest.mark.usefixtures("no_files")
@pytest.mark.parametrize("name", search_names())
def test_a_search_begins_at_the_papers_scale_with_the_published_recipe(name: str) -> None:
    found = load_search(name)
    (row,) = (table := found.table([{}])).rows.values()
    spec = spec_of(table, row, "paper", 0, (), at_scale(table.columns["value"].set, "paper"))
    space = space_of(found, spec, "paper")
    assert list(space.own.values()) == PUBLISHED[name]
    assert len(space.grid()) >= len(space.first) > 0


@pytest.mark.parametrize("name", search_names())
def test_every_search_can_be_planned_and_trained(name: str, out: Path, executor: Executor) -> None:
    assert search(out, f"search={name}", "trials=3", "sampler=random") == 0
    assert len(table(out, name)) == 3
    assert {job.spec.tested for jobs in executor.calls for job in jobs} == {"val"}


def default_spec(*overrides: str) -> Spec:
    table = load_ablation("masking_ratio")
    return spec_of(table, table.rows["75"], "smoke", 0, overrides)


def declared(**changed: Any) -> str:
    """The file of masking_ratio with some of its keys, or of those of its parameter, changed."""
    found = yaml.safe_load((CONF / "search" / "masking_ratio.yaml").read_text())
    found["parameters"]["mask.ratio"].update(changed.pop("ratio", {}))
    return yaml.safe_dump(found | changed)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"ratio": {"low": 0.9, "high": 0.1}}, "low must be below high"),
        ({"ratio": {"low": 0, "high": 1, "step": 2}}, "step 2 of mask.ratio does not fit"),
        ({"ratio": {"log": True, "low": 0}}, "begins above 0"),
        ({"ratio": {"from": 0.1}}, "unknown key 'from'"),
        ({"ratio": {"grid": [0.05]}}, "grid value 0.05"),
        ({"parameters": {}}, "has no parameters"),
        ({"parameters": {"mask.ratio": {"low": 0.1}}}, "the key 'high' is missing"),
        ({"enqueue": [0.99]}, "0.99 is outside 0.1 to 0.95"),
        ({"enqueue": [[0.5, 0.6]]}, "not one value for each"),
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
        (["search=masking_rato"], "did you mean masking_ratio"),
        (["scale=smoke"], "say which search"),
        (["search=masking_ratio", "trails=4"], "did you mean trials?"),
        (["search=masking_ratio", "sampler=tpa"], "did you mean tpe?"),
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
