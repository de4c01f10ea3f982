"""Verdicts on published values."""

from __future__ import annotations

import pytest

from experiments.ablation import Column
from reports.verdicts.cells import summarise
from reports.verdicts.values import value_verdict

FT = Column("finetune/top1", "fine-tuning", tolerance=0.35, tolerance_from="five official runs")
FLOPS = Column("pretrain/gflops", "FLOPs", exact=0.02)


@pytest.mark.parametrize(
    ("published", "values", "verdict"),
    [
        (84.9, [84.8, 84.85, 84.9], "reproduced"),
        (84.9, [84.55, 84.55], "reproduced"),  # the border belongs to it
        (84.9, [84.5, 84.5], "differs"),
        (84.9, [84.8, 85.0], "undecided"),  # two seeds: the interval is 2.5 wide
        (84.9, [84.9], "undecided"),
        (None, [84.9, 84.9], "no published value"),
        (84.9, [], "not run"),
    ],
)
def test_a_value_is_reproduced_when_its_whole_interval_is_within_the_tolerance(
    published: float | None, values: list[float], verdict: str
) -> None:
    assert value_verdict("paper", published, summarise(values), FT) == verdict


def test_the_official_runs_reproduce_the_paper_and_noise_alone_does_not() -> None:
    runs = [83.35, 83.44, 83.46, 83.48, 83.52]  # as wide as five official runs: 83.45 +- 0.065, published 83.6
    assert value_verdict("paper", 83.6, summarise(runs), FT) == "reproduced"
    assert value_verdict("paper", 83.6, summarise([82.3, 82.9]), FT) == "undecided"


def test_a_column_without_chance_needs_no_seeds() -> None:
    found = [value_verdict("paper", 3.3, summarise([value]), FLOPS) for value in (3.19, 3.25, 3.4, 3.5)]
    assert found == ["reproduced", "reproduced", "reproduced", "differs"]


def test_a_column_without_tolerance_has_no_verdict() -> None:
    assert value_verdict("paper", 84.9, summarise([84.9, 84.9]), Column("linear/top1", "lin")) == "no tolerance"


@pytest.mark.parametrize("scale", ["smoke", "desk", "gpu", "mine"])
def test_value_at_another_scale_is_a_trend_only_even_when_it_equals_the_published_one(scale: str) -> None:
    assert value_verdict(scale, 84.9, summarise([84.9, 84.9]), FT) == "trend only"
