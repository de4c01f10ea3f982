"""Every table of the papers as it stands in the specs: its numbers, its claims, and what each row computes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Generator, Tensor

import mae.train.evaluate
from experiments.assemble import (
    augment_of,
    autoencoder_of,
    check,
    data_of,
    encoder_of,
    evaluation_of,
    grid_of,
    is_clips,
    mask_of,
    parts_used,
    recipe_of,
    sampling_of,
    splits_of,
)
from experiments.plan import PRETRAIN, Job, exists, plan, portable, row_jobs
from experiments.spec import (
    SCALES,
    Ablation,
    Row,
    Spec,
    SpecError,
    _composed,
    ablation_names,
    groups,
    load_ablation,
    spec_of,
)
from mae.data.source import Images, Splits, View
from mae.train.loop import Runtime
from mae.train.pretrain import Views
from reports.claims import parse_claim
from tests.data.clips.clip_writer import numbered, write

FACTS = yaml.safe_load((Path(__file__).parent / "paper_facts.yaml").read_text(encoding="utf-8"))["tables"]
NAMES = ablation_names()
#: Figures that print few of their values: a claim may rest on words of the paper.
UNPRINTED = ("video_masking_ratio", "video_data_efficiency", "video_schedule")

#: What tells the rows of a table from its default row. The last two are computed at scale=smoke only.
TOLD_BY = {
    "masking_ratio": ("visible", "loss"),
    "decoder_depth": ("parameters", "loss"),
    "decoder_width": ("parameters", "loss"),
    "mask_token": ("parameters", "loss"),
    "target": ("target", "loss"),
    "augmentation": ("batch", "loss"),
    "mask_sampling": ("mask", "loss"),
    "wall_clock": ("parameters",),
    "schedule": ("steps",),
    "partial_finetuning": ("trained",),
    "scratch": ("origin",),
    "scratch_ema": ("averaged", "weights"),
    "model_size": ("origin",),
    "transfer": ("data",),
    "robustness": ("origin",),
    "video_decoder_depth": ("parameters", "loss"),
    "video_masking": ("mask", "loss"),
    "video_masking_ratio": ("visible", "loss"),
    "video_target": ("frames",),
    "video_pretraining_strategy": ("start",),
    "video_pretraining_data": ("start",),
    "video_loss": ("loss",),
    "video_small_data": ("data",),
    "video_efficiency": ("start",),
    "video_transfer": ("start",),
    "video_data_efficiency": ("start",),
    "video_schedule": ("steps",),
    "video_model_size": ("start",),
}


@pytest.fixture(autouse=True, scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No data set named by the environment, and stand-ins for files of weights."""
    weights = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    weights.write_bytes(b"stand-in")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IMAGENET", "CIFAR10", "INAT2017", "INAT2018", "INAT2019", "PLACES205", "PLACES365"):
            patch.delenv(name, raising=False)
        for name in ("IMAGENET_C", "IMAGENET_A", "IMAGENET_R", "IMAGENET_SKETCH", "SSV2", "K400", "UCF101", "HMDB51"):
            patch.delenv(name, raising=False)
        for name in ("DALLE_ENCODER", "VIT_B_IN21K"):
            patch.setenv(name, str(weights))
        _composed.cache_clear()  # specs hold what the environment named when they were composed
        yield
    _composed.cache_clear()


def rows_at(ablation: Ablation, scale: str) -> list[Row]:
    """The rows to be had at a scale. At gpu those that only set values are left to the other scales, for time."""
    rows = [row for row in ablation.rows.values() if exists(row, scale)]
    if scale != "gpu":
        return rows
    chosen = [override.partition("=")[0] in groups() for row in rows for override in row.set.get("all", ())]
    return [row for row in rows if "gpu" in row.set or row.label == ablation.default or any(chosen)]


@cache
def spec(name: str, label: str, scale: str) -> Spec:
    ablation = load_ablation(name)
    return spec_of(ablation, ablation.rows[label], scale, seed=0)


