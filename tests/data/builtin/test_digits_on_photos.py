"""The built-in digits on photographs: disjoint, deterministic, robust on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mae.data.builtin.digits_on_photos import (
    digits_on_photos,
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
    return digits_on_photos(cache, **SMALL)


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


def test_train_and_test_digits_partition_the_digits_by_class() -> None:
    _, labels = handwritten_digits()
    train, test = divide_digits(labels, seed=3)
    assert sorted([*train, *test]) == list(range(1797))
    assert np.bincount(labels[test]).tolist() == [40] * 10
    assert not np.array_equal(test, divide_digits(labels, seed=4)[1])


def test_train_and_test_regions_cover_each_photograph_once() -> None:
    photos = photographs()
    assert len(photos) == 13
    assert all(photo.dtype == np.uint8 for photo in photos)
    left = regions(photos, held_out=False, size=32)[::2]  # every other one is the half-size copy
    right = regions(photos, held_out=True, size=32)[::2]
    for photo, train, test in zip(photos, left, right, strict=True):
        assert np.array_equal(np.concatenate([train, test], axis=1), photo)


@pytest.mark.parametrize("held_out", [False, True])
def test_crops_of_the_largest_size_fit_every_photograph(held_out: bool) -> None:
    photos = photographs()
    assert len(regions(photos, held_out=held_out, size=96)) >= len(photos)


def test_corners_without_ink_come_from_a_region_of_the_pictures_own_set(splits: Splits) -> None:
    photos = photographs()
    parts = {held_out: regions(photos, held_out=held_out, size=32) for held_out in (False, True)}
    for held_out, name in ((False, "train"), (True, "test")):
        found = 0
        for image in pictures(getattr(splits, name)).pixels[:8].numpy().transpose(0, 2, 3, 1):
            corners = image[:2, :6], image[:2, -6:], image[-2:, :6], image[-2:, -6:]
            found += any(_occurs(corner, part) for corner in corners for part in parts[held_out])
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
    again = digits_on_photos(tmp_path, **SMALL)
    other = digits_on_photos(tmp_path, **SMALL, seed=1)
    assert again.identity == splits.identity != other.identity
    assert torch.equal(pictures(again.test).pixels, pictures(splits.test).pixels)
    assert not torch.equal(pictures(other.test).pixels, pictures(splits.test).pixels)


def test_more_pretraining_pictures_leave_the_labelled_ones_as_they_are(splits: Splits, cache: Path) -> None:
    more = digits_on_photos(cache, **{**SMALL, "pretrain": 90})
    assert torch.equal(pictures(more.train).pixels, pictures(splits.train).pixels)
    assert torch.equal(pictures(more.test).labels, pictures(splits.test).labels)


def test_the_cache_is_read_rather_than_made_again(splits: Splits, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mae.data.builtin.digits_on_photos.photographs", lambda: pytest.fail("the pictures were made again")
    )
    again = digits_on_photos(cache, **SMALL)
    assert torch.equal(pictures(again.train).pixels, pictures(splits.train).pixels)


@pytest.mark.parametrize("damage", ["truncated", "one bit flipped", "empty"])
def test_a_damaged_cache_is_noticed_and_made_again(
    damage: str, splits: Splits, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / f"{splits.identity}.safetensors"
    content = bytearray((cache / file.name).read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes({"truncated": content[:-100], "one bit flipped": content, "empty": b""}[damage]))
    again = digits_on_photos(tmp_path, **SMALL)
    assert torch.equal(pictures(again.train).pixels, pictures(splits.train).pixels)
    assert "made again" in caplog.text
    assert file.read_bytes() == (cache / file.name).read_bytes()
    assert list(tmp_path.iterdir()) == [file]  # no partial file is left behind


@pytest.mark.parametrize(
    "wrong", [{"train": 0}, {"test": -1}, {"test": 10**6}, {"size": 15}, {"size": 97}, {"seed": -1}]
)
def test_impossible_requests_are_refused_by_name(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        digits_on_photos(tmp_path, **{**SMALL, **wrong})


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be kept"):
        digits_on_photos(tmp_path / "file", pretrain=1, train=1, test=1)
