"""What is missing is listed by a plan, all of it at once, and ends a run in one sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from experiments import run as command
from experiments.ablation import SpecError, load_ablation
from experiments.needs import check_needs, needs_of
from experiments.plan import Job, plan

FILES = ("IMAGENET", "SSV2", "K400", "AVA", "DALLE_ENCODER", "VIT_B_IN21K", "IMAGENET_C", "IMAGENET_A", "IMAGENET_R")


@pytest.fixture(autouse=True)
def _nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*FILES, "IMAGENET_SKETCH"):
        monkeypatch.delenv(name, raising=False)


def at_paper_scale(table: str, row: str, *overrides: str) -> list[Job]:
    return plan([load_ablation(table)], "paper", 1, overrides, [row], "bf16")


def keys(jobs: list[Job]) -> set[str]:
    return {need.key for need in needs_of(jobs)}


def test_data_shifts_tokenizer_and_weights_are_needs_of_those_that_read_them() -> None:
    shifts = {f"evaluate_data.shifts.{name}.root" for name in ("corruption", "adversarial", "rendition", "sketch")}
    tokens = at_paper_scale("target", "dVAE token")
    assert keys([job for job in tokens if job.stage == "pretrain"]) == {"data.source.root", "tokenizer.path"}
    assert keys([job for job in tokens if job.stage != "pretrain"]) == {"data.source.root"}
    shifted = at_paper_scale("robustness", "scratch ViT-B")
    assert keys(shifted) == {"data.source.root", *shifts}
    supervised = at_paper_scale("video_pretraining_strategy", "ImageNet-21k sup.")
    assert keys(supervised) == {"data.source.root", "origin.path"}
    (job,) = shifted
    data = job.spec.evaluate_data
    sketch = {**data.shifts["sketch"], "root": "/some/folder"}
    spec = replace(job.spec, evaluate_data=replace(data, shifts={**data.shifts, "sketch": sketch}))
    named = [replace(job, spec=spec)]
    assert keys(named) == keys(shifted) - {"evaluate_data.shifts.sketch.root"}


@pytest.mark.parametrize(
    ("table", "row"),
    [
        ("target", "dVAE token"),
        ("robustness", "MAE ViT-B"),
        ("video_pretraining_strategy", "ImageNet-21k sup."),
        ("video_action_detection", "VideoMAE ViT-B K400"),
    ],
)
def test_every_need_of_a_table_of_the_project_says_where_it_is_had(table: str, row: str) -> None:
    assert [need for need in needs_of(at_paper_scale(table, row)) if " in the environment: " not in need.had] == []


def test_a_plan_goes_on_to_its_end_and_lists_what_is_missing(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ablation=target,robustness", "row=dVAE token", "row=scratch ViT-B", "scale=paper", f"out={out}"]
    words += [f"report_dir={out / 'report'}", "device=cpu"]
    assert command.main([*words, "plan_only=true"]) == 0
    told = capsys.readouterr().out
    assert "4 of 4 are still to run" in told
    assert "tokenizer.path=PATH (DALLE_ENCODER in the environment" in told
    assert (
        "data.source.root=PATH (IMAGENET in the environment: ImageNet-1K, https://image-net.org/download): 4," in told
    )
    assert command.main(words) == 2
    refused = capsys.readouterr().err.strip().splitlines()
    assert len(refused) == 1
    for key in ("data.source.root", "tokenizer.path", "evaluate_data.shifts.corruption.root"):
        assert f"{key}=PATH (" in refused[0]


def test_a_folder_of_ones_own_that_is_not_named_ends_a_run_with_the_key_to_set() -> None:
    jobs = plan([load_ablation("decoder_depth")], "smoke", 1, ["data=image_folder", "data.decoded=[24,24]",
                "data.input_size=[24,24]"], ["1"])  # fmt: skip
    with pytest.raises(SpecError, match=r"nobody says where they lie; add data\.source\.root=PATH$"):
        check_needs(jobs)
