"""From a resolved spec to the objects of the core, by import path. Bad values fail here, before any training."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from experiments.plan import FILE, PRETRAIN, Job, data_section
from experiments.spec import Spec, SpecError, origin_of
from mae.data.augment.clip_crops import crops
from mae.data.augment.color import Normalise
from mae.data.augment.compose import Compose
from mae.data.clips.sampling import Sampling
from mae.data.clips.source import ClipSource
from mae.data.files.listing import Listing, image_files
from mae.data.part import part_of
from mae.data.pictures.folder import staged
from mae.data.robustness.shifts import Shift
from mae.data.source import Augment, Shifted, Source, Splits, View, resident
from mae.flops import decoder_width
from mae.frames import FrameSelection, SameFrames
from mae.grid import Grid
from mae.masking import Strategy
from mae.model import Decoder, Encoder, MaskedAutoencoder, Transformer
from mae.targets import Target
from mae.train.evaluate import Evaluation
from mae.train.machine import room_for_data
from mae.train.optim import Recipe
from mae.weights import adapt

CPU = torch.device("cpu")


def make(section: dict[str, Any], **extra: Any) -> Any:
    """The object that ``section['_target_']`` names; SpecError in the words of what refused its values."""
    try:
        return instantiate(section, _convert_="all", **extra)
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise SpecError(f"{section['_target_'].rpartition('.')[2]}: {cause}") from error


def grid_of(spec: Spec) -> Grid:
    """The token grid of the spec's clips."""
    data = spec["data"]
    height, width = data["input_size"]
    return Grid.of(data["frames"], (height, width), tuple(spec["model"]["patch"]), data["channels"])


def encoder_of(spec: Spec) -> Encoder:
    """A fresh encoder."""
    model = spec["model"]
    return Encoder(
        grid_of(spec),
        Transformer(**model["encoder"]),
        class_token=model["class_token"],
        positions=model["positions"],
        mask_tokens=model["mask_tokens"],
    )


def autoencoder_of(spec: Spec) -> MaskedAutoencoder:
    """A fresh masked autoencoder."""
    model, grid = spec["model"], grid_of(spec)
    encoder = encoder_of(spec)
    target: Target = make(spec["target"])
    shape = Transformer(decoder_width(model), model["decoder"]["depth"], model["decoder"]["heads"])
    frames = frames_of(spec)
    decoder = Decoder(
        grid,
        encoder,
        shape,
        target.width(frames.target_grid(grid)),
        positions=model["positions"],
        embed_bias=model["decoder"].get("embed_bias", True),
    )
    return MaskedAutoencoder(encoder, decoder, target, spec["objective"]["loss"], frames)


def frames_of(spec: Spec) -> FrameSelection:
    """Which frames are predicted from which; specs of pictures do not say."""
    return cast(FrameSelection, make(spec["target_frames"])) if "target_frames" in spec else SameFrames()


def sampling_of(spec: Spec, stage: str) -> Sampling:
    """How a stage takes frames from clips."""
    if stage == PRETRAIN:
        return frames_of(spec).sampling(make(spec["data"]["sampling"]))
    return cast(Sampling, make(spec["evaluate"][stage]["sampling"]))


def mask_of(spec: Spec) -> Strategy:
    """The mask sampling strategy."""
    return cast(Strategy, make(spec["mask"]))


def recipe_of(spec: Spec) -> Recipe:
    """The recipe of the pre-training."""
    return cast(Recipe, make(spec["pretrain"]))


def evaluation_of(spec: Spec, stage: str) -> Evaluation:
    """The protocol of an evaluation."""
    return cast(Evaluation, make(spec["evaluate"][stage]["protocol"]))


def augment_of(spec: Spec, section: dict[str, Any]) -> Augment:
    """An augmentation, followed by the normalisation of the spec's data."""
    return Compose((make(section), Normalise(spec["data"]["mean"], spec["data"]["std"])))


def splits_of(spec: Spec, cache: Path, section: str = "data", device: torch.device = CPU) -> Splits:
    """The spec's data, loaded or made once for all jobs that name the same, on ``device`` where it fits there."""
    return _splits(json.dumps(spec[section]["source"], sort_keys=True), cache, device)


