"""What a plan says of cards: hours that follow from published ones, micro-batches that fit, and what cannot fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments import run as command
from experiments import work
from experiments.ablation import SpecError, load_ablation
from experiments.hardware import HEADS, Accelerator, accelerators, check_fits, demands_of, describe_demands, fit_of
from experiments.plan import Job, plan
from experiments.sharing import Sharing
from experiments.work import Workplace
from mae.footprint import RESERVE, Activations, Footprint, State

WALL_CLOCK = load_ablation("wall_clock")
GB = 10**9


@pytest.fixture(scope="module")
def jobs() -> dict[str, Job]:
    """The pre-trainings of MAE Table 2, by row."""
    found = plan(
        [WALL_CLOCK], "paper", 1, rows=["ViT-L w/ [M], dec 8", "ViT-L, dec 8", "ViT-L, dec 1"], precision="bf16"
    )
    return {job.cells[0].row: job for job in found if job.stage == "pretrain"}


def test_the_published_hours_are_those_of_the_stated_utilisation(jobs: dict[str, Job]) -> None:
    """MAE Table 2 on 128 cores of TPU v3, at 123 TFLOP/s for a chip of two cores."""
    stated = accelerators()["a100-80gb"].utilisation
    core = Accelerator("TPU v3 core", 16.0 * GB, {"bf16": 61.5e12}, "", stated)
    for row, job in jobs.items():
        published = WALL_CLOCK.rows[row].paper["hours"]
        assert core.hours(job, devices=128) == pytest.approx(published, rel=0.2)


def test_a_plan_shows_hours_beside_the_published_ones_and_micro_batches_that_fit(jobs: dict[str, Job]) -> None:
    card = accelerators()["a100-80gb"]
    for demand in demands_of(list(jobs.values()), card, 8, [WALL_CLOCK]):
        fit = demand.fit
        assert fit is not None
        assert 8 * fit.parts * fit.micro_batch >= 4096
        assert fit.bytes <= card.memory * (1 - RESERVE)
        assert demand.published.endswith("h on 128 TPU-v3 cores")
        assert demand.rate * 3600 * demand.card_hours / 8 == pytest.approx(4096 * demand.job.facts.steps)
    told = describe_demands(list(jobs.values()), card, 8, [WALL_CLOCK])
    assert "on 8 x A100 80 GB, at 30% of 312 TFLOP/s in bf16" in told
    assert "15.4 h on 128 TPU-v3 cores" in told
    assert all(head in told for head in HEADS)


def test_more_cards_take_as_many_card_hours_and_ask_for_samples_faster(jobs: dict[str, Job]) -> None:
    card = accelerators()["h100"]
    (one,), (eight,) = (demands_of([jobs["ViT-L, dec 8"]], card, n, [WALL_CLOCK]) for n in (1, 8))
    assert eight.card_hours == pytest.approx(one.card_hours)
    assert eight.rate == pytest.approx(8 * one.rate)


def test_a_card_without_bf16_plans_in_fp32(jobs: dict[str, Job]) -> None:
    assert accelerators()["v100-32gb"].precision == "fp32"
    with pytest.raises(SpecError, match="computes in bf16, which V100 32 GB does not; choose precision=fp32"):
        demands_of(list(jobs.values()), accelerators()["v100-32gb"], 1, [WALL_CLOCK])


def test_what_cannot_fit_is_refused_with_the_smallest_change_that_makes_it_fit(jobs: dict[str, Job]) -> None:
    job = jobs["ViT-L, dec 8"]
    check_fits([job], 80.0 * GB)
    with pytest.raises(SpecError, match=r"dec 8\] seed 0 pretrain does not fit: .* are 4\.0 GB; choose devices=\d"):
        check_fits([job], 4.0 * GB)
    heavy = Footprint(State(60 * GB, 60 * GB, 120 * GB, 0, 0, unit=GB), *[Activations(GB, GB)] * 2)
    heavy_job = replace(job, facts=replace(job.facts, footprint=heavy))
    with pytest.raises(SpecError, match=r"there are 80\.0 GB; choose devices=4$"):
        check_fits([heavy_job], 80.0 * GB)
    check_fits([heavy_job], 80.0 * GB, devices=4)
    samples = replace(heavy, state=State(GB, GB, GB, 0, 0, GB), checkpointed=Activations(50.0 * GB, 40.0 * GB))
    larger = replace(job, facts=replace(job.facts, footprint=replace(samples, plain=samples.checkpointed)))
    with pytest.raises(SpecError, match=r"choose a card of 103 GB, such as accelerator=h200$"):
        check_fits([larger], 80.0 * GB)


def test_cards_are_for_plans(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablation=decoder_depth", "row=1", "scale=smoke", f"out={out}", f"report_dir={out}"]
    assert command.main([*words, "accelerator=h100"]) == 2
    assert "add plan_only=true" in capsys.readouterr().err
    assert command.main([*words, "plan_only=true", "accelerator=a100"]) == 2
    assert "or a100-80gb" in capsys.readouterr().err
    assert command.main([*words, "plan_only=true"]) == 0
    assert "card-hours" not in capsys.readouterr().out
    assert command.main([*words, "plan_only=true", "accelerator=rtx4090"]) == 0
    assert "on 1 x GeForce RTX 4090" in capsys.readouterr().out


def test_a_step_that_does_not_fit_a_card_is_done_in_parts_by_the_memory_model(
    jobs: dict[str, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs["ViT-L, dec 8"]
    place = Workplace(Path("out"), torch.device("cuda"))
    monkeypatch.setattr(work, "memory_of", lambda device: 80.0 * GB)
    found = work.sharing_of(job, place)
    assert found.micro_batch is not None
    assert 4096 % found.micro_batch == 0
    fit = fit_of(job, 80.0 * GB, 1)
    assert fit is not None
    assert found.micro_batch <= fit.micro_batch < 2 * found.micro_batch
    assert not found.recompute
    asked = replace(place, sharing=Sharing(micro_batch=64))
    assert work.sharing_of(job, asked) == asked.sharing
    monkeypatch.setattr(work, "memory_of", lambda device: 4000.0 * GB)
    assert work.sharing_of(job, place) == Sharing()
