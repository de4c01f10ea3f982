"""Every kind of damage that the check of a data set must find."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae.data.check.verify import main, verify
from mae.data.pictures.lists import pictures_in


def draw(path: Path, size: tuple[int, int] = (24, 24), mode: str = "RGB") -> Path:
    """A picture of noise that its path decides, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(list(os.fsencode(str(path))))
    Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for split, count in {"train": 4, "test": 2}.items():
        for kind in ("cat", "dog"):
            for index in range(count):
                draw(root / split / kind / f"{index}.jpg")
    return root


def test_a_clean_set_is_clean_and_counted(folder: Path) -> None:
    report = verify(folder)
    assert report.clean
    assert report.files == 12
    assert report.counts == {"train": {"cat": 4, "dog": 4}, "test": {"cat": 2, "dog": 2}}
    assert report.channels == {3: 12}
    assert report.sizes == {"24x24": 12}


def test_empty_cut_and_foreign_files_are_unreadable_with_their_reason(folder: Path) -> None:
    dogs = folder / "train" / "dog"
    (dogs / "empty.jpg").write_bytes(b"")
    (dogs / "text.jpg").write_text("this is no picture at all")
    content = draw(dogs / "cut.jpg", size=(100, 100)).read_bytes()
    (dogs / "cut.jpg").write_bytes(content[: len(content) // 2])
    reasons = dict(verify(folder).unreadable)
    assert reasons.keys() == {f"train/dog/{name}.jpg" for name in ("empty", "text", "cut")}
    assert reasons["train/dog/empty.jpg"] == "an empty file"
    assert reasons["train/dog/text.jpg"] == "not a picture in any known format"
    assert "truncated" in reasons["train/dog/cut.jpg"]


def test_a_cut_png_whose_header_is_whole_is_unreadable(folder: Path) -> None:
    path = draw(folder / "train" / "cat" / "cut.png", size=(64, 64))
    path.write_bytes(path.read_bytes()[:-400])
    with Image.open(path) as picture:
        assert picture.size == (64, 64)  # opening alone would not notice
    assert [name for name, _ in verify(folder).unreadable] == ["train/cat/cut.png"]


def test_a_directory_and_a_dangling_link_named_like_pictures_are_reported(folder: Path) -> None:
    (folder / "train" / "cat" / "x.jpg").mkdir()
    (folder / "train" / "cat" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    report = verify(folder)
    assert report.not_read == ("train/cat/x.jpg",)
    assert report.unreadable == (("train/cat/gone.jpg", "no such file"),)


def test_identical_files_across_training_and_testing_are_leakage(folder: Path) -> None:
    shutil.copy(folder / "train" / "cat" / "1.jpg", folder / "test" / "cat" / "copy.jpg")
    report = verify(folder)
    assert report.leakage == (("test/cat/copy.jpg", "train/cat/1.jpg"),)
    assert not report.duplicates
    assert not report.mislabelled


def test_identical_files_under_two_classes_are_mislabelled(folder: Path) -> None:
    shutil.copy(folder / "train" / "cat" / "1.jpg", folder / "train" / "dog" / "copy.jpg")
    report = verify(folder)
    assert report.mislabelled == (("train/cat/1.jpg", "train/dog/copy.jpg"),)
    assert not report.leakage


def test_identical_files_within_a_class_are_duplicates(folder: Path) -> None:
    shutil.copy(folder / "train" / "cat" / "1.jpg", folder / "train" / "cat" / "copy.jpg")
    assert verify(folder).duplicates == (("train/cat/1.jpg", "train/cat/copy.jpg"),)


def test_unreadable_files_are_not_each_others_duplicates(folder: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (folder / "train" / "cat" / name).write_bytes(b"")
    report = verify(folder)
    assert len(report.unreadable) == 2
    assert not report.duplicates


def test_empty_and_missing_classes_and_empty_sets_are_named(folder: Path) -> None:
    (folder / "train" / "bird").mkdir()
    draw(folder / "test" / "horse" / "a.jpg")
    (folder / "val").mkdir()
    report = verify(folder)
    assert report.empty_classes == ("train/bird",)
    assert report.missing_classes == ("test/horse",)
    assert report.empty_sets == ("val",)


def test_channels_and_sizes_are_described_without_being_problems(folder: Path) -> None:
    draw(folder / "train" / "cat" / "grey.png", mode="L")
    draw(folder / "train" / "cat" / "alpha.png", mode="RGBA")
    draw(folder / "train" / "cat" / "wide.png", size=(50, 10))
    (folder / "train" / "cat" / "notes.txt").write_text("a note")
    report = verify(folder)
    assert report.clean
    assert report.channels == {1: 1, 3: 13, 4: 1}
    assert report.sizes["50x10"] == 1
    assert report.other_files == {".txt": 1}


def test_unicode_and_undecodable_names_are_read_and_can_be_shown(folder: Path) -> None:
    draw(folder / "train" / "cat" / "ünïcode 名.jpg")
    odd = os.fsencode(folder / "train" / "cat") + b"/bad-\xff.jpg"
    with open(odd, "wb") as file:
        file.write(b"")
    report = verify(folder)
    assert report.files == 14
    assert len(report.unreadable) == 1
    report.text().encode("utf-8")
    report.save(folder / "report.json")
    assert json.loads((folder / "report.json").read_text())["unreadable"][0][1] == "an empty file"


def test_worker_processes_find_the_same(folder: Path) -> None:
    (folder / "train" / "cat" / "empty.jpg").write_bytes(b"")
    assert verify(folder, workers=2) == verify(folder, workers=0)


def test_a_list_is_checked_for_missing_and_repeated_files(folder: Path) -> None:
    rows = ["path,label", "train/cat/0.jpg,cat", "train/cat/0.jpg,dog", "train/dog/9.jpg,dog"]
    (folder / "list.csv").write_text("\n".join(rows))
    report = verify(folder / "list.csv")
    assert report.repeated == ("train/cat/0.jpg",)
    assert report.unreadable == (("train/dog/9.jpg", "no such file"),)
    assert report.mislabelled == (("train/cat/0.jpg",),)


def test_a_listing_of_one_split_can_be_checked(folder: Path) -> None:
    report = verify(pictures_in(folder).test)
    assert report.clean
    assert report.counts == {"": {"cat": 2, "dog": 2}}


def test_the_command_answers_by_exit_code_and_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.endswith("clean\n")
    (folder / "train" / "cat" / "empty.jpg").write_bytes(b"")
    assert main([str(folder), "--report", str(folder / "report.json"), "--workers", "0"]) == 1
    assert "train/cat/empty.jpg: an empty file" in capsys.readouterr().out
    written = json.loads((folder / "report.json").read_text())
    assert written["clean"] is False
    assert written["unreadable"] == [["train/cat/empty.jpg", "an empty file"]]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere"],
        [".", "--list", "nowhere.csv"],
        [".", "--workers", "-1"],
        [".", "--report", "/dev/null/report.json"],
    ],
)
def test_bad_usage_is_exit_code_two_and_one_line(
    folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("verify: ")
    assert captured.err.count("\n") == 1


def test_the_command_reads_a_list_from_another_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.csv").write_text("path,label\ntrain/cat/0.jpg,cat\ntrain/dog/0.jpg,dog\n")
    arguments = [str(folder), "--list", str(tmp_path / "elsewhere.csv")]
    assert main(arguments) == 1  # a run refuses it, too
    (tmp_path / "elsewhere.csv").write_text(
        "path,label,split\ntrain/cat/0.jpg,cat,train\ntrain/dog/0.jpg,dog,train\ntest/cat/0.jpg,cat,Validation\n"
    )
    assert main(arguments) == 0


def test_help_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "--report" in capsys.readouterr().out
