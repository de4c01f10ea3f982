"""The scale of a day: planned to fill a day of one card, more hidden and less trained than in the paper, no clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import run as command
from experiments.ablation import load_ablation
from experiments.hardware import accelerators, demands_of
from experiments.plan import Job, plan


def row(table: str, label: str) -> dict[str, Job]:
    return {job.stage: job for job in plan([load_ablation(table)], "day", 1, rows=[label], precision="bf16")}


def test_a_row_fills_a_day_of_one_card_and_fits_into_it() -> None:
    table, jobs = load_ablation("mask_token"), row("mask_token", "encoder w/o [M]")
    demands = demands_of(list(jobs.values()), accelerators()["a100-80gb"], 1, [table])
    assert {demand.job.stage for demand in demands} == {"pretrain", "finetune", "linear"}
    assert 12 < sum(demand.card_hours for demand in demands) < 24
    assert all(demand.fit and not demand.fit.checkpointing for demand in demands)
    scratch = demands_of(list(row("scratch_ema", "ViT-L with EMA").values()), accelerators()["a100-80gb"], 1, [table])
    assert 12 < sum(demand.card_hours for demand in scratch) < 24


def test_it_hides_more_trains_shorter_and_decodes_less_than_the_paper() -> None:
    day = row("mask_token", "encoder w/o [M]")["pretrain"]
    paper, *_ = plan([load_ablation("mask_token")], "paper", 1, rows=["encoder w/o [M]"], precision="bf16")
    assert day.spec.method["mask"]["ratio"] > paper.spec.method["mask"]["ratio"]
    assert day.spec.model.decoder["depth"] < paper.spec.model.decoder["depth"]
    assert day.facts.steps < paper.facts.steps
    assert (day.spec.data.input_size, day.spec.data.samples) == (paper.spec.data.input_size, paper.spec.data.samples)
    assert day.spec.model.encoder["width"] == 768


def test_clips_have_no_such_scale_and_all_leaves_them_out(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scale=day", "plan_only=true", f"out={out}", f"report_dir={out}"]
    assert command.main(["ablation=video_masking", *words]) == 2
    assert "video_masking has no rows at scale=day: choose smoke or desk" in capsys.readouterr().err
    chosen = command.chosen(command.parse(["ablation=all", *words]))
    assert {ablation.inputs for ablation in chosen} == {"pictures"}