def jobs_of(ablation: Ablation, label: str, scale: str) -> list[Job]:
    return plan([ablation], scale, 1, rows=[label])


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.float().numpy().tobytes()).hexdigest()[:16]


def pictures(count: int = 32) -> Images:
    """Fixed noise with fixed labels."""
    pixels = torch.randint(256, (count, 3, 32, 32), generator=Generator().manual_seed(0), dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10, tuple(map(str, range(10))))


def noise(spec: Spec, count: int = 4) -> Tensor:
    """Fixed noise in the shape that pre-training samples."""
    if not is_clips(spec["data"]):
        return pictures(count).pixels
    shape = (count, 3, sampling_of(spec, PRETRAIN).frames, *spec["data"]["input_size"])
    return torch.randint(256, shape, generator=Generator().manual_seed(0), dtype=torch.uint8)


def visible(ablation: Ablation, spec: Spec) -> int:
    return mask_of(spec).visible(grid_of(spec))


def mask(ablation: Ablation, spec: Spec) -> list[list[int]]:
    drawn: list[list[int]] = mask_of(spec)(4, grid_of(spec), Generator().manual_seed(0)).keep.tolist()
    return drawn


def parameters(ablation: Ablation, spec: Spec) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in autoencoder_of(spec).parameters())


def steps(ablation: Ablation, spec: Spec) -> int:
    return recipe_of(spec).steps(spec["data"]["samples"]["pretrain"])


def batch(ablation: Ablation, spec: Spec) -> str:
    return digest(augment_of(spec, spec["augment"])(noise(spec), Generator().manual_seed(0)))


def target(ablation: Ablation, spec: Spec) -> tuple[str, int]:
    with torch.device("meta"):
        model = autoencoder_of(spec)
    return type(model.target).__name__, model.decoder.head.out_features


def loss(ablation: Ablation, spec: Spec) -> float:
    """Of one fixed batch and fixed weights, the target fitted as pre-training fits it."""
    torch.manual_seed(0)
    model, grid, augment = autoencoder_of(spec), grid_of(spec), augment_of(spec, spec["augment"])
    model.target = model.target.prepare(grid, Views(pictures(), augment, Runtime(0)))
    generator = Generator().manual_seed(0)
    clips = augment(noise(spec), generator)
    return float(model(clips, mask_of(spec)(len(clips), grid, generator)).detach())


def stages(ablation: Ablation) -> list[str]:
    return sorted({column.stage for column in ablation.columns.values()} - {PRETRAIN})


def trained(ablation: Ablation, spec: Spec) -> list[set[str]]:
    """Names of the parameters that each evaluation tunes."""
    with torch.device("meta"):
        models = [evaluation_of(spec, stage).classifier(encoder_of(spec), 10) for stage in stages(ablation)]
    return [{name for name, p in model.named_parameters() if p.requires_grad} for model in models]


def origin(ablation: Ablation, spec: Spec) -> tuple[list[bool], int]:
    """Whether each evaluation starts from random weights, and the size of the encoder that it starts from."""
    jobs = [job for job in row_jobs(spec, stages(ablation)) if job.stage != PRETRAIN]
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in encoder_of(spec).parameters())
    return [job.needs is None for job in jobs], size


def start(ablation: Ablation, spec: Spec) -> list[Any]:
    """What each evaluation starts from: a training of this plan, a file, or nothing; and the size of the encoder."""
    jobs = [job for job in row_jobs(spec, stages(ablation)) if job.spec is spec and job.stage != PRETRAIN]
    starts = [job.needs or (spec["evaluate"][job.stage]["init"], spec["origin"]["path"]) for job in jobs]
    return [*starts, spec["model"]["encoder"]]


def frames(ablation: Ablation, spec: Spec) -> tuple[list[int], int, int]:
    """The frames that pre-training takes of a long clip, and how many values it predicts of how many slots."""
    with torch.device("meta"):
        model = autoencoder_of(spec)
    ids = sampling_of(spec, PRETRAIN).test(100, 0, 1)
    return (ids - ids[0]).tolist(), model.decoder.head.out_features, model.target_grid.t


