"""How long a plan takes: by what finished runs of the same scale took, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate, cycle, repeat
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.cost import SIDE, TIMED, Pace, pace_of, product_rate
from experiments.plan import Facts, Job


def run(stage: str, rate: float | None, scale: str = "desk") -> Any:
    results = {} if rate is None else {f"{stage}/gflops_per_second": rate}
    return SimpleNamespace(stage=stage, scale=scale, results=results)


def job(stage: str, flops: float) -> Job:
    spec: Any = None  # the pace of a job does not depend on it
    return Job(spec, stage, Facts("", None, flops, 0.0, 1, 0))


def test_each_stage_goes_at_the_median_of_its_own_runs_and_workers_share_the_time() -> None:
    rates = [("pretrain", 1.0), ("pretrain", 2.0), ("pretrain", 9.0), ("finetune", 4.0), ("linear", None)]
    finished = {str(place): run(*found) for place, found in enumerate(rates)}
    pace = pace_of(finished, "desk", workers=2)
    assert pace.seconds([job("pretrain", 8e9)]) == pytest.approx(8 / 2 / 2)
    assert pace.seconds([job("pretrain", 8e9), job("finetune", 8e9)]) == pytest.approx((8 / 2 + 8 / 4) / 2)
    assert pace.seconds([job("linear", 3e9)]) == pytest.approx(3 / 3 / 2)  # never run: the median of all
    assert "about 0 min on this machine, at 4 GFLOP/s, as earlier runs went" in pace.describe([job("pretrain", 8e9)])


def test_runs_of_another_scale_say_nothing() -> None:
    pace = pace_of({"a": run("pretrain", 5.0, "smoke")}, "desk", workers=4)
    assert pace.of_stage == {}
    assert pace.of_others > 0
    assert pace.describe([job("pretrain", 1.0)]).endswith("as a matrix product suggests")
    one = Pace({}, 1.0)
    assert one.seconds([job("pretrain", 6.0)]) == 6


def clock(spans: Iterator[float]) -> Callable[[], float]:
    """A clock that moves on by one of ``spans`` whenever it is asked for the time."""
    times = accumulate(spans, initial=100.0)
    return lambda: next(times)


def test_a_busy_core_does_not_make_the_machine_slow() -> None:
    """Nine products in ten wait for others, ten times as long; the fastest of them is the machine's."""
    free, busy = 0.004, 0.04
    quiet = product_rate(clock(repeat(free)))
    assert quiet == pytest.approx(SIDE**3 / free)
    assert product_rate(clock(cycle([busy] * 5 + [free] + [busy] * 4))) == quiet


def test_the_time_for_which_products_are_measured_is_bounded() -> None:
    asked: list[float] = []

    def noted(spans: Iterator[float]) -> Callable[[], float]:
        tell = clock(spans)
        return lambda: asked.append(tell()) or asked[-1]  # type: ignore[func-returns-value]

    product_rate(noted(repeat(0.05)))
    assert TIMED <= asked[-1] - asked[0] <= TIMED + 0.05
    asked.clear()
    assert product_rate(noted(repeat(30.0))) == pytest.approx(SIDE**3 / 30)  # one is measured in any case
    assert len(asked) == 2
