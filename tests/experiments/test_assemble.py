"""What stages make of a spec's data: parts of a folder, shifted test sets, clips of one's own, transfer."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from experiments.ablation import SpecError, load_ablation
from experiments.assemble import assembled
from experiments.plan import Job, plan, row_jobs
from experiments.preflight import parts_used
from experiments.spec import PRETRAIN, Spec, spec_of
from experiments.stages.evaluation import Evaluation, stage_of
from experiments.stages.pretraining import Pretraining
from tests.data.clips.clip_writer import numbered, write
from tests.experiments.noise import digest

CPU = torch.device("cpu")


def spec(table: str, label: str, scale: str = "smoke", *overrides: str) -> Spec:
    ablation = load_ablation(table)
    return spec_of(ablation, ablation.rows[label], scale, 0, overrides)


def names(jobs: list[Job]) -> list[str]:
    return [job.fingerprint for job in jobs]


def test_built_in_transfer_is_told_from_the_data_of_pretraining() -> None:
    moved = spec("transfer", "photographs, default encoder")
    at_home = replace(moved, evaluate_data=moved.data)
    assert moved.evaluate_data.input_size == moved.data.input_size
    assert moved.evaluate_data.classes != moved.data.classes
    away, home = Evaluation(moved, "finetune"), Evaluation(at_home, "finetune")
    assert Pretraining(moved).fingerprint() == Pretraining(at_home).fingerprint()  # one pre-training serves both
    assert away.fingerprint() != home.fingerprint()
    assert (away.key, home.key) == ("evaluate_data", "data")


@pytest.mark.usefixtures("no_files")
@pytest.mark.parametrize("scale", ["smoke", "paper"])
def test_shifts_change_the_name_and_the_cost_of_an_evaluation_and_not_of_its_pretraining(scale: str) -> None:
    shifted = spec("robustness", "MAE ViT-L", scale)
    plain = replace(shifted, evaluate_data=shifted.data)
    assert not shifted.data.shifts  # so that no other table's run has another name for them
    tested, usual = (Evaluation(s, "finetune") for s in (shifted, plain))
    assert Pretraining(shifted).fingerprint() == Pretraining(plain).fingerprint()
    assert tested.fingerprint() != usual.fingerprint()
    assert tested.flops() > usual.flops()


def test_the_more_blocks_are_tuned_the_more_a_row_of_partial_finetuning_is_planned_to_cost() -> None:
    jobs = plan([load_ablation("partial_finetuning")], "desk", 1)
    costs = {job.cells[0].row: job.flops for job in jobs if job.stage == "partial"}
    tuned = [costs[row] for row in ("0.5", "1", "2", "4", "6", "12", "18", "24")]
    assert costs["0"] < tuned[0]
    assert tuned == sorted(tuned)
    assert len(set(tuned)) == len(tuned)


@pytest.mark.parametrize("scale", ["smoke", "desk"])
def test_every_shift_reaches_the_evaluation_and_no_two_parts_are_alike(scale: str, tmp_path: Path) -> None:
    shifted = spec("robustness", "MAE ViT-L", scale)
    few = {"pretrain": 16, "train": 16, "test": 16}
    tested = replace(shifted.evaluate_data, source={**shifted.evaluate_data.source, **few}, samples=few)
    splits, _ = assembled(Evaluation(replace(shifted, evaluate_data=tested), "finetune").look(), 0, tmp_path)
    assert set(splits.shifts) == {"corruption", "rendition", "sketch"}
    pixels = next(iter(splits.test.batches([torch.arange(8)], CPU))).images
    seen = [digest(part.augment(pixels, Generator())) for parts in splits.shifts.values() for part in parts]
    (plain,) = splits.views[0].augments
    assert len({*seen, digest(plain(pixels, Generator()))}) == 1 + len(seen) == 16


def part_of_folder(tmp_path: Path, pretrained: int, labelled: int, tested: int, classes: int = 2) -> Spec:
    """A row on parts of a folder of 24 pictures (18 cats, 6 dogs) to train and 16 to test."""
    chance = np.random.default_rng(0)
    for index in range(40):
        place = tmp_path / "pets" / ("train" if index < 24 else "test") / ("cat" if index % 4 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        if not (place / f"{index}.png").exists():
            Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{index}.png")
    overrides = (
        "data=image_folder", f"data.source.root={tmp_path / 'pets'}", f"data.classes={classes}", "data.decoded=[24,24]",
        "data.input_size=[24,24]", f"data.samples={{pretrain: {pretrained}, train: {labelled}, test: {tested}}}",
        "evaluate.finetune.protocol.recipe.batch_size=8",
    )  # fmt: skip
    return spec("mask_sampling", "random 75", "smoke", *overrides)


def test_every_stage_reads_its_part_of_a_folder_and_another_part_is_another_training(tmp_path: Path) -> None:
    found = {}
    for counts in ((24, 24, 16), (20, 24, 16), (24, 8, 16), (24, 24, 5)):
        part = part_of_folder(tmp_path, *counts)
        stages = [stage_of(part, name) for name in (PRETRAIN, "finetune")]
        first, second = (assembled(stage.look(), 0, tmp_path / "cache")[0] for stage in stages)
        assert (len(first.pretrain), len(second.train), len(second.test)) == counts
        (batch,) = second.train.batches([torch.arange(counts[1])], CPU)
        assert batch.labels.bincount().tolist() == ([18, 6] if counts[1] == 24 else [4, 4])
        found[counts] = [stage.fingerprint() for stage in stages]
    assert len({evaluation for _, evaluation in found.values()}) == 4
    pretrainings = {counts: pretraining for counts, (pretraining, _) in found.items()}
    assert len(set(pretrainings.values())) == 2  # it reads neither labelled pictures nor those to test on
    assert pretrainings[24, 8, 16] == pretrainings[24, 24, 5] == pretrainings[24, 24, 16]


def test_more_than_a_folder_holds_is_refused_before_training(tmp_path: Path) -> None:
    row_jobs(part_of_folder(tmp_path, 24, 8, 16), ["finetune"])
    asked = r"data\.samples\.pretrain from 1 to 24, data\.samples\.test from 1 to 16$"
    with pytest.raises(SpecError, match=asked):
        row_jobs(part_of_folder(tmp_path, 25, 24, 0), ["finetune"])


def test_what_is_used_of_a_folder_is_told_and_its_classes_are_counted(tmp_path: Path) -> None:
    assert parts_used(row_jobs(part_of_folder(tmp_path, 24, 24, 16), ["finetune"])) == []
    said = parts_used(row_jobs(part_of_folder(tmp_path, 20, 24, 5), ["finetune"]))
    expected = (("data.samples.pretrain=20", "24"), ("data.samples.test=5", "16"))
    assert len(said) == len(expected)
    for sentence, words in zip(said, expected, strict=True):
        assert all(word in sentence for word in (*words, str(tmp_path / "pets")))
    with pytest.raises(SpecError, match=r"pets has 2 classes, the spec says 3: set data\.classes=2$"):
        row_jobs(part_of_folder(tmp_path, 20, 24, 5, classes=3), ["finetune"])


def test_a_list_without_labels_is_refused_before_training(tmp_path: Path) -> None:
    for index in range(12):
        Image.fromarray(np.full((8, 8, 3), index, dtype=np.uint8)).save(tmp_path / f"{index}.png")
    sides = [f"{index}.png,{'train' if index < 8 else 'test'}" for index in range(12)]
    (tmp_path / "split.csv").write_text("\n".join(["path,split", *sides]))
    overrides = (
        "data=image_folder", f"data.source.root={tmp_path / 'split.csv'}", "data.classes=2", "data.decoded=[24,24]",
        "data.input_size=[24,24]", "data.samples={pretrain: 8, train: 8, test: 4}",
    )  # fmt: skip
    with pytest.raises(SpecError, match=r"split\.csv has no labels, which finetune trains on"):
        row_jobs(spec("mask_sampling", "random 75", "smoke", *overrides), ["finetune"])


@pytest.mark.parametrize("how", [["data=clip_folder", "data.decoded=[8,8]"], ["data=clip_folder_streamed"]])
def test_own_clips_are_decoded_once_or_streamed(how: list[str], tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", numbered(24, 16, 24))
    for place in ("train/run/a.mp4", "train/swim/b.mp4", "test/run/c.mp4", "test/swim/d.mp4"):
        (tmp_path / "own" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, tmp_path / "own" / place)
    if how[0].endswith("streamed"):
        how = [*how, "data.source.short_side=8", "data.input_size=[8,8]"]
    overrides = (*how, f"data.source.root={tmp_path / 'own'}", "data.source.train=2", "data.source.test=2",
                 "data.classes=2", "data.stride=1", "model.patch=[2,2,2]", "evaluate_data=same")  # fmt: skip
    own = spec("video_data_efficiency", "SSV2 169k", "smoke", *overrides)
    splits, augment = assembled(Pretraining(own).look(), 0, tmp_path / "cache")
    (batch,) = splits.pretrain.batches([torch.arange(2)], CPU)
    assert augment(batch.images, Generator()).shape == (2, 3, own.data.frames, 8, 8)
    assert batch.labels.tolist() == [0, 1]