def averaged(ablation: Ablation, spec: Spec) -> tuple[list[bool], int]:
    """Whether each evaluation tests averaged weights, and the size of the encoder."""
    return [evaluation_of(spec, s).ema is not None for s in stages(ablation)], origin(ablation, spec)[1]  # type: ignore[attr-defined]


def weights(ablation: Ablation, spec: Spec) -> list[str]:
    """The weights that are tested after a few steps from the same encoder on the same pictures."""
    found: list[str] = []

    def record(model: torch.nn.Module, *_: Any) -> float:
        found.append(digest(torch.cat([p.detach().flatten() for p in model.parameters()])))
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mae.train.evaluate, "accuracy", record)
        for stage in stages(ablation):
            torch.manual_seed(0)
            train, test = (
                augment_of(spec, section)
                for section in (spec["evaluate"][stage]["augment"], spec["data"]["test_augment"])
            )
            source = Splits(pictures(), pictures(), pictures(), "noise", views=(View(pictures(), (test,)),))
            evaluation_of(spec, stage)(encoder_of(spec), source, train, Runtime(0))
    return found


def data(ablation: Ablation, spec: Spec) -> tuple[int, str]:
    """Classes and first test picture of the data that evaluations read, and of what size the encoder is."""
    classes, size = spec["evaluate_data"]["classes"], str(spec["model"]["encoder"])
    if is_clips(spec["data"]):
        return classes, f"{spec['evaluate_data']['samples']['train']} {size}"
    if spec["scale"] == "paper":  # the pictures are not here
        return classes, size
    first = splits_of(spec, Path("unused"), "evaluate_data").test.batches([torch.arange(4)], torch.device("cpu"))
    return classes, digest(next(iter(first)).images) + size


OBSERVED: dict[str, Callable[[Ablation, Spec], Any]] = {
    f.__name__: f
    for f in (
        visible,
        mask,
        parameters,
        steps,
        batch,
        target,
        frames,
        trained,
        origin,
        start,
        averaged,
        data,
        loss,
        weights,
    )
}


def test_every_table_is_held_to_facts() -> None:
    assert set(NAMES) == set(FACTS) == set(TOLD_BY)


@pytest.mark.parametrize("name", NAMES)
def test_published_values_are_those_of_the_paper(name: str) -> None:
    rows = load_ablation(name).rows.values()
    stated = {row.label: {key: value for key, value in row.paper.items() if value is not None} for row in rows}
    assert {label: cells for label, cells in stated.items() if cells} == FACTS[name]


@pytest.mark.parametrize("name", NAMES)
def test_published_values_satisfy_every_claim(name: str) -> None:
    ablation = load_ablation(name)
    assert ablation.claims
    published = {text: parse_claim(text, ablation).paper for text in ablation.claims}
    allowed = (True, None) if name in UNPRINTED else (True,)
    assert {text: satisfied for text, satisfied in published.items() if satisfied not in allowed} == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_table_belongs_to_the_paper_of_its_method(name: str) -> None:
    ablation = load_ablation(name)
    assert ablation.paper["arxiv"] == {"mae": "2111.06377v2", "videomae": "2203.12602v3"}[ablation.method]


@pytest.mark.parametrize("name", NAMES)
def test_a_base_chooses_groups_only(name: str) -> None:
    base = load_ablation(name).base
    assert {override.partition("=")[0] for overrides in base.values() for override in overrides} <= set(groups())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_every_row_can_be_built_and_is_told_from_the_default_row(name: str, scale: str) -> None:
    ablation = load_ablation(name)
    rows = rows_at(ablation, scale)
    jobs = {row.label: jobs_of(ablation, row.label, scale) for row in rows}
    check(job for of_row in jobs.values() for job in of_row)

    fingerprints = {label: tuple(job.fingerprint for job in of_row) for label, of_row in jobs.items()}
    assert len(set(fingerprints.values())) == len(rows)

    default = ablation.default or (rows[0].label if rows else "")
    for observable in TOLD_BY[name]:
        if observable in ("loss", "weights") and scale != "smoke":
            continue
        observe = OBSERVED[observable]
        usual = observe(ablation, spec(name, default, scale)) if rows else None
        same = [r.label for r in rows if r.label != default and observe(ablation, spec(name, r.label, scale)) == usual]
        assert same == [], f"{observable} of these rows is that of the default row"


