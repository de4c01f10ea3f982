"""How often verdicts on simulated tables are false; docs/statistics.md holds the same with more sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reports.simulation import __main__ as command
from reports.simulation.rates import (
    FEW,
    MANY,
    WORLDS,
    equivalence_rates,
    false_rates,
    power,
    sequential_rates,
    twins,
)
from reports.simulation.worlds import Layout, World, judge_fixed
from reports.verdicts.cells import cells
from reports.verdicts.judge import judge_table
from reports.verdicts.sharing import Sharing

#: The most false verdicts that are allowed, of claims by themselves and of tables after correction. The streams of
#: random numbers are fixed, so that the rates are, too.
CLAIMS, TABLES = 0.055, 0.06


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_rows_get_verdicts_no_more_often_than_stated(world: World, seeds: int) -> None:
    claims, tables = false_rates(world, MANY, seeds, 150)
    assert claims <= CLAIMS
    assert tables <= TABLES


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_adding_seeds_until_something_is_decided_finds_no_more_in_nothing(world: World) -> None:
    claims, tables, _, _ = sequential_rates(world, MANY, 60)
    assert claims <= CLAIMS
    assert tables <= TABLES


def test_few_tables_are_judged_no_worse() -> None:
    claims, tables = false_rates(WORLDS[2], FEW, 3, 600)
    assert claims <= CLAIMS
    assert tables <= TABLES


def test_sharing_finds_twice_as_much_with_three_seeds_and_thrice_with_two() -> None:
    for seeds, times in ((2, 2.5), (3, 1.6)):
        ours, plain = (power(WORLDS[1], MANY, seeds, 30, 2.0, shared)[0] for shared in (True, False))
        assert ours > times * plain


def test_added_seeds_find_as_much_as_all_of_them_with_fewer() -> None:
    _, _, found, seeds = sequential_rates(WORLDS[1], MANY, 20, 3.0)
    assert found > power(WORLDS[1], MANY, 10, 20, 3.0)[0] - 0.03
    assert seeds < 5


@pytest.mark.parametrize(("seeds", "sets"), [(2, 200), (3, 200), (5, 200), (None, 100)])
def test_equivalence_errs_at_its_margin_no_more_often_than_stated_and_finds_equal_rows(
    seeds: int | None, sets: int
) -> None:
    false_holds, false_contradictions, found = equivalence_rates(WORLDS[1], seeds, sets, 3.0)
    assert false_holds <= CLAIMS
    assert false_contradictions <= CLAIMS
    assert found > 0.6


def test_two_rows_that_are_one_are_told_apart_no_more_often_than_chance_says() -> None:
    count, verdicts = twins(100)
    assert count > 40
    for (mean,) in verdicts.values():
        assert 0.02 * count < mean < 0.055 * count


def test_a_set_of_tables_is_the_same_for_the_same_seed_and_shares_the_effect_of_a_seed() -> None:
    layout = Layout((3, 2))
    first, again = (World("", 0.0).draw(layout, 4, 500, np.random.default_rng(3), 2.0) for _ in range(2))
    assert (first == again).all()
    assert first.shape == (500, 5, 4)
    assert first.mean(axis=(0, 2)) == pytest.approx([2, 0, 0, 2, 0], abs=0.15)
    together = np.corrcoef(first[:, 1].ravel(), first[:, 2].ravel())[0, 1]
    apart = np.corrcoef(first[:, 1].ravel(), first[:, 4].ravel())[0, 1]
    assert together == pytest.approx(0.5, abs=0.06)
    assert apart == pytest.approx(0.0, abs=0.06)


def test_a_layout_has_every_pair_once_and_the_default_row_in_every_claim() -> None:
    layout = Layout((4, 3))
    assert len(layout.first) == 6 + 3
    assert layout.weights.sum() == pytest.approx(7 / 2)
    assert layout.first[layout.claims].tolist() == [0, 0, 0, 4, 4]
    twin = Layout((4, 3), twins=True)
    assert twin.second[twin.claims].tolist() == [3, 6]


def test_the_fast_verdicts_are_those_of_the_report(make_ablation: Any, make_frame: Any) -> None:
    values = World("").draw(layout := Layout((12,) * 3), 3, 1, np.random.default_rng(0), 1.5)
    fast = judge_fixed(values, layout)
    tables, parts = [], []
    for table in range(3):
        rows = {f"r{i:02}": {} for i in range(12)}
        ablation = make_ablation(f"t{table}", rows=rows, claims=[f"lin[r00] > lin[r{i:02}]" for i in range(1, 12)])
        seen = {(row, "linear/top1"): list(values[0, 12 * table + i]) for i, row in enumerate(rows)}
        part = make_frame(seen, ablation=ablation.name)
        part["fingerprint"] += ablation.name
        tables.append(ablation)
        parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    sharing = Sharing(frame, "desk")
    judged = [one for ablation in tables for one in judge_table(ablation, cells(ablation, frame, "desk"), sharing)]
    assert [one.p for one in judged] == pytest.approx(fast.p[0], rel=1e-6)
    assert [one.corrected == "holds" for one in judged] == (fast.stands & fast.holds)[0].tolist()


def test_the_page_is_refused_without_its_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "statistics.md"
    page.write_text("nothing")
    monkeypatch.setattr(command, "PAGE", page)
    assert command.main(["sets=1"]) == 2
    assert "lacks the marks" in capsys.readouterr().err
    assert command.main(["set=1"]) == 2
