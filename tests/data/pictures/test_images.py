"""Listing, decoding, caching and streaming of picture files made on the spot."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset

import mae.data.files.cache as cache_module
from mae.data.files.workers import in_processes
from mae.data.pictures.decode import cover, read_picture, to_array, with_channels
from mae.data.pictures.images import (
    CentreView,
    ImageFiles,
    Listing,
    RandomView,
    TimmPictures,
    cached,
    image_files,
    listing_digest,
    splits,
    timm_dataset,
)
from mae.errors import DataError
from mae.train.loop import order

CPU = torch.device("cpu")


def draw(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Path:
    """A picture of smooth noise, (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for split, count in {"train": 6, "test": 3}.items():
        for label, kind in enumerate(("cat", "dog")):
            for index in range(count):
                draw(root / split / kind / f"{index}.png", seed=100 * label + 10 * count + index)
    return root


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


# Listing


def test_classes_are_sorted_and_labels_follow_them(folder: Path) -> None:
    listing = image_files(folder, "train")
    assert listing.classes == ("cat", "dog")
    assert listing.labels == (0,) * 6 + (1,) * 6
    assert listing.names[0] == "train/cat/0.png"
    assert listing.names == tuple(sorted(listing.names))


def test_numbered_classes_are_ordered_by_value(tmp_path: Path) -> None:
    for label in ("10", "9", "1"):
        draw(tmp_path / "train" / label / "a.png")
    assert image_files(tmp_path, "train").classes == ("1", "9", "10")


def test_every_documented_suffix_is_listed_and_read(tmp_path: Path) -> None:
    for suffix in ("jpg", "JPEG", "png", "bmp", "webp", "tif", "tiff", "gif"):
        draw(tmp_path / "train" / "x" / f"a.{suffix}")
    (tmp_path / "train" / "x" / "notes.txt").write_text("no picture")
    (tmp_path / "train" / "x" / "._a.jpg").write_bytes(b"resource fork")
    listing = image_files(tmp_path, "train")
    assert len(listing) == 8
    assert all(with_channels(listing.read(index)[0], 3).size == (40, 30) for index in range(8))


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert with_channels(read_picture(tmp_path / "a.gif"), 3).getpixel((3, 3)) == (255, 0, 0)


def test_a_val_folder_serves_testing_only_where_there_is_no_test_folder(folder: Path) -> None:
    draw(folder / "val" / "cat" / "v.png")
    assert len(image_files(folder, "test")) == 6
    assert image_files(folder, "val").names == ("val/cat/v.png",)
    (folder / "test").rename(folder / "spare")
    assert image_files(folder, "test").names == ("val/cat/v.png",)


def test_a_folder_without_splits_is_refused_unless_a_share_is_held_out(folder: Path) -> None:
    with pytest.raises(DataError, match=r"train/<class>.*held_out"):
        image_files(folder / "train", "train")
    train = image_files(folder / "train", "train", held_out=0.34)
    test = image_files(folder / "train", "test", held_out=0.34)
    assert not set(train.names) & set(test.names)
    assert len(train) == 8
    assert len(test) == 4
    assert sorted(test.labels) == [0, 0, 1, 1]


def test_a_new_picture_moves_no_other_between_the_sides_by_its_position(folder: Path) -> None:
    before = set(image_files(folder / "train", "train", held_out=0.5).names)
    draw(folder / "train" / "cat" / "00.png")
    after = set(image_files(folder / "train", "train", held_out=0.5).names)
    assert len(before - after) <= 1


def test_holding_out_from_a_set_with_testing_pictures_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="leave held_out away"):
        image_files(folder, "train", held_out=0.1)


def test_a_test_class_unknown_in_training_is_named(folder: Path) -> None:
    draw(folder / "test" / "horse" / "a.png")
    with pytest.raises(DataError, match="'horse'"):
        image_files(folder, "test")


