"""What a run refuses, the check of its data names, and what a run reads, it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mae.data.check.findings import Shares
from mae.data.check.verify import main, verify
from mae.data.check.verify_clips import verify_clips
from mae.data.clips.sampling import Dense, Uniform
from mae.data.pictures.folder import DecodedFolder
from mae.errors import DataError
from tests.data.clips.clip_writer import numbered, write
from tests.data.pictures.picture_writer import draw


def noise(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(path, seed=sum(map(ord, str(path))))


def run(root: Path, **options: float) -> str:
    """Why a run that evaluates refuses a folder of pictures, "" if it reads it."""
    data = DecodedFolder(root=str(root), size=[8, 8], channels=3, train=1, test=1, **options)  # type: ignore[arg-type]
    try:
        data.reads("evaluate")
        data(root.parent / "cache")
    except DataError as error:
        return str(error)
    return ""


def both(root: Path) -> None:
    for split in ("train", "test"):
        for label in ("a", "b"):
            noise(root / split / label / f"{split}{label}.png")


def floats(root: Path) -> None:
    both(root)
    Image.fromarray(np.ones((8, 8), np.float32)).save(root / "train" / "a" / "f.tif")


def renamed(train: str, test: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        both(root)
        (root / "train").rename(root / train)
        (root / "test").rename(root / test)

    return make


def linked(root: Path) -> None:
    both(root)
    (root / "train").rename(root.parent / "elsewhere")
    noise(root.parent / "more" / "x.png")
    (root / "train").symlink_to(root.parent / "elsewhere")
    (root / "train" / "a" / "deeper").symlink_to(root.parent / "more")


def class_train(root: Path) -> None:
    both(root)
    for split in ("train", "test"):
        noise(root / split / "train" / f"{split}.png")


def lone_train(root: Path) -> None:
    for label in ("bus", "train"):
        noise(root / label / "night" / f"{label}.png")


def no_test(root: Path) -> None:
    for label in ("bus", "train"):
        noise(root / label / f"{label}.png")


def twice(root: Path) -> None:
    both(root)
    noise(root / "Training" / "a" / "again.png")


def other_class(root: Path) -> None:
    both(root)
    noise(root / "test" / "c" / "c.png")


def large(root: Path) -> None:
    both(root)
    (root / "train" / "a" / "large.pgm").write_bytes(b"P5 20000 9000 255\n")


CASES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "plain": (both, True),
    "Train and valid": (renamed("Train", "valid"), True),
    "training and testing": (renamed("training", "Testing"), True),
    "linked folders": (linked, True),
    "a class called train": (class_train, True),
    "a class or a split": (lone_train, False),
    "no test": (no_test, False),
    "a split twice": (twice, False),
    "a class that training lacks": (other_class, False),
    "32-bit tiff": (floats, False),
    "too many pixels": (large, False),
}


@pytest.mark.parametrize("case", CASES)
def test_the_check_of_pictures_agrees_with_the_run(case: str, tmp_path: Path) -> None:
    make, reads = CASES[case]
    root = tmp_path / "set"
    make(root)
    why = run(root)
    assert (why == "") == reads
    clean, words = checked(root)
    assert clean == reads
    assert reads or any(word in why for word in words)


def checked(root: Path) -> tuple[bool, list[str]]:
    """Whether the check finds nothing, and its words, for which the command has exit status 1 or 2."""
    try:
        report = verify(root)
    except DataError as error:
        return False, [str(error)]
    return report.clean, [*report.refused, *(reason for _, reason in report.unreadable)]


def test_a_link_to_a_folder_above_it_ends_and_is_named(tmp_path: Path) -> None:
    both(tmp_path / "set")
    (tmp_path / "set" / "train" / "a" / "round").symlink_to(tmp_path / "set" / "train" / "a")
    report = verify(tmp_path / "set")
    assert (report.files, report.not_read) == (4, ("train/a/round",))


def test_a_share_makes_the_check_and_the_run_content(tmp_path: Path) -> None:
    for number in range(4):
        noise(tmp_path / "set" / "bus" / f"{number}.png")
    (refused,) = verify(tmp_path / "set").refused
    assert refused == run(tmp_path / "set")
    assert "data.source.test_share=0.1" in refused
    assert run(tmp_path / "set", test_share=0.25) == ""
    assert verify(tmp_path / "set", shares=Shares(test=0.25)).clean
    assert main([str(tmp_path / "set"), "--test-share", "0.25"]) == 0


def test_clips_too_short_for_a_sampling_are_those_that_the_check_names_for_it(tmp_path: Path) -> None:
    for split, lengths in {"train": (2, 9, 10), "test": (3, 11)}.items():
        for length in lengths:
            write(tmp_path / split / "a" / f"{length}.mp4", numbered(length))
    arguments = [str(tmp_path), "--clips", "--workers", "1", "--frames", "10"]
    assert [main([*arguments, "--sampling", name]) for name in ("uniform", "dense")] == [1, 0]
    short = {name for name, _ in verify_clips(tmp_path, least=10, workers=1).short}
    assert short == {"train/a/2.mp4", "train/a/9.mp4", "test/a/3.mp4"}
    for length, refused in ((2, True), (9, True), (10, False)):
        Dense(10, 4).test(length, 0, 1)
        if refused:
            with pytest.raises(DataError, match=f"has {length} frames, 10 are asked for"):
                Uniform(10).test(length, 0, 1)
