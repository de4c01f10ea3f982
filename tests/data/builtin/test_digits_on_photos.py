"""The built-in digits on photographs: disjoint, deterministic, robust on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from mae.data.builtin.digits_on_photos import DigitsOnPhotos
from mae.data.builtin.material import (
    CLASSES,
    digits_for,
    divide_digits,
    enlarge,
    handwritten_digits,
    photographs,
    regions,
)
from mae.data.source import Images, Splits
from mae.errors import DataError

SMALL = {"pretrain": 60, "train": 50, "test": 400}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def splits(cache: Path) -> Splits:
    return DigitsOnPhotos(**SMALL)(cache)


def pictures(source: object) -> Images:
    assert isinstance(source, Images)
    return source


def test_sets_have_the_sizes_types_and_classes_asked_for(splits: Splits) -> None:
    for name, count in SMALL.items():
        images = pictures(getattr(splits, name))
        assert images.pixels.shape == (count, 3, 32, 32)
        assert images.pixels.dtype == torch.uint8
        assert images.labels.shape == (count,)
        assert images.labels.dtype == torch.int64
    assert pictures(splits.pretrain).labels.eq(-1).all()
    assert splits.pretrain.classes == ()
    assert splits.test.classes == tuple("0123456789")


def test_classes_of_the_test_set_are_balanced(splits: Splits) -> None:
    assert torch.bincount(pictures(splits.test).labels).tolist() == [40] * 10


def test_the_splits_partition_the_digits_by_class() -> None:
    _, labels = handwritten_digits()
    plain, validated = (divide_digits(labels, 3, kept) for kept in (False, True))
    for sides in (plain, validated):
        assert sorted([*sides["train"], *sides["test"], *sides["val"]]) == list(range(1797))
        assert np.array_equal(sides["pretrain"], sides["train"])
    assert np.bincount(labels[plain["test"]]).tolist() == [40] * 10
    assert np.bincount(labels[validated["val"]]).tolist() == [20] * 10
    assert len(plain["val"]) == 0
    assert np.array_equal(plain["test"], validated["test"])
    assert not np.array_equal(plain["test"], divide_digits(labels, seed=4)["test"])
    for name in ("train", "test", "val"):
        assert all(
            len(sides[name]) == digits_for(name, kept)
            for sides, kept in ((plain, False), (validated, True))
            if len(sides[name])
        )


def test_the_regions_of_the_splits_cover_each_photograph_once() -> None:
    photos = photographs()
    assert len(photos) == 13
    assert all(photo.dtype == np.uint8 for photo in photos)
    for photo in photos:
        train, test = (regions([photo], name, 32)[0] for name in ("train", "test"))
        assert np.array_equal(np.concatenate([train, test], axis=1), photo)
        less, val, same = (regions([photo], name, 32, validated=True)[0] for name in ("train", "val", "test"))
        assert np.array_equal(np.concatenate([less, val, same], axis=1), photo)
        assert np.array_equal(test, same)


@pytest.mark.parametrize("split", ["train", "test"])
def test_crops_of_the_largest_size_fit_every_photograph(split: str) -> None:
    photos = photographs()
    assert len(regions(photos, split, 96)) >= len(photos)


def test_corners_without_ink_come_from_a_region_of_the_pictures_own_set(splits: Splits) -> None:
    photos = photographs()
    for name in ("train", "test"):
        parts = regions(photos, name, 32)
        found = 0
        for image in pictures(getattr(splits, name)).pixels[:8].numpy().transpose(0, 2, 3, 1):
            corners = image[:2, :6], image[:2, -6:], image[-2:, :6], image[-2:, -6:]
            found += any(_occurs(corner, part) for corner in corners for part in parts)
        assert found >= 6  # a digit may lie over all that was looked for


def _occurs(patch: np.ndarray, photo: np.ndarray) -> bool:
    h, w = photo.shape[0] - patch.shape[0] + 1, photo.shape[1] - patch.shape[1] + 1
    rows, columns = np.nonzero((photo[:h, :w] == patch[0, 0]).all(-1))
    for i, j in np.ndindex(*patch.shape[:2]):
        same = (photo[rows + i, columns + j] == patch[i, j]).all(-1)
        rows, columns = rows[same], columns[same]
    return len(rows) > 0


def test_enlarging_keeps_empty_empty_full_full_and_the_shape_of_the_digit() -> None:
    glyphs, _ = handwritten_digits()
    assert enlarge(np.zeros((1, 8, 8), np.uint8), 25).max() == 0
    assert enlarge(np.full((1, 8, 8), 16, np.uint8), 30)[0, 9:21, 9:21].min() == 255
    big = enlarge(glyphs[:50], 80).reshape(50, 10, 8, 10, 8).mean((2, 4))[:, 1:-1, 1:-1]
    for small, large in zip(glyphs[:50], big, strict=True):
        assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.97


def test_same_arguments_give_the_same_pixels_and_another_seed_others(splits: Splits, tmp_path: Path) -> None:
    again = DigitsOnPhotos(**SMALL)(tmp_path)
    other = DigitsOnPhotos(**SMALL, seed=1)(tmp_path)
    assert torch.equal(pictures(again.test).pixels, pictures(splits.test).pixels)
    assert not torch.equal(pictures(other.test).pixels, pictures(splits.test).pixels)


def test_more_pretraining_pictures_leave_the_labelled_ones_as_they_are(splits: Splits, cache: Path) -> None:
    more = DigitsOnPhotos(**{**SMALL, "pretrain": 90})(cache)
    assert torch.equal(pictures(more.train).pixels, pictures(splits.train).pixels)
    assert torch.equal(pictures(more.test).labels, pictures(splits.test).labels)


def test_the_default_pictures_are_those_of_the_committed_results(tmp_path: Path) -> None:
    made = DigitsOnPhotos(pretrain=128, train=64, test=64)(tmp_path)
    found = [pictures(source) for source in (made.pretrain, made.train, made.test)]
    assert [hashlib.sha256(images.pixels.numpy().tobytes()).hexdigest()[:16] for images in found] == [
        "7b54823eb71ec771", "10531079c59f952a", "2a4a8e88b59d2dbb",
    ]  # fmt: skip
    assert made.val is None


def test_validation_takes_from_training_and_leaves_testing_as_it_is(splits: Splits, cache: Path) -> None:
    validated = DigitsOnPhotos(**SMALL, val=30)(cache)
    assert torch.equal(pictures(validated.test).pixels, pictures(splits.test).pixels)
    assert len(pictures(validated.val)) == 30
    assert validated.train.classes == CLASSES
    for name in ("pretrain", "train"):
        assert not torch.equal(pictures(getattr(validated, name)).pixels, pictures(getattr(splits, name)).pixels)


def test_the_cache_is_read_rather_than_made_again(splits: Splits, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mae.data.builtin.material.photographs", lambda: pytest.fail("the pictures were made again"))
    again = DigitsOnPhotos(**SMALL)(cache)
    assert torch.equal(pictures(again.train).pixels, pictures(splits.train).pixels)


@pytest.mark.parametrize("damage", ["truncated", "one bit flipped", "empty"])
def test_a_damaged_cache_is_noticed_and_made_again(
    damage: str, splits: Splits, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (source,) = cache.glob("*-train-50-*")
    file = tmp_path / source.name
    content = bytearray(source.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes({"truncated": content[:-100], "one bit flipped": content, "empty": b""}[damage]))
    again = DigitsOnPhotos(**SMALL)(tmp_path)
    assert torch.equal(pictures(again.train).pixels, pictures(splits.train).pixels)
    assert "made again" in caplog.text
    assert file.read_bytes() == source.read_bytes()
    assert len(list(tmp_path.iterdir())) == 3  # no partial file is left behind


@pytest.mark.parametrize(
    "wrong", [{"train": 0}, {"test": -1}, {"test": 10**6}, {"size": 15}, {"size": 97}, {"seed": -1}]
)
def test_impossible_requests_are_refused_by_name(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        DigitsOnPhotos(**{**SMALL, **wrong})(tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be kept"):
        DigitsOnPhotos(pretrain=1, train=1, test=1)(tmp_path / "file")