@pytest.mark.parametrize(
    ("split", "held_out", "what"),
    [("training", 0.0, "split='training'"), ("train", 1.0, "held_out=1.0"), ("train", -0.1, "held_out=-0.1")],
)
def test_bad_arguments_are_named(folder: Path, split: str, held_out: float, what: str) -> None:
    with pytest.raises(DataError, match=what):
        image_files(folder, split, held_out=held_out)


def test_a_missing_folder_and_one_without_pictures_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a folder nor a list"):
        image_files(tmp_path / "none", "train")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"looked for train/<class>"):
        image_files(tmp_path, "train")


def test_a_list_gives_the_same_pictures_as_its_folder(folder: Path) -> None:
    both = [image_files(folder, split) for split in ("train", "test")]
    rows = [
        f"{name},{listing.classes[label]},{name.split('/')[0]}"
        for listing in both
        for name, label in zip(listing.names, listing.labels, strict=True)
    ]
    (folder / "list.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    assert [image_files(folder / "list.csv", split) for split in ("train", "test")] == both


def test_a_list_without_labels_is_unlabelled(folder: Path) -> None:
    (folder / "list.csv").write_text("path,split\ntrain/cat/0.png,train\ntest/cat/0.png,test\n")
    listing = image_files(folder / "list.csv", "train")
    assert listing.labels == (-1,)
    assert listing.classes == ()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("file,class\na.png,x\n", "has the header file,class"),
        ("path,label\na.png,\n", "line 2: the label is empty"),
        ("path,label\n,x\n", "line 2: a row must have one path"),
        ("path,label\na,b.png,x\n", "line 2: a row must have one path"),
        ("path,label,split\na.png,x,training\n", "line 2: split='training'"),
        ("path,label\na.png,x\n", "held_out"),
        ("", r"\(none\)"),
    ],
)
def test_a_malformed_list_is_named_with_its_line(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=what):
        image_files(tmp_path / "list.csv", "train")


def test_a_list_that_is_no_text_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="no CSV text"):
        image_files(folder / "train" / "cat" / "0.png", "train")


def test_the_digest_follows_names_labels_and_sizes_but_not_times(folder: Path, tmp_path: Path) -> None:
    first = listing_digest(folder)
    os.utime(folder / "train" / "cat" / "0.png", (1, 1))
    assert listing_digest(folder) == first
    (folder / "train" / "cat" / "0.png").rename(folder / "train" / "dog" / "zero.png")
    second = listing_digest(folder)
    with open(folder / "train" / "dog" / "1.png", "ab") as file:
        file.write(b"\0")
    assert len({first, second, listing_digest(folder)}) == 3


def test_listing_and_digest_do_not_import_torch(folder: Path) -> None:
    code = (
        "import sys; from mae.data.files.listing import image_files, listing_digest; import mae.data.check.verify;"
        f"image_files({str(folder)!r}, 'train'); print(listing_digest({str(folder)!r}), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == [listing_digest(folder), "False"]


# Decoding


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (300, 31), (33, 33)])
def test_cover_agrees_with_torchvisions_resize_and_centre_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    picture = read_picture(draw(tmp_path / "a.png", size=size))
    resize = transforms.Resize(28, transforms.InterpolationMode.BICUBIC)
    expected = transforms.CenterCrop(24)(resize(picture))
    assert np.array_equal(to_array(cover(picture, (24, 24), (28, 28))), to_array(expected))


def test_cover_fills_a_size_that_is_not_square_without_distortion() -> None:
    half = Image.new("L", (80, 40))
    half.paste(255, (40, 0, 80, 40))
    out = to_array(cover(half, (20, 10)))
    assert out.shape == (1, 20, 10)
    assert out[0, :, :4].max() < 10
    assert out[0, :, 6:].min() > 245


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_common_mode_becomes_the_channels_asked_for(mode: str, channels: int) -> None:
    picture = Image.new("I;16", (4, 4), 40000) if mode == "I;16" else Image.new("L", (4, 4), 255).convert(mode)
    out = to_array(with_channels(picture, channels))
    assert out.shape == (channels, 4, 4)
    assert np.all(out == (40000 >> 8 if mode == "I;16" else 255))