def test_built_in_transfer_is_told_from_the_data_of_pretraining() -> None:
    ablation = load_ablation("transfer")
    moved = spec("transfer", "photographs, default encoder", "smoke")
    at_home = {**moved, "evaluate_data": moved["data"]}
    for choice in (moved, at_home):
        assert choice["evaluate_data"]["input_size"] == moved["data"]["input_size"]
    assert moved["evaluate_data"]["classes"] != at_home["evaluate_data"]["classes"]
    needs = [[job.needs for job in row_jobs(s, stages(ablation)) if job.needs] for s in (moved, at_home)]
    assert needs[0] == needs[1]  # one pre-training serves both
    assert row_jobs(moved, stages(ablation))[-1].fingerprint != row_jobs(at_home, stages(ablation))[-1].fingerprint


@pytest.mark.parametrize("scale", SCALES)
def test_shifts_change_the_name_and_the_cost_of_an_evaluation_and_not_of_its_pretraining(scale: str) -> None:
    shifted = spec("robustness", "MAE ViT-L", scale)
    plain = {**shifted, "evaluate_data": shifted["data"]}
    assert "shifts" not in shifted["data"]  # so that no other table's run has another name for them
    (source, tested), (same, usual) = (row_jobs(s, ["finetune"]) for s in (shifted, plain))
    assert source.fingerprint == same.fingerprint
    assert tested.fingerprint != usual.fingerprint
    assert tested.flops > usual.flops


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
    small = {"source": {**shifted["evaluate_data"]["source"], **few}, "samples": few}
    sections = {name: {**shifted[name], **small} for name in ("data", "evaluate_data")}
    splits, _ = data_of({**shifted, **sections}, "finetune", tmp_path)
    assert set(splits.shifts) == {"corruption", "rendition", "sketch"}
    pixels = next(iter(splits.test.batches([torch.arange(8)], torch.device("cpu")))).images
    seen = [digest(part.augment(pixels, Generator())) for parts in splits.shifts.values() for part in parts]
    (plain,) = splits.views[0].augments
    assert len({*seen, digest(plain(pixels, Generator()))}) == 1 + len(seen) == 16


