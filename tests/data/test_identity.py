"""What makes the items of a data set the same: its version and what a use reads, neither places nor names."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from mae.data.augment.crops import CenterCrop
from mae.data.builtin.digits_on_photos import DigitsOnPhotos
from mae.data.builtin.moving_digits import MovingDigits
from mae.data.builtin.photographs import WhichPhotograph
from mae.data.clips.sets import ClipFolder, ClipList
from mae.data.pictures.decode import MAX_PIXELS
from mae.data.pictures.folder import DecodedFolder, StreamedFolder
from mae.data.robustness.corruptions import Negative
from mae.data.robustness.shifts import Changed, Folder
from mae.data.source import DataSet, Splits, Use, identity_of
from mae.errors import DataError

USES: tuple[Use, ...] = ("pretrain", "evaluate")


def same(first: DataSet, second: DataSet) -> dict[str, bool]:
    return {use: identity_of(first, use) == identity_of(second, use) for use in USES}


def changed(data: DataSet, **fields: object) -> dict[str, bool]:
    """For each use, whether it is the same after ``fields`` are."""
    return same(data, replace(data, **fields))  # type: ignore[type-var]


BUILT_IN = [DigitsOnPhotos(), MovingDigits(), WhichPhotograph()]


@pytest.mark.parametrize("data", BUILT_IN, ids=lambda data: type(data).__name__)
def test_raising_the_version_is_another_identity(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [identity_of(data, use) for use in USES]
    monkeypatch.setattr(type(data), "version", data.version + 1)
    assert all(identity_of(data, use) != old for use, old in zip(USES, before, strict=True))


@pytest.mark.parametrize("data", BUILT_IN[:2], ids=lambda data: type(data).__name__)
def test_pretraining_reads_no_counts_of_labels_and_evaluation_none_of_pretraining(data: DataSet) -> None:
    assert changed(data, train=500) == {"pretrain": True, "evaluate": False}
    assert changed(data, test=500) == {"pretrain": True, "evaluate": False}
    assert changed(data, pretrain=500) == {"pretrain": False, "evaluate": True}
    assert changed(data, seed=1) == changed(data, size=40) == {"pretrain": False, "evaluate": False}
    assert changed(data, val=100) == {"pretrain": False, "evaluate": False}  # it takes digits from both
    assert same(replace(data, val=100), replace(data, val=200)) == {  # type: ignore[type-var]
        "pretrain": True,
        "evaluate": False,
    }


def test_what_clips_are_labelled_by_and_pictures_of_photographs() -> None:
    assert changed(MovingDigits(), labels="appearance") == {"pretrain": True, "evaluate": False}
    assert changed(WhichPhotograph(), train=500) == {"pretrain": False, "evaluate": False}
    assert changed(WhichPhotograph(), test=500) == {"pretrain": True, "evaluate": False}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for index in range(2):
                pixels = np.full((9, 9, 3), 20 * index + (90 if label == "cat" else 0), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / label / f"{index}.bmp")
    return tmp_path / "data"


def pictures(root: Path, **fields: object) -> DataSet:
    return StreamedFolder(root=str(root), **{"channels": 3, "train": 4, "test": 4, **fields})  # type: ignore[arg-type]


def test_a_folder_is_its_content_and_not_its_place_or_counts(root: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    (moved / "train" / "cat" / "0.bmp").rename(moved / "train" / "cat" / "00.bmp")
    assert same(pictures(root), pictures(moved)) == {"pretrain": True, "evaluate": True}
    assert same(pictures(root), pictures(root, train=2)) == {"pretrain": True, "evaluate": True}
    assert same(pictures(root), pictures(root, channels=1)) == {"pretrain": False, "evaluate": False}
    decoded = DecodedFolder(root=str(root), size=[8, 8], channels=3, train=4, test=4)
    assert changed(decoded, size=[9, 9]) == {"pretrain": False, "evaluate": False}


def test_pictures_replaced_by_others_of_equal_size_and_time_are_other_data(root: Path) -> None:
    before = {use: identity_of(pictures(root), use) for use in USES}
    for split, after in (
        ("test", {"pretrain": True, "evaluate": False}),
        ("train", {"pretrain": False, "evaluate": False}),
    ):
        path = root / split / "cat" / "0.bmp"
        size, times = path.stat().st_size, path.stat()
        Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(path)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert path.stat().st_size == size
        assert {use: identity_of(pictures(root), use) == before[use] for use in USES} == after


def test_a_share_for_validation_leaves_training(root: Path) -> None:
    assert same(pictures(root), pictures(root, val_share=0.5)) == {"pretrain": False, "evaluate": False}


def test_a_place_that_is_not_named_yet_can_be_planned_for() -> None:
    data = StreamedFolder(root=None, channels=3, train=4, test=4)
    assert data.holds() is None
    assert identity_of(data, "pretrain") == {
        "version": data.version,
        "channels": 3,
        "max_pixels": MAX_PIXELS,
        "files": None,
    }


def test_what_files_hold_is_told_before_they_are_read(root: Path) -> None:
    held = pictures(root).holds()
    assert held is not None
    assert (held.sizes, held.classes) == ({"pretrain": 4, "train": 4, "test": 4}, 2)


def listed(root: Path, lines: dict[str, str], suffix: str = "tsv") -> DataSet:
    """Clips under two lists; that they are no clips is not looked at."""
    for name, text in lines.items():
        (root / f"{name}.{suffix}").write_text(text)
    given = {"train_list": f"train.{suffix}", "test_list": f"test.{suffix}", "classes": 2}
    return ClipList(root=str(root), train=2, test=1, short_side=16, **given)  # type: ignore[arg-type]


def test_inverted_labels_in_a_list_are_another_evaluation_and_the_same_pretraining(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_text(name)
    data = listed(tmp_path, {"train": "a.mp4\t0\nb.mp4\t1\n", "test": "c.mp4\t0\n"})
    before = {use: identity_of(data, use) for use in USES}
    listed(tmp_path, {"train": "a.mp4\t1\nb.mp4\t0\n"})
    assert identity_of(data, "pretrain") == before["pretrain"]
    assert identity_of(data, "evaluate") != before["evaluate"]


@pytest.mark.parametrize("absolute", [False, True])
def test_a_clip_replaced_under_root_or_at_an_absolute_path_is_other_data(tmp_path: Path, absolute: bool) -> None:
    place = tmp_path / ("elsewhere" if absolute else "root")
    for folder in (tmp_path / "root", place):
        folder.mkdir(exist_ok=True)
    for name in "abc":
        (place / f"{name}.mp4").write_text(name)
    start = f"{place}/" if absolute else ""
    data = listed(tmp_path / "root", {"train": f"{start}a.mp4,0\n{start}b.mp4,1\n", "test": f"{start}c.mp4,0\n"}, "csv")
    before = identity_of(data, "pretrain")
    (place / "b.mp4").write_text("x")
    assert identity_of(data, "pretrain") != before


def test_clips_in_folders_are_their_content_and_geometry(tmp_path: Path) -> None:
    for name in ("train/run/a.mp4", "test/run/b.mp4"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True)
        (tmp_path / "clips" / name).write_text(name)
    data = ClipFolder(root=str(tmp_path / "clips"), train=1, test=1, short_side=16)
    moved = shutil.copytree(tmp_path / "clips", tmp_path / "moved")
    assert changed(data, root=str(moved)) == {"pretrain": True, "evaluate": True}
    assert changed(data, short_side=8) == {"pretrain": False, "evaluate": False}
    (moved / "test" / "run" / "b.mp4").write_text("another")
    assert changed(data, root=str(moved)) == {"pretrain": True, "evaluate": False}


def test_shifted_sets_are_their_content_or_their_changes(root: Path, tmp_path: Path) -> None:
    one, copy = (
        Folder(str(place), samples=4, classes=2)
        for place in (root / "test", shutil.copytree(root / "test", tmp_path / "copy"))
    )
    assert one.identity() == copy.identity()
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(tmp_path / "copy" / "cat" / "0.bmp")
    assert one.identity() != copy.identity()
    assert Changed([Negative()]).identity() != Changed([CenterCrop(8)]).identity()


@dataclass(frozen=True)
class Nameless(DataSet):
    """A data set of a user's own that lacks its version."""

    count: int = 3

    def __call__(self, cache: Path) -> Splits:
        raise NotImplementedError


@dataclass(frozen=True)
class Placed(Nameless):
    """One whose identity is no JSON."""

    place: Path = Path()
    version: ClassVar[int] = 1


def test_an_own_data_set_reads_all_its_fields_by_default() -> None:
    class Own(Nameless):
        version: ClassVar[int] = 4

    assert identity_of(Own(5), "pretrain") == {"version": 4, "count": 5}


def test_what_keeps_no_contract_is_refused_in_a_sentence() -> None:
    with pytest.raises(DataError, match="the data set Nameless has no version; add `version"):
        identity_of(Nameless(), "evaluate")
    with pytest.raises(DataError, match="identity of Placed is not plain JSON"):
        identity_of(Placed(), "evaluate")
    with pytest.raises(DataError, match=r"dict is no data set; name a frozen dataclass that inherits mae\.data"):
        identity_of({}, "evaluate")
