"""Every table that comes with the project: its numbers, its claims, and that no two of its rows are one experiment."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from experiments.ablation import SCALES, Ablation, Row, ablation_names, exists, has_scale, load_ablation
from experiments.compose import groups
from experiments.plan import Job, plan
from experiments.spec import PRETRAIN, Spec, spec_of
from reports.verdicts.claims import parse_claim
from tests.experiments.fresh import files_are_there, forget
from tests.experiments.observables import COMPUTED, OBSERVED

FACTS = yaml.safe_load((Path(__file__).parent / "paper_facts.yaml").read_text(encoding="utf-8"))["tables"]
NAMES = ablation_names()


@pytest.fixture(autouse=True, scope="module")
def weights(surroundings: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stand-ins for files of weights, so that rows that start from them can be planned."""
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    path.write_bytes(b"stand-in")
    with files_are_there(), pytest.MonkeyPatch.context() as patch:
        for name in ("DALLE_ENCODER", "VIT_B_IN21K"):
            patch.setenv(name, str(path))
        forget()
        yield


def rows_at(ablation: Ablation, scale: str) -> list[Row]:
    """The rows that exist at a scale. At gpu those that only set values are left to the other scales, for time."""
    rows = [row for row in ablation.rows.values() if exists(row, scale) and has_scale(ablation, scale)]
    if scale != "gpu":
        return rows
    chosen = [override.partition("=")[0] in groups() for row in rows for override in row.set.get("all", ())]
    return [row for row in rows if "gpu" in row.set or row.label == ablation.default or any(chosen)]


@cache
def spec(name: str, label: str, scale: str) -> Spec:
    ablation = load_ablation(name)
    return spec_of(ablation, ablation.rows[label], scale, seed=0)


def jobs_of(ablation: Ablation, label: str, scale: str) -> list[Job]:
    """The trainings of a row, which are checked as they are planned."""
    return plan([ablation], scale, 1, rows=[label])


def published(ablation: Ablation) -> dict[str, dict[str, float]]:
    """The published values of a table by row, those alone that there are."""
    stated = {
        row.label: {key: value for key, value in row.paper.items() if value is not None}
        for row in ablation.rows.values()
    }
    return {label: cells for label, cells in stated.items() if cells}


def test_facts_are_those_of_tables_that_there_are() -> None:
    assert set(FACTS) <= set(NAMES)


@pytest.mark.parametrize("name", sorted(FACTS))
def test_published_values_are_those_of_the_paper(name: str) -> None:
    assert published(load_ablation(name)) == FACTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_published_values_contradict_no_claim(name: str) -> None:
    """A claim over a cell that is not published rests on the paper's words."""
    ablation = load_ablation(name)
    assert [claim for claim in ablation.claims if parse_claim(claim.that, ablation).paper is False] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_table_with_published_values_says_where_they_are_published(name: str) -> None:
    ablation = load_ablation(name)
    assert not published(ablation) or {"arxiv", "where"} <= set(ablation.paper)


@pytest.mark.parametrize("name", NAMES)
def test_a_base_chooses_groups_only(name: str) -> None:
    base = load_ablation(name).base
    chosen = {override.partition("=")[0].lstrip("+") for overrides in base.values() for override in overrides}
    assert chosen <= set(groups())


@pytest.mark.parametrize("name", NAMES)
def test_a_table_observes_what_can_be_observed(name: str) -> None:
    assert set(load_ablation(name).observe) <= set(OBSERVED)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_every_row_can_be_built_and_is_told_from_the_default_row(name: str, scale: str) -> None:
    ablation = load_ablation(name)
    rows = rows_at(ablation, scale)
    fingerprints = {row.label: tuple(job.fingerprint for job in jobs_of(ablation, row.label, scale)) for row in rows}
    assert len(set(fingerprints.values())) == len(rows)

    stages = sorted({column.stage for column in ablation.columns.values()} - {PRETRAIN})
    default = ablation.default or (rows[0].label if rows else "")
    for observable in ablation.observe if rows else ():
        if observable in COMPUTED and scale != "smoke":
            continue
        observe = OBSERVED[observable]
        usual = observe(spec(name, default, scale), stages)
        others = [row.label for row in rows if row.label != default]
        same = [label for label in others if observe(spec(name, label, scale), stages) == usual]
        assert same == [], f"{observable} of these rows is that of the default row"
