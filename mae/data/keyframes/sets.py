"""Films with keyframes as the data of a study, in the layout in which AVA is published."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import torch

from mae.data.clips.source import DecodedClips
from mae.data.clips.video import SUFFIXES
from mae.data.files.content import content_of
from mae.data.files.listing import Listing
from mae.data.files.tally import MAX_FAILED
from mae.data.keyframes import ava
from mae.data.keyframes.files import KeyframeFiles
from mae.data.keyframes.source import DecodedKeyframes, Timing
from mae.data.keyframes.table import Keyframes, Task
from mae.data.source import DataSet, Holding, Source, Splits, Use
from mae.errors import DataError


@dataclass(frozen=True)
class Layout:
    """The names of AVA's files: those of v2.2, and of the detections that go with it."""

    train_boxes: str = "ava_train_v2.2.csv"
    test_boxes: str = "ava_val_v2.2.csv"
    train_excluded: str = "ava_train_excluded_timestamps_v2.2.csv"
    test_excluded: str = "ava_val_excluded_timestamps_v2.2.csv"
    detections: str = "ava_val_predicted_boxes.csv"
    label_map: str = "ava_action_list_v2.2_for_activitynet_2019.pbtxt"

    def boxes(self, side: str) -> str:
        return self.train_boxes if side == "train" else self.test_boxes

    def excluded(self, side: str) -> str:
        return self.train_excluded if side == "train" else self.test_excluded


def read_side(layout: Layout, root: Path, side: str, actions: int, least: float) -> tuple[Keyframes, Task | None]:
    """Read the keyframes of a side from the files under ``root``: what is trained on, or tested on with its task."""
    without = ava.excluded(root / layout.excluded(side))
    truth = ava.annotated(root / layout.boxes(side), actions, without)
    if side == "train":
        return truth, None
    detected, names = ava.detected(root / layout.detections, actions, least, without), root / layout.label_map
    evaluated = ava.label_map(names, actions).evaluated
    if not truth.actions[:, list(evaluated)].any():
        raise DataError(
            f"{root / layout.boxes(side)}: no box has an action that {names} names; nothing can be evaluated."
        )
    return detected, Task(detected, truth, evaluated)


def decoded_keyframes(
    layout: Layout, root: Path, side: str, films: DecodedClips, actions: int, timing: Timing, least: float
) -> DecodedKeyframes:
    """The keyframes of a side whose ``films`` are decoded: each is named by the stem of its file."""
    table, task = read_side(layout, root, side, actions, least)
    place_of = {Path(name).stem: place for place, name in enumerate(films.names)}
    film_of = torch.tensor([place_of[key.film] for key in table.keys])
    names = ava.label_map(root / layout.label_map, actions).names
    return DecodedKeyframes(films, film_of, table, names, timing, task)


@dataclass(frozen=True, kw_only=True)
class AVA(Layout, DataSet):
    """AVA by its official files, all under ``root``, or a set of one's own that is laid down in the same way.

    Films lie in the folder ``videos``, named by their ids, whatever their suffix; each has ``rate`` frames a second and
    starts at second ``starts_at`` of what keyframes count. ``classes`` is the number of actions that ids may name.
    Tests take detections with a score of at least ``least_score``. Frames have 1 or 3 ``channels`` and are scaled, so
    that the shorter side has ``short_side`` pixels. ``workers`` is the number of processes that read them.
    """

    root: str | None
    classes: int
    videos: str = "videos"
    rate: float = 30.0
    starts_at: float = 900.0
    least_score: float = 0.8
    short_side: int = 256
    channels: int = 3
    workers: int | None = None
    version: ClassVar[int] = 1
    boxed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.short_side < 1 or self.channels not in (1, 3):
            raise DataError(
                f"AVA: rate={self.rate}, short_side={self.short_side}, channels={self.channels}: give a rate above "
                "0, at least one pixel, and 1 channel or 3."
            )

    def streams(self) -> bool:
        return True

    def holds(self) -> Holding | None:
        if self.root is None:
            return None
        train, test = (len(self._side(side)[0]) for side in ("train", "test"))
        return Holding(self.root, {"pretrain": train, "train": train, "test": test}, self.classes, self.channels)

    def reads(self, use: Use) -> dict[str, object]:
        """How films become pixels and keyframes, and the content of all files; none while no root is given."""
        how = {name: getattr(self, name) for name in ("classes", "rate", "starts_at", "least_score", "short_side")}
        grey = {} if self.channels == 3 else {"channels": self.channels}
        if self.root is None:
            return {**how, **grey, "files": None}
        names = [getattr(self, field.name) for field in fields(Layout)]
        films = sorted({name for side in ("train", "test") for name in self._films(self._side(side)[0]).names})
        return {
            **how,
            **grey,
            "stated": content_of(Path(self.root), names),
            "films": content_of(Path(self.root) / self.videos, films),
        }

    def __call__(self, cache: Path) -> Splits:
        timing = Timing(self.rate, self.starts_at)

        def source(side: str) -> Source:
            table, task = self._side(side)
            return KeyframeFiles(
                self._films(table), table, timing, task,
                short_side=self.short_side, channels=self.channels, workers=self.workers,
            )  # fmt: skip

        train = source("train")
        return Splits(train, train, source("test"))

    def _side(self, side: str) -> tuple[Keyframes, Task | None]:
        if self.root is None:
            raise DataError("The data is a folder of films and none is named; add evaluate_data.source.root=PATH.")
        return read_side(self, Path(self.root), side, self.classes, self.least_score)

    def _films(self, table: Keyframes) -> Listing:
        """The film of each keyframe; DataError when more of them than may be unreadable are not there."""
        folder = Path(self.root or "") / self.videos
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; give the one with the films: evaluate_data.source.videos=NAME.")
        there = {
            path.stem if path.suffix.lower() in SUFFIXES else path.name: path.name
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in SUFFIXES or path.is_dir()
        }
        names = tuple(there.get(key.film, key.film) for key in table.keys)
        missing = {
            key.film: place for key, place in zip(table.keys, table.places, strict=True) if key.film not in there
        }
        films = len({key.film for key in table.keys})
        if len(missing) > MAX_FAILED * films:
            film, place = next(iter(missing.items()))
            raise DataError(
                f"{place}: there is no film {film} in {folder}; {len(missing)} of {films} films are missing, and a "
                f"share of {MAX_FAILED} may be: add them, or leave out the lines that name them."
            )
        classes = ava.label_map(Path(self.root or "") / self.label_map, self.classes).names
        return Listing(folder, names, (-1,) * len(names), classes)
