"""What makes the items of a data set the same: its version and what a use reads, neither places nor names."""

from __future__ import annotations

import json
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
from mae.data.clips.sets import ClipFolder, ClipList, SomethingSomething
from mae.data.pictures.decode import MAX_PIXELS
from mae.data.pictures.folder import DecodedFolder, StreamedFolder
from mae.data.pictures.timm import TimmData
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


INVERTED = {
    "txt": ("a.mp4 0\nb.mp4 1\n", "a.mp4 1\nb.mp4 0\n", "c.mp4 0\n"),
    "csv": ("video,label\na.mp4,run\nb.mp4,swim\n", "video,label\na.mp4,swim\nb.mp4,run\n", "c.mp4,run\n"),
    "lst": ("a.mp4 9 0\nb.mp4 9 1\n", "a.mp4 9 1\nb.mp4 9 0\n", "c.mp4 9 0\n"),
    "tsv": ("a.mp4\t0\nb.mp4\t1\n", "b.mp4\t1\na.mp4\t0\n", "c.mp4\t0\n"),  # another order draws other batches
}


@pytest.mark.parametrize("suffix", INVERTED)
def test_other_labels_in_a_list_of_any_kind_are_another_evaluation(tmp_path: Path, suffix: str) -> None:
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_text(name)
    train, inverted, test = INVERTED[suffix]
    data = listed(tmp_path, {"train": train, "test": test}, suffix)
    before = {use: identity_of(data, use) for use in USES}
    listed(tmp_path, {"train": inverted}, suffix)
    assert identity_of(data, "evaluate") != before["evaluate"]
    assert (identity_of(data, "pretrain") == before["pretrain"]) == (suffix != "tsv")


@pytest.mark.parametrize("what", ["entries", "labels"])
def test_other_labels_in_json_are_another_evaluation(tmp_path: Path, what: str) -> None:
    (tmp_path / "videos").mkdir()
    for number in (1, 2):
        (tmp_path / "videos" / f"{number}.webm").write_text(str(number))

    def write(order: tuple[str, str], numbers: tuple[str, str]) -> None:
        entries = [{"id": str(number + 1), "template": template} for number, template in enumerate(order)]
        for name in ("train", "test"):
            (tmp_path / f"{name}.json").write_text(json.dumps(entries))
        (tmp_path / "labels.json").write_text(json.dumps(dict(zip(("up", "down"), numbers, strict=True))))

    write(("up", "down"), ("0", "1"))
    data = SomethingSomething(
        root=str(tmp_path), train=2, test=2, short_side=8,
        train_list="train.json", test_list="test.json", labels="labels.json", videos="videos",
    )  # fmt: skip
    before = {use: identity_of(data, use) for use in USES}
    write(("down", "up") if what == "entries" else ("up", "down"), ("1", "0") if what == "labels" else ("0", "1"))
    after = {use: identity_of(data, use) == before[use] for use in USES}
    assert after == {"pretrain": True, "evaluate": False}


@pytest.mark.parametrize("start", ["", "absolute"])
def test_other_labels_or_pictures_in_a_list_of_pictures_are_other_data(root: Path, tmp_path: Path, start: str) -> None:
    place = f"{root}/" if start else "data/"
    rows = [f"{place}{split}/{kind}/{n}.bmp,{kind},{split}" for split in ("train", "test") for kind in ("cat", "dog")
            for n in range(2)]  # fmt: skip
    file = tmp_path / "list.csv"
    file.write_text("\n".join(["path,label,split", *rows]))
    before = {use: identity_of(pictures(file), use) for use in USES}
    file.write_text("\n".join(["path,label,split", *(row.replace(",cat,", ",dog,") for row in rows[:1]), *rows[1:]]))
    relabelled = {use: identity_of(pictures(file), use) == before[use] for use in USES}
    assert relabelled == {"pretrain": True, "evaluate": False}
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(root / "train" / "cat" / "0.bmp")
    assert identity_of(pictures(file), "pretrain") != before["pretrain"]


@pytest.mark.parametrize("suffix", ["bmp", "tif", "ppm"])
def test_a_spot_on_a_large_picture_that_is_not_compressed_is_another_picture(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((300, 300, 3), np.uint8)
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / split / "a" / f"0.{suffix}")
    before = identity_of(pictures(tmp_path), "pretrain")
    pixels[80, 100] = 255
    Image.fromarray(pixels).save(tmp_path / "train" / "a" / f"0.{suffix}")
    assert identity_of(pictures(tmp_path), "pretrain") != before


def test_a_frame_replaced_in_a_folder_of_frames_is_another_clip(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for frame in range(3):
            path = tmp_path / split / "a" / "clip" / f"{frame}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((9, 9, 3), frame, np.uint8)).save(path)
    data = ClipFolder(root=str(tmp_path), train=1, test=1, short_side=8)
    before = identity_of(data, "pretrain")
    Image.fromarray(np.full((9, 9, 3), 9, np.uint8)).save(tmp_path / "train" / "a" / "clip" / "1.bmp")
    assert identity_of(data, "pretrain") != before


def test_another_tar_file_is_other_data(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"one")
    data = TimmData(name="", root=str(tmp_path / "a.tar"), size=[8, 8], channels=3, classes=2, train=1, test=1)
    before = {use: identity_of(data, use) for use in USES}
    (tmp_path / "a.tar").write_bytes(b"two")
    assert all(identity_of(data, use) != before[use] for use in USES)


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
