"""From the sections of a spec to the objects of the core. Bad values fail here, before any training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from experiments.ablation import SpecError, nearest
from experiments.spec import Data, Section, Spec
from mae.data.augment.clip_crops import crops
from mae.data.augment.color import Normalise
from mae.data.augment.compose import Compose, CropsAsRead, Picked, Stacked, staged
from mae.data.augment.crops import CenterCrop
from mae.data.clips.sampling import Sampling
from mae.data.clips.source import ClipSource
from mae.data.part import part_of
from mae.data.robustness.shifts import Shift
from mae.data.source import Augment, DataSet, Shifted, Source, Splits, View, resident
from mae.errors import DataError
from mae.grid import POSITIONS, Grid
from mae.methods import Method
from mae.model import Encoder, Transformer
from mae.train.machine import room_for_data

CPU = torch.device("cpu")


def make(section: Section, **extra: Any) -> Any:
    """The object that ``section['_target_']`` names; SpecError in the words of what refused its values."""
    try:
        return instantiate(dict(section), _convert_="all", **extra)
    except InstantiationException as error:
        reason = str(error.__cause__ or error).partition("\nAre you sure")[0]
        raise SpecError(f"{section['_target_'].rpartition('.')[2]}: {' '.join(reason.split())}") from error


def class_of(section: Section) -> Any:
    """What ``section['_target_']`` names; SpecError if it cannot be imported."""
    try:
        return get_object(section["_target_"])
    except Exception as error:  # whatever the module that holds it raises
        reason = str(error).partition("\nAre you sure")[0]
        raise SpecError(" ".join(reason.split())) from error


def grid_of(spec: Spec) -> Grid:
    """The token grid of what the encoder sees."""
    data = spec.data
    return Grid.of(data.frames, data.input_size, spec.model.patch, data.channels)


def encoder_of(spec: Spec) -> Encoder:
    """A fresh encoder."""
    model = spec.model
    if model.positions not in POSITIONS:
        raise SpecError(f"unknown model.positions {model.positions!r}: {nearest(model.positions, POSITIONS)}")
    return Encoder(
        grid_of(spec),
        Transformer(**model.encoder),
        class_token=model.class_token,
        positions=model.positions,
        mask_tokens=model.mask_tokens,
    )


def method_of(spec: Spec) -> Method:
    """A fresh encoder and the pre-training objective on it."""
    kind = class_of(spec.method)
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise SpecError(f"{spec.method['_target_']} is no mae.methods.Method; see CONTRIBUTING.md, 'A method'")
    return cast(Method, make(spec.method, encoder=encoder_of(spec)))


def data_set(source: Section) -> DataSet:
    """The data set that a section names; SpecError if it is none, or has no version."""
    found = make(source)
    if not isinstance(found, DataSet):
        raise SpecError(
            f"{source['_target_']} is no mae.data.source.DataSet: it needs a version and an identity; "
            f"see CONTRIBUTING.md, 'A data set'"
        )
    return found


def shifts_of(data: Data) -> dict[str, Shift]:
    """The shifted test sets that a section of data names, none for most."""
    return {name: make(section) for name, section in data.shifts.items()}


@dataclass(frozen=True)
class Look:
    """How a stage looks at its ``data``, which a user sets under ``key``.

    ``side`` is what it trains on (``pretrain`` or ``train``), ``tested`` what it tests on (``test`` or ``val``, or
    ``pretrain`` where there is nothing else), ``augment`` what it does to training samples. Of clips, frames are taken
    by ``sampling``, each clip that is read is used ``repeats`` times, and a test averages over ``views``.
    """

    data: Data
    key: str
    side: str
    augment: Section
    tested: str = "test"
    sampling: Sampling | None = None
    repeats: int = 1
    views: Mapping[str, int] | None = None


def splits_of(data: Data, cache: Path, device: torch.device = CPU) -> Splits:
    """All of a data set, loaded or made once for all jobs that name the same, on ``device`` where it fits there."""
    return _splits(json.dumps(data.source, sort_keys=True), cache, device)


@lru_cache(maxsize=2)
def _splits(source: str, cache: Path, device: torch.device) -> Splits:
    return resident(data_set(json.loads(source))(cache), device, room_for_data(device))


def augment_of(section: Section, data: Data) -> Augment:
    """An augmentation, followed by the normalisation of the data."""
    return Compose((make(section), Normalise(data.mean, data.std)))


def assembled(look: Look, seed: int, cache: Path, device: torch.device = CPU) -> tuple[Splits, Augment]:
    """What a stage trains on and the views it tests on, and what is done to a training batch on the ``device``."""
    splits = splits_of(look.data, cache, device)
    whole = splits.pretrain if look.side == "pretrain" else splits.train
    held_out = _held_out(look, splits)
    if look.sampling is None:
        source, augment = _pictures(look, whole)
        views, shifts = _picture_views(look, held_out)
    else:
        source, augment = _clips(look, cast(ClipSource, whole), seed)
        views, shifts = _clip_views(look, cast(ClipSource, held_out)), {}
    held = {"pretrain": source, "train": source, "test": views[0].source, "views": views, "shifts": shifts}
    return replace(splits, **held), augment  # type: ignore[arg-type]


def _held_out(look: Look, splits: Splits) -> Source:
    """What is tested on; DataError where a data set keeps nothing for validation."""
    if look.tested != "val":
        return splits.pretrain if look.tested == "pretrain" else splits.test
    if splits.val is None:
        raise DataError(
            f"the data keeps nothing for validation, and what is chosen is not chosen on the test set; set "
            f"{look.key}.source.val_share=0.1, or put files into val/"
        )
    return splits.val


def _pictures(look: Look, whole: Source) -> tuple[Source, Augment]:
    return staged(_part(look, look.side, whole, balanced=look.side == "train"), augment_of(look.augment, look.data))


def _clips(look: Look, whole: ClipSource, seed: int) -> tuple[Source, Augment]:
    taken = whole.taking(cast(Sampling, look.sampling), repeats=look.repeats, seed=seed)
    source, augment = staged(taken, augment_of(look.augment, look.data))
    return _part(look, look.side, source), augment


def _part(look: Look, side: str, whole: Source, balanced: bool = False) -> Source:
    """As much of ``whole`` as the data says under ``samples`` for ``side``; labelled pictures balanced."""
    count = look.data.samples.get(side, len(whole))
    return part_of(whole, count, f"{look.key}.samples.{side}", balanced)


def _picture_views(look: Look, test: Source) -> tuple[tuple[View, ...], dict[str, tuple[Shifted, ...]]]:
    """The one view of pictures, and the shifted test sets made of them or beside them."""
    data, normalise = look.data, Normalise(look.data.mean, look.data.std)
    tested = _part(look, look.tested, test)
    source, augment = staged(tested, augment_of(data.test_augment, data))
    shifts = {
        name: tuple(
            Shifted(*staged(part.source, Compose((part.augment, normalise))), part.among)
            for part in shift(tested, make(data.test_augment))
        )
        for name, shift in shifts_of(data).items()
    }
    return (View(source, (augment,)),), shifts


def _clip_views(look: Look, test: ClipSource) -> tuple[View, ...]:
    """The clips of a film and the crops of each that a test averages over."""
    data, normalise = look.data, Normalise(look.data.mean, look.data.std)
    asked = look.views or {"clips": 1, "crops": 1}
    clips, count = asked["clips"], asked["crops"]
    centre = make(data.test_augment)
    ends = (
        (centre,)
        if count == 1
        else crops(centre if isinstance(centre, CenterCrop) else CenterCrop(data.input_size), count)
    )
    views: list[View] = []
    for number in range(clips):
        seen = test.taking(cast(Sampling, look.sampling), view=number, views=clips)
        # one reading serves all crops
        if isinstance(seen, CropsAsRead):
            source: Source = seen.through(Stacked(ends))
            ways: tuple[Augment, ...] = tuple(Picked(index, normalise) for index in range(count))
        else:
            source, ways = seen, tuple(Compose((end, normalise)) for end in ends)
        views.append(View(_part(look, look.tested, source), ways))
    return tuple(views)