def data_of(spec: Spec, stage: str, cache: Path, device: torch.device = CPU) -> tuple[Splits, Augment]:
    """The data of a stage with the views to test on, and what is done to a training batch on the ``device``."""
    section = data_section(stage)
    data, splits = spec[section], splits_of(spec, cache, section, device)
    normalise = Normalise(data["mean"], data["std"])
    recipe = spec["augment"] if stage == PRETRAIN else spec["evaluate"][stage]["augment"]
    view: Augment = Compose((make(recipe), normalise))
    if is_clips(data):
        return _clips_of(spec, stage, splits, view)
    side, whole = (PRETRAIN, splits.pretrain) if stage == PRETRAIN else ("train", splits.train)
    source, train_augment = staged(_part_of(spec, stage, side, whole), view)
    tested = _part_of(spec, stage, "test", splits.test)
    test, test_augment = staged(tested, Compose((make(data["test_augment"]), normalise)))
    shifts = {
        name: tuple(
            Shifted(*staged(part.source, Compose((part.augment, normalise))), part.among)
            for part in shift(tested, make(data["test_augment"]))
        )
        for name, shift in shifts_of(data).items()
    }
    views = (View(test, (test_augment,)),)
    return replace(splits, pretrain=source, train=source, test=test, shifts=shifts, views=views), train_augment


def _part_of(spec: Spec, stage: str, side: str, whole: Source) -> Source:
    """As much of ``whole`` as the data of a stage says under ``samples`` for ``side``; labelled pictures balanced."""
    section = data_section(stage)
    data = spec[section]
    balanced = side == "train" and not is_clips(data)
    return part_of(whole, data["samples"][side], _samples_key(spec, section, side), balanced)


def _samples_key(spec: Spec, section: str, side: str) -> str:
    """What a user sets to have more or fewer samples of ``side``."""
    return _key(spec, section, f"samples.{side}")


def _key(spec: Spec, section: str, name: str) -> str:
    """What a user sets for ``name`` in a section of data: that of pre-training serves both where they are the same."""
    same = spec[section]["source"] == spec["data"]["source"]
    return f"{'data' if same else section}.{name}"


def is_clips(data: dict[str, Any]) -> bool:
    """Whether a section of data names clips, whose sources must be told which frames to take."""
    return "stride" in data


def _clips_of(spec: Spec, stage: str, splits: Splits, augment: Augment) -> tuple[Splits, Augment]:
    """Training draws of the frames and of a part of the clips, and the views that a test averages over."""
    data = spec[data_section(stage)]
    sampling, normalise = sampling_of(spec, stage), Normalise(data["mean"], data["std"])
    looks: dict[str, Any] = (
        {"repeats": 1, "views": {"clips": 1, "crops": 1}} if stage == PRETRAIN else spec["evaluate"][stage]
    )
    side, learn = (PRETRAIN, splits.pretrain) if stage == PRETRAIN else ("train", splits.train)
    taken = cast(ClipSource, learn).taking(sampling, repeats=looks["repeats"], seed=spec["seed"])
    source, train_augment = staged(taken, augment)
    source = _part_of(spec, stage, side, source)
    clips, count = looks["views"]["clips"], looks["views"]["crops"]
    ends = (make(data["test_augment"]),) if count == 1 else crops(data["input_size"], count)
    ways = [Compose((end, normalise)) for end in ends]
    views = []
    for number in range(clips):
        seen = cast(ClipSource, splits.test).taking(sampling, view=number, views=clips)
        found = [staged(seen, way) for way in ways]
        parts = [(_part_of(spec, stage, "test", part), way) for part, way in found]
        if all(part is seen for part, _ in found):  # one reading serves all crops
            views.append(View(parts[0][0], tuple(way for _, way in parts)))
        else:
            views += [View(part, (way,)) for part, way in parts]
    return replace(splits, pretrain=source, train=source, test=views[0].source, views=tuple(views)), train_augment


def shifts_of(data: dict[str, Any]) -> dict[str, Shift]:
    """The shifted test sets that a section of data names, none for most."""
    return {name: make(section) for name, section in data.get("shifts", {}).items()}


@lru_cache(maxsize=2)
def _splits(source: str, cache: Path, device: torch.device) -> Splits:
    splits = cast(Splits, make(json.loads(source), cache=cache))
    return resident(splits, device, room_for_data(device))