def test_pixels_without_a_white_point_are_refused() -> None:
    with pytest.raises(ValueError, match="white point"):
        with_channels(Image.new("F", (4, 4)), 3)


def test_a_cut_file_is_never_filled_up_even_if_another_library_allows_it(tmp_path: Path) -> None:
    from PIL import ImageFile

    path = draw(tmp_path / "a.jpg", size=(200, 200))
    damage(path)
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    with pytest.raises(OSError, match="truncated"):
        read_picture(path)


# Cache


def test_cached_pixels_are_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    listing = image_files(folder, "train")
    images = cached(listing, tmp_path / "cache", size=16)
    assert images.pixels.shape == (12, 3, 16, 16)
    assert images.pixels.dtype == torch.uint8
    for index in (0, 7):
        expected = to_array(cover(Image.open(listing.path(index)).convert("RGB"), (16, 16)))
        assert np.array_equal(images.pixels[index].numpy(), expected)
    assert images.labels.tolist() == list(listing.labels)
    assert images.report.read == 12
    assert images.to(CPU).report == images.report


def test_a_second_call_decodes_nothing_and_maps_what_exceeds_the_budget(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = image_files(folder, "train")
    first = cached(listing, tmp_path / "cache", size=(8, 12))
    monkeypatch.setattr(Listing, "read", lambda *_: pytest.fail("decoded again"))
    mapped = cached(listing, tmp_path / "cache", size=(8, 12), budget=0)
    assert torch.equal(first.pixels, mapped.pixels)
    assert torch.equal(first.labels, mapped.labels)
    mapped.pixels.zero_()  # a private copy: the file keeps its pixels
    assert torch.equal(first.pixels, cached(listing, tmp_path / "cache", size=(8, 12)).pixels)


def test_a_changed_file_or_geometry_is_another_cache(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cached(image_files(folder, "train"), cache, size=8)
    cached(image_files(folder, "train"), cache, size=9)
    cached(image_files(folder, "train"), cache, size=8, channels=1)
    draw(folder / "train" / "cat" / "0.png", seed=99)
    changed = cached(image_files(folder, "train"), cache, size=8)
    assert len(list(cache.glob("*.npy"))) == 4
    direct = to_array(cover(Image.open(folder / "train" / "cat" / "0.png"), (8, 8)))
    assert np.array_equal(changed.pixels[0].numpy(), direct)


def test_an_unreadable_picture_is_left_out_and_named(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damage(folder / "train" / "cat" / "2.png")
    (folder / "train" / "dog" / "4.png").write_bytes(b"")
    listing = image_files(folder, "train")
    images = cached(listing, tmp_path / "cache", size=8, max_failed=0.2)
    good = [index for index in range(12) if index not in (2, 10)]
    whole = [to_array(cover(listing.read(index)[0], (8, 8))) for index in good]
    assert np.array_equal(images.pixels.numpy(), np.stack(whole))
    assert images.labels.tolist() == [listing.labels[index] for index in good]
    assert [name for name, _ in images.report.failed] == ["train/cat/2.png", "train/dog/4.png"]
    assert images.report.failed[1][1] == "an empty file"
    assert images.report.read == 10
    (account,) = (tmp_path / "cache").glob("*.json")
    assert json.loads(account.read_text())["failed"][1] == ["train/dog/4.png", "an empty file"]
    assert "train/cat/2.png" in caplog.text
    assert cached(listing, tmp_path / "cache", size=8, max_failed=0.2).report == images.report


def test_too_many_unreadable_pictures_stop_the_decoding(folder: Path, tmp_path: Path) -> None:
    damage(folder / "train" / "cat" / "2.png")
    with pytest.raises(DataError, match=r"1 of 12 files .*train/cat/2\.png"):
        cached(image_files(folder, "train"), tmp_path / "cache", size=8)
    assert not list((tmp_path / "cache").glob("*.npy"))


def test_stopped_decoding_goes_on_where_it_was(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "CHUNK", 4)
    listing = image_files(folder, "train")
    expected = cached(listing, tmp_path / "whole", size=8, workers=0)
    read, seen = Listing.read, []

    def stop_at_nine(self: Listing, index: int) -> Any:
        if index == 9:
            raise KeyboardInterrupt
        return read(self, index)

    def note(self: Listing, index: int) -> Any:
        seen.append(index)
        return read(self, index)

    monkeypatch.setattr(Listing, "read", stop_at_nine)
    with pytest.raises(KeyboardInterrupt):
        cached(listing, tmp_path / "cache", size=8, workers=0)
    (journal,) = (tmp_path / "cache").glob("*.jsonl")
    journal.write_text(journal.read_text()[:-5])  # the stop cut the note of the second chunk short
    monkeypatch.setattr(Listing, "read", note)
    resumed = cached(listing, tmp_path / "cache", size=8, workers=0)
    assert seen == list(range(4, 12))
    assert torch.equal(resumed.pixels, expected.pixels)
    assert torch.equal(resumed.labels, expected.labels)
    assert not list((tmp_path / "cache").glob("*partial*"))


def test_a_damaged_cache_is_made_again(folder: Path, tmp_path: Path) -> None:
    listing = image_files(folder, "train")
    expected = cached(listing, tmp_path / "cache", size=8)
    (array,) = (tmp_path / "cache").glob("*.npy")
    array.write_bytes(array.read_bytes()[:500])
    assert torch.equal(cached(listing, tmp_path / "cache", size=8).pixels, expected.pixels)


def test_two_at_once_decode_the_set_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = image_files(folder, "train")
    read, seen = Listing.read, []

    def note(self: Listing, index: int) -> Any:
        seen.append(index)
        return read(self, index)

    monkeypatch.setattr(Listing, "read", note)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(cached, listing, tmp_path / "cache", size=8) for _ in range(2)]
        one, other = (future.result() for future in both)
    assert sorted(seen) == list(range(12))
    assert torch.equal(one.pixels, other.pixels)


def test_worker_processes_give_the_same_array(folder: Path, tmp_path: Path) -> None:
    listing = image_files(folder, "train")
    alone = cached(listing, tmp_path / "alone", size=8, workers=0)
    assert torch.equal(cached(listing, tmp_path / "two", size=8, workers=2).pixels, alone.pixels)


def die(context: int, item: int) -> int:
    os._exit(item)


def test_a_killed_worker_is_one_sentence_not_a_hang() -> None:
    with pytest.raises(RuntimeError, match="was killed"):
        list(in_processes(die, 0, [9], workers=1))


def test_the_files_own_channels_are_kept_and_others_left_out(tmp_path: Path) -> None:
    for index in range(3):
        draw(tmp_path / "train" / "x" / f"{index}.png", seed=index, mode="L")
    draw(tmp_path / "train" / "x" / "3.png")
    images = cached(image_files(tmp_path, "train"), tmp_path / "c", size=8, channels=None, max_failed=0.5)
    assert images.pixels.shape == (3, 1, 8, 8)
    assert "3 channels" in images.report.failed[0][1]


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 8, "channels": 2}])
def test_bad_geometry_is_refused(folder: Path, tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(DataError, match="channels 1, 3 or None"):
        cached(image_files(folder, "train"), tmp_path, **wrong)  # type: ignore[arg-type]


def test_a_full_disk_is_noticed_before_decoding(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mae.data.files.cache.shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(DataError, match="GB free"):
        cached(image_files(folder, "train"), tmp_path / "cache", size=8)


def test_splits_share_classes_and_their_identity_is_of_the_content(folder: Path, tmp_path: Path) -> None:
    def identity(size: int) -> str:
        sides = image_files(folder, "train"), image_files(folder, "test")
        made = splits(*sides, tmp_path / "cache", size=size, name="pets")
        assert len(made.train) == 12
        assert len(made.test) == 6
        assert made.test.classes == ("cat", "dog")
        return made.identity

    first = identity(8)
    os.utime(folder / "test" / "cat" / "0.png", (1, 1))
    assert identity(8) == first != identity(9)
    draw(folder / "test" / "cat" / "9.png")
    with pytest.raises(AssertionError):
        identity(8)  # seven pictures now


# Streaming


def test_streamed_test_views_are_those_of_the_cache(folder: Path, tmp_path: Path) -> None:
    listing = image_files(folder, "test")
    images = cached(listing, tmp_path / "cache", size=16)
    source = ImageFiles(listing, CentreView((16, 16), (16, 16)), workers=0)
    (batch,) = source.batches([torch.tensor([4, 0, 2])], CPU)
    assert torch.equal(batch.images, images.pixels[[4, 0, 2]])
    assert batch.labels.tolist() == [1, 0, 0]
    assert len(source) == 6
    assert source.classes == ("cat", "dog")
    assert source.report.read == 3


def test_random_views_do_not_depend_on_workers_and_replay_from_any_step(folder: Path) -> None:
    listing = image_files(folder, "train")

    def views(workers: int, start: int, seed: int = 3) -> list[torch.Tensor]:
        source = ImageFiles(listing, RandomView((8, 8)), seed=seed, workers=workers)
        return [batch.images for batch in source.batches(order(len(listing), 5, 0, start, 5), CPU)]

    alone = views(0, 0)
    assert len(alone) == 5
    assert not torch.equal(alone[0], alone[1])
    assert all(map(torch.equal, alone, views(2, 0)))
    assert all(map(torch.equal, alone[3:], views(0, 3)))
    assert not torch.equal(alone[0], views(0, 0, seed=4)[0])


def test_the_same_picture_is_seen_differently_in_the_next_epoch(folder: Path) -> None:
    listing = image_files(folder, "train")
    source = ImageFiles(listing, RandomView((8, 8)), workers=0)
    steps = list(order(len(listing), 12, 0, 0, 2))
    first, second = (batch.images for batch in source.batches(steps, CPU))
    place = [row.index(5) for row in (step.tolist() for step in steps)]
    assert not torch.equal(first[place[0]], second[place[1]])


def test_streaming_leaves_the_global_generator_alone(folder: Path) -> None:
    source = ImageFiles(image_files(folder, "train"), RandomView((8, 8)), workers=0)
    torch.manual_seed(0)
    list(source.batches([torch.arange(4)], CPU))
    drawn = torch.rand(())
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(()))


def test_an_unreadable_file_makes_its_batch_smaller_and_is_named_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listing = image_files(folder, "train")
    whole = ImageFiles(listing, RandomView((8, 8)), workers=0)
    (expected,) = whole.batches([torch.tensor([1, 2, 3])], CPU)
    damage(folder / "train" / "cat" / "2.png")
    source = ImageFiles(listing, RandomView((8, 8)), workers=0, max_failed=0.1)
    with caplog.at_level(logging.WARNING):
        one, two, empty = source.batches([torch.tensor([1, 2, 3]), torch.tensor([2, 0]), torch.tensor([2])], CPU)
    assert torch.equal(one.images, expected.images[[0, 2]])  # the others are what they were
    assert len(two.images) == len(two.labels) == 1
    assert empty.images.shape == (0, 3, 8, 8)
    assert empty.labels.shape == (0,)
    assert caplog.text.count("2.png") == 1
    assert [name for name, _ in source.report.failed] == ["train/cat/2.png"]
    assert source.report.read == 3


def test_too_many_unreadable_files_stop_the_stream(folder: Path) -> None:
    damage(folder / "train" / "cat" / "2.png")
    source = ImageFiles(image_files(folder, "train"), CentreView((8, 8), (8, 8)), workers=0)
    with pytest.raises(DataError, match=r"1 of 12 files"):
        list(source.batches([torch.arange(12)], CPU))


def test_what_workers_receive_can_be_sent_to_a_fresh_process(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "x" / "ünïcode 名.png")
    source = ImageFiles(image_files(tmp_path, "train"), RandomView((8, 8)), workers=0)
    decoder = pickle.loads(pickle.dumps(source._decoder))
    (batch,) = source.batches([torch.tensor([0])], CPU)
    assert torch.equal(decoder[torch.tensor([0])].images, batch.images)


def test_random_boxes_lie_inside_and_have_the_areas_and_ratios_asked_for() -> None:
    view = RandomView((8, 8), scale=(0.3, 0.6))
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([view.box(200, 150, generator) for _ in range(500)], dtype=torch.float64)
    left, top, width, height = boxes.unbind(1)
    assert (boxes >= 0).all()
    assert (left + width <= 200).all()
    assert (top + height <= 150).all()
    area, ratio = width * height / 30000, width / height
    assert 0.29 < area.min() < 0.32
    assert 0.58 < area.max() < 0.61
    assert abs(area.mean() - 0.45) < 0.02
    assert abs(ratio.log().mean()) < 0.03
    assert ratio.min() > 0.73
    assert ratio.max() < 1.36


def test_a_picture_that_no_box_fits_gets_the_largest_centred_one() -> None:
    generator = torch.Generator().manual_seed(0)
    assert RandomView(scale=(0.9, 1.0)).box(300, 30, generator) == (130, 0, 40, 30)
    assert RandomView(scale=(0.9, 1.0)).box(30, 300, generator) == (0, 130, 30, 40)


def test_half_of_the_random_views_are_mirrored() -> None:
    picture = Image.linear_gradient("L").rotate(90)
    view = RandomView((4, 4), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    rising = [bool(np.diff(to_array(view(picture, generator))[0, 0].astype(int)).sum() > 0) for _ in range(200)]
    assert 75 < sum(rising) < 125


# timm


def tar_of(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.add(folder, arcname="set")
    return path


def test_a_tar_file_through_timm_has_the_pixels_of_its_folder(folder: Path, tmp_path: Path) -> None:
    archive = tar_of(folder / "train", tmp_path / "pets.tar")
    pictures = timm_dataset("", archive, "train")
    expected = cached(image_files(folder, "train"), tmp_path / "cache", size=8)
    images = cached(pictures, tmp_path / "cache", size=8)
    assert images.classes == ("cat", "dog")
    assert torch.equal(images.labels, expected.labels)
    assert torch.equal(images.pixels, expected.pixels)
    assert [p.name for p in tmp_path.glob("*.p*kl*")] == []


def test_a_damaged_member_of_a_tar_file_is_left_out_not_replaced_by_the_next(folder: Path, tmp_path: Path) -> None:
    damage(folder / "train" / "cat" / "2.png")
    pictures = timm_dataset("", tar_of(folder / "train", tmp_path / "pets.tar"), "train")
    images = cached(pictures, tmp_path / "cache", size=8, max_failed=0.1)
    assert len(images) == 11
    assert [name for name, _ in images.report.failed] == ["set/cat/2.png"]


class Stream(IterableDataset):  # type: ignore[type-arg]
    """Stands for a set that timm can only iterate; it ends one picture early."""

    def __iter__(self) -> Any:
        return iter([(Image.new("RGB", (8, 8), (10 * index, 0, 0)), index % 3) for index in range(9)])

    def __len__(self) -> int:
        return 10


def test_a_set_that_can_only_be_iterated_is_read_in_order(tmp_path: Path) -> None:
    pictures = TimmPictures(Stream(), "tfds/stream|train", None)
    images = cached(pictures, tmp_path, size=8, workers=2, max_failed=0.1, channels=None)
    assert images.pixels[:, 0, 0, 0].tolist() == [10 * index for index in range(9)]
    assert images.classes == ("0", "1", "2")
    assert images.report.failed == (("tfds/stream|train[9]", "the set ended before this picture"),)


@pytest.mark.parametrize("name", ["torch/cifar10", "torch/nonsense", "hfids/some/set", ""])
def test_a_set_that_is_not_there_is_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"download=True|image_files"):
        timm_dataset(name, tmp_path, "train")
