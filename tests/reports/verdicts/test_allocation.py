"""Which seed to run next, and what seeds could see."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports.tables import claims_table
from reports.verdicts.allocation import Survey, forecast, next_steps, open_claims, planned_looks, survey
from reports.verdicts.claims import parse_claim
from reports.verdicts.judge import judge
from reports.verdicts.moderation import Prior, plain
from reports.verdicts.power import chance, minutes_per_seed, seeds_needed, smallest_visible
from reports.verdicts.sequential import Looks
from reports.verdicts.sharing import Sharing

LOOKS = Looks((2, 3, 4, 5, 6))
CLAIMS = ("ft[b] > ft[a]", "ft[c] > ft[a]", "ft[d] > ft[a]")


def measured(make_frame: Any, seeds: dict[str, list[float]], minutes: dict[str, float]) -> pd.DataFrame:
    values = {(row, "finetune/top1"): found for row, found in seeds.items()}
    times = {(row, "pretrain/wall_seconds"): [60 * cost] for row, cost in minutes.items()}
    return pd.concat([make_frame(values), make_frame(times)], ignore_index=True)


def surveyed(make_ablation: Any, frame: pd.DataFrame, claims: tuple[str, ...] = CLAIMS) -> Survey:
    ablation = make_ablation(rows={row: {} for row in "abcd"}, claims=claims)
    return survey(ablation, frame, "desk", Sharing(frame, "desk"), LOOKS)


def test_a_decided_claim_waits_for_nothing_and_an_undecided_one_for_the_next_seed_of_its_rows(
    make_ablation: Any, make_frame: Any
) -> None:
    seeds = {"a": [10.0, 10.1, 9.9], "b": [50.0, 50.1, 49.9], "c": [11.0, 10.0, 12.5], "d": [10.4, 11.0, 9.0]}
    found = surveyed(make_ablation, measured(make_frame, seeds, dict.fromkeys("abcd", 2.0)))
    assert [one.corrected for one in found.judged] == ["holds", "undecided", "undecided"]
    assert [claim.judged.claim.text for claim in open_claims([found], LOOKS)] == list(CLAIMS[1:])
    steps = next_steps([found], LOOKS)
    assert {step.run for step in steps} == {("mask_sampling", row, 3) for row in "acd"}
    assert steps[0].run[1] == "a"  # two claims wait for it
    assert steps[0].claims == CLAIMS[1:]


def test_a_row_that_is_behind_catches_up_first(make_ablation: Any, make_frame: Any) -> None:
    seeds = {"a": [10.0, 10.1, 9.9, 10.0], "c": [11.0, 10.0]}
    frame = measured(make_frame, seeds, {"a": 1.0, "c": 1.0})
    (step,) = next_steps([surveyed(make_ablation, frame, CLAIMS[1:2])], LOOKS)
    assert step.run == ("mask_sampling", "c", 2)


def test_the_cheaper_and_the_clearer_of_two_claims_come_first(make_ablation: Any, make_frame: Any) -> None:
    seeds = {"a": [10.0, 10.3, 9.8], "c": [10.8, 10.4, 11.4], "d": [10.8, 10.4, 11.4]}
    cheap = measured(make_frame, seeds, {"a": 1.0, "c": 1.0, "d": 5.0})
    order = [step.run[1] for step in next_steps([surveyed(make_ablation, cheap, CLAIMS[1:])], LOOKS)]
    assert order.index("c") < order.index("d")
    seeds["c"] = [10.1, 9.6, 11.2]
    clear = measured(make_frame, seeds, {"a": 1.0, "c": 1.0, "d": 1.0})
    order = [step.run[1] for step in next_steps([surveyed(make_ablation, clear, CLAIMS[1:])], LOOKS)]
    assert order.index("d") < order.index("c")


def test_a_budget_buys_the_claims_that_fit_and_pays_a_shared_run_once(make_ablation: Any, make_frame: Any) -> None:
    seeds = {row: [value, value + 1] for row, value in (("a", 10.0), ("c", 10.6), ("d", 10.6))}
    seeds["a"] = [10.0, 10.1]
    found = surveyed(make_ablation, measured(make_frame, seeds, {"a": 3.0, "c": 1.0, "d": 1.0}), CLAIMS[1:])
    within, beyond = forecast([found], LOOKS, budget=1e9)
    assert (len(within), beyond) == (2, [])
    together = sum(found.minutes[row] for _, row, _ in {run for claim in within for run in claim.missing})
    assert together < sum(claim.minutes for claim in within)
    assert [len(part) for part in forecast([found], LOOKS, together)] == [2, 0]
    assert [len(part) for part in forecast([found], LOOKS, together - 0.5)] == [1, 1]
    assert [len(part) for part in forecast([found], LOOKS, 0.5)] == [0, 2]


def test_what_was_never_run_asks_for_the_first_look(make_ablation: Any, make_frame: Any) -> None:
    found = surveyed(make_ablation, make_frame({}))
    assert {(claim.target, claim.chance) for claim in open_claims([found], LOOKS)} == {(2, None)}
    assert [step.run[2] for step in next_steps([found], LOOKS)] == [0, 0, 0, 0]


def test_a_claim_with_a_row_that_a_scale_lacks_waits_for_nothing(make_ablation: Any, make_frame: Any) -> None:
    ablation = make_ablation(rows={row: {} for row in "abcd"}, claims=CLAIMS)
    frame = make_frame({})
    found = survey(ablation, frame, "desk", Sharing(frame, "desk"), LOOKS, rows=["a", "b"])
    assert {step.run[1] for step in next_steps([found], LOOKS)} == {"a", "b"}


def test_no_claim_waits_after_the_last_look(make_ablation: Any, make_frame: Any) -> None:
    seeds = {row: [10.0, 11.0, 9.0, 10.5, 9.5, 10.2] for row in "abcd"}
    found = surveyed(make_ablation, measured(make_frame, seeds, {}))
    assert {one.corrected for one in found.judged} == {"undecided"}
    assert next_steps([found], LOOKS) == []


def test_added_seeds_reach_the_verdicts_of_all_of_them(make_ablation: Any, make_frame: Any) -> None:
    rng = np.random.default_rng(0)
    truth = {"a": 10.0, "b": 22.0, "c": 16.0, "d": 10.0}
    everything = {row: list(mean + rng.normal(size=6)) for row, mean in truth.items()}
    have = dict.fromkeys("abcd", 0)
    for _ in range(60):
        frame = measured(make_frame, {row: everything[row][:n] for row, n in have.items()}, dict.fromkeys("abcd", 1.0))
        steps = next_steps([found := surveyed(make_ablation, frame)], LOOKS)
        if not steps:
            break
        _, row, seed = steps[0].run
        assert seed == have[row]
        have[row] += 1
    assert [one.corrected for one in found.judged] == ["holds", "holds", "undecided"]
    assert have["b"] < have["d"] == have["a"] == 6


def test_the_smallest_visible_difference_is_found_in_four_of_five_cases(make_ablation: Any) -> None:
    claim = parse_claim("lin[random 75] > lin[block 75]", make_ablation())
    for n in (2, 3, 6):
        one = replace(judge(claim, np.arange(n) * 1.0), spread=1.0)
        seen = smallest_visible(one)
        assert seen is not None
        samples = np.random.default_rng(0).normal(seen, 1.0, (40_000, n))
        assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_the_seeds_needed_find_the_present_difference_in_four_of_five_cases(make_ablation: Any) -> None:
    claim = parse_claim("lin[random 75] > lin[block 75]", make_ablation())
    one = replace(judge(claim, np.array([-0.2, 2.2])), spread=1.0)
    n = seeds_needed(one, plain(""))
    assert n is not None
    for count, enough in ((n, True), (n - 1, False)):
        samples = np.random.default_rng(0).normal(1.0, 1.0, (40_000, count))
        assert ((stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean() > 0.795) == enough
    shared = seeds_needed(one, Prior(1.0, 10.0, 40.0, 80.0))
    assert shared is not None
    assert shared < n
    assert chance(one, plain(""), n) == pytest.approx(0.8, abs=0.06)


def test_equal_rows_never_suffice_for_an_ordering_but_do_for_an_equivalence(make_ablation: Any) -> None:
    seeds = np.array([-0.5, 0.5])
    ablation = make_ablation()
    ordering = judge(parse_claim("lin[random 75] > lin[block 75]", ablation), seeds)
    equal = judge(parse_claim("|lin[random 75] - lin[block 75]| < 1", ablation), seeds)
    assert seeds_needed(ordering, plain("")) is None
    assert 2 < (seeds_needed(equal, plain("")) or 0) < 12


def test_minutes_are_those_of_the_stages_behind_the_columns(make_ablation: Any, make_frame: Any) -> None:
    times = {"pretrain": 120.0, "finetune": 60.0, "linear": 30.0}
    frame = make_frame({("block 75", f"{stage}/wall_seconds"): [time, time] for stage, time in times.items()})
    assert minutes_per_seed(make_ablation(), frame, "desk") == {"block 75": 3.5}
    assert minutes_per_seed(make_ablation(), frame, "desk", columns=["ft"]) == {"block 75": 3.0}
    assert minutes_per_seed(make_ablation(), frame, "smoke") == {}


def test_a_table_whose_seeds_were_added_is_judged_by_its_planned_looks(make_ablation: Any, make_frame: Any) -> None:
    ablation = make_ablation(rows={row: {} for row in "ab"}, claims=CLAIMS[:1])
    frame = measured(make_frame, {"a": [10.0, 10.4, 9.9], "b": [12.3, 11.0, 11.6]}, {})
    assert planned_looks(ablation, frame, "desk") is None
    plan = make_frame({("a", "finetune/planned_seeds"): [6.0], ("b", "finetune/planned_seeds"): [4.0]})
    added = pd.concat([frame, plan], ignore_index=True)
    assert planned_looks(ablation, added, "desk") == LOOKS
    assert planned_looks(ablation, added, "smoke") is None
    fixed, looked = (claims_table(ablation, one, "desk").iloc[0] for one in (frame, added))
    assert fixed["test"] + ", looks after 2 to 6 seeds" == looked["test"]
    assert fixed["p"] < looked["p"]
