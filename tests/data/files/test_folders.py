"""Folders by split and class: names of splits, shares kept apart, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mae.data.files.folders import catalogue, check_tested, sides_of
from mae.data.files.listing import Sides
from mae.errors import DataError

KIND = frozenset({".x"})


def make(root: Path, *splits: str, count: int = 10) -> Path:
    """``count`` files of cats and dogs each in every split; "" stands for no split."""
    for split in splits:
        for label in ("cat", "dog"):
            place = root / split / label
            place.mkdir(parents=True)
            for index in range(count):
                (place / f"{index}.x").write_text(f"{split} {label} {index}")
    return root


def sides(root: Path, **shares: float) -> Sides:
    return sides_of(catalogue(root, KIND), **shares)


def test_files_are_listed_by_class_and_hidden_or_foreign_ones_are_not(tmp_path: Path) -> None:
    names = [f"train/{label}/{name}" for label in ("10", "9") for name in ("b.x", "a.X", "notes.txt", ".c.x")]
    for name in (*names, "val/9/deep/er.x", "train/.git/a.x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    train, _, test = sides(tmp_path)
    assert train.classes == test.classes == ("9", "10")
    assert train.names == ("train/10/a.X", "train/10/b.x", "train/9/a.X", "train/9/b.x")
    assert train.labels == (1, 1, 0, 0)
    assert (test.names, test.labels) == (("val/9/deep/er.x",), (0,))


def test_a_test_class_that_training_lacks_is_refused(tmp_path: Path) -> None:
    root = make(tmp_path, "train", "test")
    (root / "test" / "horse").mkdir()
    (root / "test" / "horse" / "a.x").touch()
    with pytest.raises(DataError, match=r"test classes 'horse' \(1\) are not among the 2 training classes"):
        sides(root)


def test_val_serves_testing_only_where_there_is_no_test(tmp_path: Path) -> None:
    root = make(tmp_path, "train", "test", "val")
    found = sides(root)
    assert found.val is not None
    assert (found.val.names[0], found.test.names[0]) == ("val/cat/0.x", "test/cat/0.x")
    (root / "test").rename(root / ".spare")
    found = sides(root)
    assert (found.val, found.test.names[0]) == (None, "val/cat/0.x")


@pytest.mark.parametrize(
    ("train", "test", "val"),
    [("training", "testing", "validation"), ("Train", "TEST", "valid"), ("train", "test", "val")],
)
def test_splits_go_by_all_their_names(tmp_path: Path, train: str, test: str, val: str) -> None:
    found = sides(make(tmp_path, train, test, val))
    assert found.val is not None
    assert [side.names[0].split("/")[0] for side in (found.train, found.test, found.val)] == [train, test, val]


def test_a_split_under_two_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"both val/ and validation/; keep one as its val split"):
        sides(make(tmp_path, "train", "val", "validation"))


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    for label in ("train", "plane"):
        (tmp_path / label).mkdir()
        for index in range(4):
            (tmp_path / label / f"{index}.x").touch()
    assert sides(tmp_path, test_share=0.25).train.classes == ("plane", "train")


@pytest.mark.parametrize("names", [("a.x", "b.x"), ("train/a.x", "train/b.x"), ("2021/a.x", "2022/may/b.x")])
def test_files_without_folders_of_classes_are_there_to_pretrain_on(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in (*names, "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    train, val, test = sides(tmp_path)
    assert (train.names, val, len(test)) == (names, None, 0)
    flat = not names[0].startswith("2021")  # folders below the first are classes, of which pre-training reads nothing
    assert (train.classes == ()) == (set(train.labels) == {-1}) == flat
    with pytest.raises(DataError, match=r"no files for testing under test/<class>.*data\.source\.test_share=0\.1"):
        check_tested(len(test), tmp_path)


def test_splits_of_unlabelled_files_stay_apart(tmp_path: Path) -> None:
    for name in ("train/a.x", "train/b.x", "test/c.x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    train, _, test = sides(tmp_path)
    assert (train.names, test.names, train.classes) == (("train/a.x", "train/b.x"), ("test/c.x",), ())


def test_shares_are_kept_apart_of_every_class_and_leave_the_rest_for_training(tmp_path: Path) -> None:
    root = make(tmp_path / "a", "")
    found = sides(root, test_share=0.2, val_share=0.25)
    assert found.val is not None
    assert [len(side) for side in (found.train, found.val, found.test)] == [12, 4, 4]
    assert sorted(found.val.labels) == sorted(found.test.labels) == [0, 0, 1, 1]
    names = [set(side.names) for side in (found.train, found.val, found.test)]
    assert len(set.union(*names)) == 20
    tested = sides(make(tmp_path / "b", "train", "test"), val_share=0.1)
    assert tested.val is not None
    assert [len(side) for side in (tested.train, tested.val, tested.test)] == [18, 2, 20]


@pytest.mark.parametrize(
    ("splits", "shares", "what"),
    [
        (("train", "test"), {"test_share": 0.1}, "leave test_share away"),
        (("train", "test", "val"), {"val_share": 0.1}, "leave val_share away"),
        (("train", "test"), {"val_share": 1.0}, "val_share=1.0 is no share"),
        (("test",), {}, r"no files for training; looked for train/<class>"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    tmp_path: Path, splits: tuple[str, ...], shares: dict[str, float], what: str
) -> None:
    with pytest.raises(DataError, match=what):
        sides(make(tmp_path, *splits), **shares)


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder; give one with train/<class>"):
        sides(tmp_path / "none")