def part_of_folder(tmp_path: Path, pretrained: int, labelled: int, tested: int) -> Spec:
    """A row on parts of a folder of 24 pictures (18 cats, 6 dogs) to train and 16 to test."""
    chance = np.random.default_rng(0)
    for index in range(40):
        place = tmp_path / "pets" / ("train" if index < 24 else "test") / ("cat" if index % 4 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{index}.png")
    overrides = (
        "data=image_folder", f"data.source.root={tmp_path / 'pets'}", "data.classes=2", "data.decoded=[24,24]",
        "data.input_size=[24,24]", f"data.samples={{pretrain: {pretrained}, train: {labelled}, test: {tested}}}",
    )  # fmt: skip
    ablation = load_ablation("mask_sampling")
    return spec_of(ablation, ablation.rows["random 75"], "smoke", 0, overrides)


def test_every_stage_reads_its_part_of_a_folder_and_another_part_is_another_training(tmp_path: Path) -> None:
    found = []
    for pretrained, labelled, tested in ((24, 24, 16), (20, 24, 16), (24, 8, 16), (24, 24, 5)):
        part = part_of_folder(tmp_path, pretrained, labelled, tested)
        first, second = (data_of(part, stage, tmp_path / "cache")[0] for stage in (PRETRAIN, "finetune"))
        assert (len(first.pretrain), len(second.train), len(second.test)) == (pretrained, labelled, tested)
        (batch,) = second.train.batches([torch.arange(labelled)], torch.device("cpu"))
        assert batch.labels.bincount().tolist() == ([18, 6] if labelled == 24 else [4, 4])
        found.append([job.fingerprint for job in row_jobs(part, ["finetune"])])
    assert [len(set(names)) for names in zip(*found, strict=True)] == [4, 4]


def test_more_than_a_folder_holds_is_refused_before_training(tmp_path: Path) -> None:
    check(row_jobs(part_of_folder(tmp_path, 24, 8, 16), ["finetune"]))
    asked = r"data\.samples\.pretrain from 1 to 24, data\.samples\.test from 1 to 16$"
    with pytest.raises(SpecError, match=asked):
        check(row_jobs(part_of_folder(tmp_path, 25, 24, 0), ["finetune"]))


def test_what_is_used_of_a_folder_is_told_and_its_classes_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    assert parts_used(row_jobs(part_of_folder(tmp_path, 24, 24, 16), ["finetune"])) == []
    part = part_of_folder(tmp_path, 20, 24, 5)
    assert parts_used(row_jobs(part, ["finetune"])) == [
        f"data.samples.pretrain=20: a part of the 24 pictures of {root}",
        f"data.samples.test=5: a part of the 16 pictures of {root}",
    ]
    part["data"]["classes"] = part["evaluate_data"]["classes"] = 3
    with pytest.raises(SpecError, match=r"pets has 2 classes, the spec says 3: set data\.classes=2$"):
        check(row_jobs(part, ["finetune"]))


@pytest.mark.parametrize("how", [["data=clip_folder", "data.decoded=[8,8]"], ["data=clip_folder_streamed"]])
def test_own_clips_are_decoded_once_or_streamed(how: list[str], tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.mp4", numbered(24, 16, 24))
    for place in ("train/run/a.mp4", "train/swim/b.mp4", "test/run/c.mp4"):
        (tmp_path / "own" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, tmp_path / "own" / place)
    if how[0].endswith("streamed"):
        how = [*how, "data.source.short_side=8", "data.input_size=[8,8]"]
    overrides = (*how, f"data.source.root={tmp_path / 'own'}", "data.source.train=2", "data.source.test=1",
                 "data.classes=2", "data.stride=1", "evaluate_data=same")  # fmt: skip
    ablation = load_ablation("video_data_efficiency")
    own = spec_of(ablation, ablation.rows["SSV2 169k"], "smoke", 0, overrides)
    splits, augment = data_of(own, PRETRAIN, tmp_path / "cache")
    (batch,) = splits.pretrain.batches([torch.arange(2)], torch.device("cpu"))
    assert augment(batch.images, Generator()).shape == (2, 3, own["data"]["frames"], 8, 8)
    assert batch.labels.tolist() == [0, 1]


def test_fingerprint_is_the_same_in_another_process() -> None:
    code = (
        "from experiments.spec import load_ablation, spec_of; from experiments.plan import row_jobs;"
        "a = load_ablation('mask_sampling'); s = spec_of(a, a.rows['block 50'], 'desk', 0);"
        "print(*(j.fingerprint for j in row_jobs(s, ['finetune', 'linear'])))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    here = row_jobs(spec("mask_sampling", "block 50", "desk"), ["finetune", "linear"])
    assert ran.stdout.split() == [job.fingerprint for job in here]


def test_identity_names_the_content_of_a_folder_and_not_its_place(tmp_path: Path) -> None:
    for place in ("here", "there"):
        for split in ("train", "test"):
            (tmp_path / place / split / "cat").mkdir(parents=True)
            (tmp_path / place / split / "cat" / "1.png").write_bytes(b"picture")
    here, there = ({"source": {"root": str(tmp_path / place)}, "flip": True} for place in ("here", "there"))
    assert portable(here) == portable(there) != here
    assert portable(here)["flip"] is True
    (tmp_path / "other" / "train" / "dog").mkdir(parents=True)
    (tmp_path / "other" / "train" / "dog" / "1.png").write_bytes(b"picture")
    assert portable({"source": {"root": str(tmp_path / "other")}, "flip": True}) != portable(here)


def test_identity_names_the_content_of_a_file_and_not_its_place(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"other" if name == "c" else b"weights")
    a, b, c = (portable([{"path": str(tmp_path / name)}]) for name in ("a", "b", "c"))
    assert a == b != c
