"""Which pictures folders and lists hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mae.data.pictures.decode import read_picture, with_channels
from mae.data.pictures.lists import pictures_in
from mae.errors import DataError
from tests.data.pictures.picture_writer import draw


def test_classes_are_sorted_and_labels_follow_them(folder: Path) -> None:
    listing = pictures_in(folder).train
    assert listing.classes == ("cat", "dog")
    assert listing.labels == (0,) * 6 + (1,) * 6
    assert listing.names[0] == "train/cat/0.png"
    assert listing.names == tuple(sorted(listing.names))


def test_numbered_classes_are_ordered_by_value(tmp_path: Path) -> None:
    for label in ("10", "9", "1"):
        draw(tmp_path / "train" / label / "a.png")
    draw(tmp_path / "test" / "1" / "a.png")
    assert pictures_in(tmp_path).train.classes == ("1", "9", "10")


def test_every_documented_suffix_is_listed_and_read(tmp_path: Path) -> None:
    for suffix in ("jpg", "JPEG", "png", "bmp", "webp", "tif", "tiff", "gif", "jfif", "pgm", "ppm"):
        draw(tmp_path / "train" / "x" / f"a.{suffix}")
    draw(tmp_path / "test" / "x" / "a.png")
    (tmp_path / "train" / "x" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / "x" / "._a.jpg").write_bytes(b"resource fork")
    listing = pictures_in(tmp_path).train
    assert len(listing) == 11
    assert all(with_channels(read_picture(listing.path(row)), 3).size == (40, 30) for row in range(11))


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert with_channels(read_picture(tmp_path / "a.gif"), 3).getpixel((3, 3)) == (255, 0, 0)


def test_a_new_picture_moves_no_other_between_the_sides_by_its_position(folder: Path) -> None:
    before = set(pictures_in(folder / "train", test_share=0.5).train.names)
    draw(folder / "train" / "cat" / "00.png")
    after = set(pictures_in(folder / "train", test_share=0.5).train.names)
    assert len(before - after) <= 1


def test_a_test_class_unknown_in_training_is_named(folder: Path) -> None:
    draw(folder / "test" / "horse" / "a.png")
    with pytest.raises(DataError, match="'horse'"):
        pictures_in(folder)


def test_a_list_gives_the_same_pictures_as_its_folder(folder: Path) -> None:
    both = pictures_in(folder)
    rows = [
        f"{name},{listing.classes[label]},{name.split('/')[0]}"
        for listing in (both.train, both.test)
        for name, label in zip(listing.names, listing.labels, strict=True)
    ]
    (folder / "list.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    assert pictures_in(folder / "list.csv") == both


def test_a_list_without_labels_is_unlabelled(folder: Path) -> None:
    (folder / "list.csv").write_text("path,split\ntrain/cat/0.png,train\ntest/cat/0.png,test\n")
    listing = pictures_in(folder / "list.csv").train
    assert listing.labels == (-1,)
    assert listing.classes == ()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("file,class\na.png,x\n", "has the header file,class"),
        ("path,label\na.png,\n", "line 2: the label is empty"),
        ("path,label\n,x\n", "line 2: a row must have one path"),
        ("path,label\na,b.png,x\n", "line 2: a row must have one path"),
        ("path,label,split\na.png,x,learning\n", "line 2: split='learning'"),
        ("path,label\na.png,x\n", "list.csv, line 2: .*a.png does not exist; check where paths start"),
        ("", r"\(none\)"),
    ],
)
def test_a_malformed_list_is_named_with_its_line(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=what):
        pictures_in(tmp_path / "list.csv")


def test_a_list_that_is_no_text_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="no CSV text"):
        pictures_in(folder / "train" / "cat" / "0.png")