def check(jobs: Iterable[Job]) -> None:
    """Build everything that the specs name, without memory for weights; SpecError names the job that cannot be."""
    seen: set[str] = set()
    for job in jobs:
        spec = job.spec
        sections = [spec[key] for key in ("model", "mask", "target", "objective", "augment", "data", "evaluate_data")]
        recipe = spec["pretrain"] if job.stage == PRETRAIN else spec["evaluate"][job.stage]
        key = json.dumps([*sections, spec.get("target_frames"), spec["origin"], recipe])
        if key in seen:
            continue
        seen.add(key)
        try:
            with torch.device("meta"):
                if is_clips(spec[data_section(job.stage)]):
                    sampling_of(spec, job.stage)
                if job.stage == PRETRAIN:
                    mask_of(spec).visible(grid_of(spec))
                    frames_of(spec).check(mask_of(spec), grid_of(spec))
                    autoencoder_of(spec)
                    recipe_of(spec)
                    augment_of(spec, spec["augment"])
                else:
                    _check_transfer(spec)
                    _check_origin(spec, job.stage)
                    classes = spec["evaluate_data"]["classes"]
                    evaluation_of(spec, job.stage).classifier(encoder_of(spec), classes)
                    augment_of(spec, spec["evaluate"][job.stage]["augment"])
                    shifts_of(spec["evaluate_data"])
                augment_of(spec, spec[data_section(job.stage)]["test_augment"])
        except (ValueError, TypeError) as error:
            raise SpecError(f"{job.name}: {error}") from error
        _check_samples(spec, data_section(job.stage))


def _check_samples(spec: Spec, section: str) -> None:
    """A folder has as many pictures and classes as the spec says; no picture is opened to find out."""
    root = _folder_of(spec[section])
    if root is None:
        return
    held = {side: len(_listed(root, side)) for side in spec[section]["samples"]}
    wrong = [
        f"{_samples_key(spec, section, side)} from 1 to {held[side]}"
        for side, count in spec[section]["samples"].items()
        if not 1 <= count <= held[side]
    ]
    if wrong:
        raise SpecError(f"{root} has not as many pictures as are asked for: choose {', '.join(wrong)}")
    classes = len(_listed(root, "train").classes)
    if classes and spec[section]["classes"] != classes:  # pictures for pre-training may have none
        key = _key(spec, section, "classes")
        raise SpecError(f"{root} has {classes} classes, the spec says {spec[section]['classes']}: set {key}={classes}")


def parts_used(jobs: Iterable[Job]) -> list[str]:
    """What the jobs use of each folder of pictures that holds more than the spec asks for, in words."""
    found: list[str] = []
    for job in jobs:
        section = data_section(job.stage)
        root = _folder_of(job.spec[section])
        for side, count in job.spec[section]["samples"].items() if root else ():
            held, key = len(_listed(root, side)), _samples_key(job.spec, section, side)
            words = f"{key}={count}: a part of the {held} pictures of {root}"
            if count < held and words not in found:
                found.append(words)
    return found


def _folder_of(data: dict[str, Any]) -> str | None:
    """The folder of pictures that a section of data names, if that is what it names."""
    root: str | None = (
        data["source"]["root"] if data["source"]["_target_"].startswith("mae.data.pictures.folder.") else None
    )
    return root


@lru_cache
def _listed(root: str, side: str) -> Listing:
    """The pictures of one of the sides that ``samples`` counts; pre-training reads those of training."""
    return image_files(root, "test" if side == "test" else "train")


def _check_transfer(spec: Spec) -> None:
    """The encoder was made for the pictures of the pre-training; those of the evaluation must have their shape."""
    shapes = [[spec[key][name] for name in ("channels", "frames", "input_size")] for key in ("data", "evaluate_data")]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"evaluate_data has (channels, frames, input_size) {shapes[1]} and data {shapes[0]}; make them equal"
        )


def _check_origin(spec: Spec, stage: str) -> None:
    """Weights of another origin than the spec's own pre-training must fit; a file of them must be there."""
    origin = spec["origin"]
    if spec["evaluate"][stage]["init"] != "pretrained":
        return
    if origin["stage"] == FILE:
        if origin["path"] is None or not Path(origin["path"]).is_file():
            raise ValueError(
                f"origin.path={origin['path']} is no file; name the weights to start from: origin.path=FILE"
            )
    elif (other := origin_of(spec)) is not None:
        adapt(encoder_of(other).state_dict(), encoder_of(spec))


def parameter_bytes(spec: Spec) -> int:
    """Bytes of the autoencoder's fp32 parameters."""
    with torch.device("meta"):
        return 4 * sum(parameter.numel() for parameter in autoencoder_of(spec).parameters())
