"""Pictures that are decoded once."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mae.data.files.workers import in_processes
from mae.data.pictures import cache as cache_module
from mae.data.pictures.cache import PictureFiles, decoded_pictures
from mae.data.pictures.decode import Decoding, cover, read_picture, to_array
from mae.data.pictures.lists import pictures_in
from mae.errors import DataError
from tests.data.pictures.picture_writer import damage, draw

CPU = torch.device("cpu")


def test_cached_pixels_are_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    listing = pictures_in(folder).train
    images = decoded_pictures(listing, tmp_path / "cache", size=(16, 16))
    assert images.pixels.shape == (12, 3, 16, 16)
    assert images.pixels.dtype == torch.uint8
    for index in (0, 7):
        expected = to_array(cover(Image.open(listing.path(index)).convert("RGB"), (16, 16)))
        assert np.array_equal(images.pixels[index].numpy(), expected)
    assert images.labels.tolist() == list(listing.labels)
    assert images.report.read == 12
    assert images.to(CPU).report == images.report


def test_a_second_call_decodes_nothing_and_never_alters_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = pictures_in(folder).train
    first = decoded_pictures(listing, tmp_path / "cache", size=(8, 12))
    monkeypatch.setattr(PictureFiles, "read", lambda *_: pytest.fail("decoded again"))
    mapped = decoded_pictures(listing, tmp_path / "cache", size=(8, 12))
    assert torch.equal(first.pixels, mapped.pixels)
    assert torch.equal(first.labels, mapped.labels)
    mapped.pixels.zero_()  # a private copy: the file keeps its pixels
    assert torch.equal(first.pixels, decoded_pictures(listing, tmp_path / "cache", size=(8, 12)).pixels)


def test_a_changed_file_or_geometry_is_another_cache(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    decoded_pictures(pictures_in(folder).train, cache, size=(8, 8))
    decoded_pictures(pictures_in(folder).train, cache, size=(9, 9))
    decoded_pictures(pictures_in(folder).train, cache, size=(8, 8), decoding=Decoding(1))
    draw(folder / "train" / "cat" / "0.png", seed=99)
    changed = decoded_pictures(pictures_in(folder).train, cache, size=(8, 8))
    assert len(list(cache.glob("*.bin"))) == 4
    direct = to_array(cover(Image.open(folder / "train" / "cat" / "0.png"), (8, 8)))
    assert np.array_equal(changed.pixels[0].numpy(), direct)


def test_an_unreadable_picture_is_left_out_and_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(folder / "train" / "cat" / "2.png")
    (folder / "train" / "dog" / "4.png").write_bytes(b"")
    listing = pictures_in(folder).train
    images = decoded_pictures(listing, tmp_path / "cache", size=(8, 8), max_failed=0.2)
    good = [index for index in range(12) if index not in (2, 10)]
    whole = [to_array(cover(read_picture(listing.path(index)), (8, 8))) for index in good]
    assert np.array_equal(images.pixels.numpy(), np.stack(whole))
    assert images.labels.tolist() == [listing.labels[index] for index in good]
    assert [name for name, _ in images.report.failed] == ["train/cat/2.png", "train/dog/4.png"]
    assert images.report.failed[1][1] == "an empty file"
    assert images.report.read == 10
    (account,) = (tmp_path / "cache").glob("*.json")
    assert json.loads(account.read_text())["failed"][1] == [10, "an empty file"]
    assert "train/cat/2.png" in caplog.text
    assert decoded_pictures(listing, tmp_path / "cache", size=(8, 8), max_failed=0.2).report == images.report


def test_too_many_unreadable_pictures_stop_the_decoding(folder: Path, tmp_path: Path) -> None:
    damage(folder / "train" / "cat" / "2.png")
    with pytest.raises(DataError, match=r"1 of 12 files .*train/cat/2\.png"):
        decoded_pictures(pictures_in(folder).train, tmp_path / "cache", size=(8, 8))
    assert not list((tmp_path / "cache").glob("*.bin"))


def test_stopped_decoding_goes_on_where_it_was(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "CHUNK", 4)
    listing = pictures_in(folder).train
    expected = decoded_pictures(listing, tmp_path / "whole", size=(8, 8), workers=0)
    read, seen = PictureFiles.read, []

    def stop_at_nine(self: PictureFiles, index: int) -> Any:
        if index == 9:
            raise KeyboardInterrupt
        return read(self, index)

    def note(self: PictureFiles, index: int) -> Any:
        seen.append(index)
        return read(self, index)

    monkeypatch.setattr(PictureFiles, "read", stop_at_nine)
    with pytest.raises(KeyboardInterrupt):
        decoded_pictures(listing, tmp_path / "cache", size=(8, 8), workers=0)
    (journal,) = (tmp_path / "cache").glob("*.jsonl")
    journal.write_text(journal.read_text()[:-5])  # the stop cut the note of the second chunk short
    monkeypatch.setattr(PictureFiles, "read", note)
    resumed = decoded_pictures(listing, tmp_path / "cache", size=(8, 8), workers=0)
    assert seen == list(range(7, 12))
    assert torch.equal(resumed.pixels, expected.pixels)
    assert torch.equal(resumed.labels, expected.labels)
    assert not list((tmp_path / "cache").glob("*partial*"))


def test_a_damaged_cache_is_made_again(folder: Path, tmp_path: Path) -> None:
    listing = pictures_in(folder).train
    expected = decoded_pictures(listing, tmp_path / "cache", size=(8, 8)).pixels.clone()
    (array,) = (tmp_path / "cache").glob("*.bin")
    array.write_bytes(array.read_bytes()[:500])
    assert torch.equal(decoded_pictures(listing, tmp_path / "cache", size=(8, 8)).pixels, expected)


def test_two_at_once_decode_the_set_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = pictures_in(folder).train
    read, seen = PictureFiles.read, []

    def note(self: PictureFiles, index: int) -> Any:
        seen.append(index)
        return read(self, index)

    monkeypatch.setattr(PictureFiles, "read", note)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(decoded_pictures, listing, tmp_path / "cache", size=(8, 8)) for _ in range(2)]
        one, other = (future.result() for future in both)
    assert sorted(seen) == list(range(12))
    assert torch.equal(one.pixels, other.pixels)


def test_worker_processes_give_the_same_array(folder: Path, tmp_path: Path) -> None:
    listing = pictures_in(folder).train
    alone = decoded_pictures(listing, tmp_path / "alone", size=(8, 8), workers=0)
    assert torch.equal(decoded_pictures(listing, tmp_path / "two", size=(8, 8), workers=2).pixels, alone.pixels)


def die(context: int, item: int) -> int:
    os._exit(item)


def test_a_killed_worker_is_one_sentence_not_a_hang() -> None:
    with pytest.raises(RuntimeError, match="was killed"):
        list(in_processes(die, 0, [9], workers=1))


@pytest.mark.parametrize("wrong", [{"size": (0, 8)}, {"size": (8, 8), "decoding": Decoding(2)}])
def test_bad_geometry_is_refused(folder: Path, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="1 or 3 channels"):
        decoded_pictures(pictures_in(folder).train, tmp_path, **wrong)


def test_a_full_disk_is_noticed_before_decoding(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mae.data.files.cache.shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(DataError, match="GB free"):
        decoded_pictures(pictures_in(folder).train, tmp_path / "cache", size=(8, 8))
