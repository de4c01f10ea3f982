"""Folders of pictures as data: decoded once or streamed, and the built-in second task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from mae.data.augment.color import ColorJitter, Normalise
from mae.data.augment.compose import Compose, staged
from mae.data.augment.crops import CenterCrop, CentreOfResized, FixedSizeCrop, RandomResizedCrop
from mae.data.builtin.photographs import CLASSES, WhichPhotograph
from mae.data.part import part_of
from mae.data.pictures import decode
from mae.data.pictures.decode import read_picture
from mae.data.pictures.folder import DecodedFolder, StreamedFolder
from mae.data.pictures.geometry import CentreView, FixedView, RandomView
from mae.data.pictures.stream import StreamedPictures
from mae.data.source import Images
from mae.errors import DataError

CPU = torch.device("cpu")
NORMALISE = Normalise([0.5] * 3, [0.25] * 3)
KEY = "data.samples.train"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    chance = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for label in ("cat", "dog"):
            place = tmp_path / "pets" / split / label
            place.mkdir(parents=True)
            for index in range(count):
                pixels = chance.integers(0, 256, (5, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((60, 50), Image.Resampling.BICUBIC).save(place / f"{index}.png")
    return str(tmp_path / "pets")


def test_decoded_folder_serves_both_sides_at_the_size_asked_for(folder: str, tmp_path: Path) -> None:
    found = DecodedFolder(root=folder, size=[24, 32], channels=3, train=8, test=4)(tmp_path / "cache")
    assert (len(found.train), len(found.test), found.train.classes) == (8, 4, ("cat", "dog"))
    batch = next(found.test.batches([torch.arange(4)], CPU))
    assert batch.images.shape == (4, 3, 24, 32)
    assert batch.labels.tolist() == [0, 0, 1, 1]


def test_more_than_a_folder_holds_is_refused_before_it_is_decoded(folder: str, tmp_path: Path) -> None:
    asked = (
        r"has 8 pictures for train, the spec asks for 100; lower data\.samples\.train \(and .*pretrain\) to 8 or less"
    )
    with pytest.raises(DataError, match=asked):
        DecodedFolder(root=folder, size=[24, 24], channels=3, train=100, test=4)(tmp_path)
    with pytest.raises(DataError, match=r"has 4 pictures for test.*lower data\.samples\.test to 4 or less"):
        StreamedFolder(root=folder, channels=3, train=8, test=5)(Path())
    assert not list(tmp_path.glob("*.bin"))


def test_parts_of_a_folder_share_what_was_decoded_once(folder: str, tmp_path: Path) -> None:
    found = [
        DecodedFolder(root=folder, size=[24, 24], channels=3, train=train, test=test)(tmp_path / "cache")
        for train, test in ((8, 4), (6, 1))
    ]
    assert torch.equal(found[0].train.pixels, found[1].train.pixels)  # type: ignore[attr-defined]
    assert len(list((tmp_path / "cache").glob("*.bin"))) == 2


@pytest.mark.parametrize("balanced", [False, True])
def test_decoded_and_streamed_parts_are_the_same_pictures(folder: str, tmp_path: Path, balanced: bool) -> None:
    decoded = DecodedFolder(root=folder, size=[24, 24], channels=3, train=5, test=4)(tmp_path).train
    streamed = StreamedFolder(root=folder, channels=3, train=5, test=4)(Path()).train
    view = Compose((CentreOfResized([24, 24], [24, 24]), NORMALISE))
    files, _ = staged(part_of(streamed, 5, KEY, balanced), view)
    assert isinstance(files, StreamedPictures)
    files.workers = 0
    first, second = (
        next(iter(source.batches([torch.arange(5)], CPU))) for source in (part_of(decoded, 5, KEY, balanced), files)
    )
    assert torch.equal(first.images, second.images)
    assert first.labels.tolist() == second.labels.tolist() == sorted(first.labels.tolist())
    assert first.rows.tolist() == second.rows.tolist() == [0, 1, 2, 3, 4]
    assert not balanced or sorted(first.labels.bincount().tolist()) == [2, 3]


def test_streaming_a_part_decodes_and_reports_on_no_other_file(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(decode, "read_picture", lambda path, *limit: read.append(path) or read_picture(path, *limit))
    part = part_of(StreamedFolder(root=folder, channels=3, train=3, test=4)(Path()).train, 3, KEY)
    assert isinstance(part, StreamedPictures)
    (Path(folder) / part.listing.names[1]).write_bytes(b"")
    part.workers, part.tally.max_failed = 0, 0.5
    (batch,) = part.batches([torch.arange(3)], CPU)
    assert [path.relative_to(folder).as_posix() for path in read] == list(part.listing.names)
    assert batch.rows.tolist() == [0, 2]
    assert (len(part), part.report.read, len(part.report.failed)) == (3, 2, 1)
    assert part.classes == ("cat", "dog")


def test_all_that_a_folder_holds_is_served_without_the_file_that_cannot_be_read(folder: str, tmp_path: Path) -> None:
    for index in range(4, 20):
        place = Path(folder) / "train" / "cat"
        (place / f"{index}.png").write_bytes((place / "0.png").read_bytes() if index < 19 else b"")
    train = DecodedFolder(root=folder, size=[24, 24], channels=3, train=24, test=4)(tmp_path).train
    assert part_of(train, 24, KEY, balanced=True) is train
    assert (len(train), len(part_of(train, 22, KEY))) == (23, 22)


def test_folder_that_is_not_named_is_asked_for() -> None:
    with pytest.raises(DataError, match=r"add data\.source\.root=PATH"):
        StreamedFolder(root=None, channels=3, train=8, test=4)(Path())


@pytest.mark.parametrize(
    ("crop", "view"),
    [
        (RandomResizedCrop([24, 24], [0.5, 1.0], flip=False), RandomView((24, 24), (0.5, 1.0), flip=False)),
        (FixedSizeCrop([28, 28]), FixedView((28, 28), (32, 32))),
        (CentreOfResized([24, 24], [32, 32]), CentreView((24, 24), (32, 32))),
        (CenterCrop(24), CentreView((24, 24), (24, 24))),
    ],
)
def test_streamed_files_are_cropped_as_they_are_decoded(folder: str, crop: object, view: object) -> None:
    source = StreamedFolder(root=folder, channels=3, train=8, test=4)(Path()).train
    steps, rest = staged(source, Compose((crop, Compose((ColorJitter(), NORMALISE)))))  # type: ignore[arg-type]
    assert isinstance(steps, StreamedPictures)
    assert steps.geometry == view
    assert rest == Compose((ColorJitter(), NORMALISE))


def test_streamed_batch_has_the_size_of_the_crop_and_is_drawn_anew_for_another_batch(folder: str) -> None:
    source = StreamedFolder(root=folder, channels=3, train=8, test=4)(Path()).train
    files, rest = staged(source, Compose((RandomResizedCrop([24, 24]), NORMALISE)))
    assert isinstance(files, StreamedPictures)
    files.workers = 0
    first, second, other = (
        next(files.batches([torch.tensor(index)], CPU)).images for index in ([0, 5, 3], [0, 5, 3], [0, 3, 5])
    )
    assert first.shape == (3, 3, 24, 24)
    assert torch.equal(first, second)
    assert not torch.equal(first[0], other[0])
    assert rest(first, Generator()).dtype == torch.float32


def test_pictures_in_memory_keep_their_augmentation() -> None:
    source, augment = Images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1), ("a",)), CenterCrop(4)
    assert staged(source, augment) == (source, augment)


def test_augmentation_without_a_crop_cannot_be_streamed(folder: str) -> None:
    source = StreamedFolder(root=folder, channels=3, train=8, test=4)(Path()).train
    with pytest.raises(DataError, match="begin the augmentation with RandomResizedCrop"):
        staged(source, Compose((ColorJitter(), CenterCrop(4))))


def test_fixed_view_moves_and_never_leaves_the_picture() -> None:
    ramp = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    picture, view = Image.fromarray(ramp), FixedView((32, 32), (36, 36), flip=False)
    seen = [np.asarray(view(picture, Generator().manual_seed(seed))) for seed in range(20)]
    assert {crop.shape for crop in seen} == {(32, 32)}
    assert len({crop.tobytes() for crop in seen}) > 10
    assert min(crop.min() for crop in seen) >= 0


def test_test_view_is_the_centre_of_the_resized_picture() -> None:
    images = torch.rand(2, 3, 40, 40)
    seen = CentreOfResized([24, 24], [40, 40])(images, Generator())
    assert torch.equal(seen, images[:, :, 8:32, 8:32])
    with pytest.raises(DataError, match="does not fit"):
        CentreOfResized([24, 24], [20, 20])


def test_photographs_are_balanced_and_repeatable_and_their_sides_differ() -> None:
    first, second, other = (WhichPhotograph(train=130, test=26, size=32, seed=seed)(Path()) for seed in (0, 0, 1))
    assert isinstance(first.train, Images)
    assert isinstance(second.train, Images)
    assert isinstance(other.train, Images)
    assert first.train.pixels.shape == (130, 3, 32, 32)
    assert first.train.labels.bincount().tolist() == [10] * len(CLASSES)
    assert torch.equal(first.train.pixels, second.train.pixels)
    assert not torch.equal(first.train.pixels, other.train.pixels)
    assert len(first.test) == 26


def test_photographs_refuse_what_they_cannot_serve() -> None:
    with pytest.raises(DataError, match="at least one of each"):
        WhichPhotograph(train=5, test=26)(Path())
    with pytest.raises(DataError, match="choose 16 to 96"):
        WhichPhotograph(size=8)(Path())
