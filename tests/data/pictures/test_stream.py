"""Pictures that are decoded anew for every batch."""

from __future__ import annotations

import logging
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import pytest
import torch

from mae.data.files import stream
from mae.data.files.listing import Listing
from mae.data.files.stream import PARTS_AHEAD, READ_AHEAD, part_size, parts, streamed
from mae.data.files.tally import Tally
from mae.data.part import Part
from mae.data.pictures.cache import decoded_pictures
from mae.data.pictures.geometry import CentreView, RandomView
from mae.data.pictures.lists import pictures_in
from mae.data.pictures.stream import PictureReader, StreamedPictures
from mae.data.source import Batch, generators, reading
from mae.errors import DataError
from mae.train.loop import order
from tests.data.pictures.picture_writer import damage, draw

CPU = torch.device("cpu")


def test_streamed_test_views_are_those_of_the_cache(folder: Path, tmp_path: Path) -> None:
    listing = pictures_in(folder).test
    images = decoded_pictures(listing, tmp_path / "cache", size=(16, 16))
    source = StreamedPictures(listing, CentreView((16, 16), (16, 16)), workers=0)
    (batch,) = source.batches([torch.tensor([4, 0, 2])], CPU)
    assert torch.equal(batch.images, images.pixels[[4, 0, 2]])
    assert batch.labels.tolist() == [1, 0, 0]
    assert len(source) == 6
    assert source.classes == ("cat", "dog")
    assert source.report.read == 3


def test_random_views_do_not_depend_on_workers_and_replay_from_any_step(folder: Path) -> None:
    listing = pictures_in(folder).train

    def views(workers: int, start: int, seed: int = 3) -> list[torch.Tensor]:
        source = StreamedPictures(listing, RandomView((8, 8)), seed=seed, workers=workers)
        return [batch.images for batch in source.batches(order(len(listing), 5, 0, start, 5), CPU)]

    alone = views(0, 0)
    assert len(alone) == 5
    assert not torch.equal(alone[0], alone[1])
    assert all(map(torch.equal, alone, views(2, 0)))
    assert all(map(torch.equal, alone[3:], views(0, 3)))
    assert not torch.equal(alone[0], views(0, 0, seed=4)[0])


def test_some_places_of_a_batch_are_read_as_they_are_in_the_whole_of_it(folder: Path) -> None:
    source = StreamedPictures(pictures_in(folder).train, RandomView((8, 8)), seed=3, workers=0)
    steps = list(order(len(source), 6, 0, 0, 2))
    for whole, some in zip(source.batches(steps, CPU), reading(source, range(2, 5)).batches(steps, CPU), strict=True):
        assert torch.equal(whole.images[2:5], some.images)
        assert torch.equal(whole.rows[2:5], some.rows)
    half = Part(source, torch.arange(6))
    (whole,), (some,) = (part.batches([torch.tensor([5, 0, 3, 1])], CPU) for part in (half, half.reading(slice(1, 3))))
    assert torch.equal(whole.images[1:3], some.images)
    assert some.rows.tolist() == [0, 3]


def test_the_same_picture_is_seen_differently_in_the_next_epoch(folder: Path) -> None:
    listing = pictures_in(folder).train
    source = StreamedPictures(listing, RandomView((8, 8)), workers=0)
    steps = list(order(len(listing), 12, 0, 0, 2))
    first, second = (batch.images for batch in source.batches(steps, CPU))
    place = [row.index(5) for row in (step.tolist() for step in steps)]
    assert not torch.equal(first[place[0]], second[place[1]])


def test_streaming_leaves_the_global_generator_alone(folder: Path) -> None:
    source = StreamedPictures(pictures_in(folder).train, RandomView((8, 8)), workers=0)
    torch.manual_seed(0)
    list(source.batches([torch.arange(4)], CPU))
    drawn = torch.rand(())
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(()))


def test_an_unreadable_file_makes_its_batch_smaller_and_is_named_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listing = pictures_in(folder).train
    whole = StreamedPictures(listing, RandomView((8, 8)), workers=0)
    (expected,) = whole.batches([torch.tensor([1, 2, 3])], CPU)
    damage(folder / "train" / "cat" / "2.png")
    source = StreamedPictures(listing, RandomView((8, 8)), workers=0, max_failed=0.1)
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
    source = StreamedPictures(pictures_in(folder).train, CentreView((8, 8), (8, 8)), workers=0)
    with pytest.raises(DataError, match=r"1 of 12 files"):
        list(source.batches([torch.arange(12)], CPU))


def test_what_workers_receive_can_be_sent_to_a_fresh_process(tmp_path: Path) -> None:
    for split in ("train", "test"):
        draw(tmp_path / split / "x" / "ünïcode 名.png")
    source = StreamedPictures(pictures_in(tmp_path).train, RandomView((8, 8)), workers=0)
    reader = pickle.loads(pickle.dumps(PictureReader(source.geometry, source.decoding)))
    (batch,) = source.batches([torch.tensor([0])], CPU)
    (generator,) = generators(0, [0])
    assert torch.equal(reader.examples(source.listing.path(0), generator)[0], batch.images[0])


@pytest.mark.parametrize("workers", [1, 8, 64])
@pytest.mark.parametrize("nbytes", [3 * 224 * 224, 3 * 16 * 224 * 224, 3 * 3 * 16 * 240 * 240])
def test_what_all_workers_read_ahead_is_bounded_whatever_the_batch(workers: int, nbytes: int) -> None:
    size = part_size(nbytes, workers)
    assert PARTS_AHEAD * workers * size * nbytes <= READ_AHEAD
    batches = [torch.arange(16384), torch.arange(1000), torch.empty(0, dtype=torch.int64)]
    cut = list(parts(batches, size))
    assert max(part.stop - part.start for part in cut) <= size
    assert [row for part in cut for row in part.rows[part.start : part.stop]] == [*range(16384), *range(1000)]
    assert sum(part.stop == len(part.rows) for part in cut) == 3


@dataclass(frozen=True)
class Fake:
    """A reader of pictures that no file holds: each is filled with a level of its own draw."""

    shape: tuple[int, ...] = (3, 8, 8)
    nbytes: int = 192

    def examples(self, path: Path, generator: torch.Generator) -> list[torch.Tensor]:
        return [torch.full(self.shape, int(torch.randint(256, (), generator=generator)), dtype=torch.uint8)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_in_parts_is_the_batch_in_one(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = Listing(
        Path("/none"), tuple(map(str, range(700))), tuple(row % 7 for row in range(700)), tuple("abcdefg")
    )
    order = [torch.arange(640), torch.arange(60, 700).flip(0), torch.empty(0, dtype=torch.int64)]

    def batches() -> list[Batch]:
        tally = Tally(listing.names, "/none", 0.1)
        return list(streamed(listing, Fake(), tally, order, CPU, seed=3, workers=workers))

    whole = batches()
    monkeypatch.setattr(stream, "READ_AHEAD", 40 * 192 * stream.PARTS_AHEAD * max(1, workers))
    assert part_size(192, workers) == 40
    for one, parted in zip(whole, batches(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one[:3], parted[:3], strict=True))
    assert [len(batch.images) for batch in whole] == [640, 640, 0]
    assert len(whole[0].images.unique()) > 200


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="there is no /dev/shm to look at")
def test_a_batch_of_16384_pictures_takes_no_more_shared_memory_than_is_allowed() -> None:
    """2.5 GB of pictures, which eight workers read; in the shared memory of the machine, whoever else uses it."""
    count, shape = 16384, (3, 224, 224)
    names = tuple(map(str, range(count)))
    listing = Listing(Path("/none"), names, (0,) * count, ("a",))
    before, most, done = shutil.disk_usage("/dev/shm").used, 0, Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.02):
            most = max(most, shutil.disk_usage("/dev/shm").used - before)

    watching = Thread(target=watch)
    watching.start()
    try:
        tally = Tally(listing.names, "/none", 0.1)
        reader = Fake(shape, 3 * 224 * 224)
        (batch,) = streamed(listing, reader, tally, [torch.arange(count)], CPU, seed=0, workers=8)
    finally:
        done.set()
        watching.join()
    assert batch.images.shape == (count, *shape)
    assert batch.images.nbytes > 2 * READ_AHEAD
    print(f"at most {most / 2**20:.0f} MiB of shared memory for {batch.images.nbytes / 2**20:.0f} MiB")
    assert 0 < most < 1.25 * READ_AHEAD


class Short(Fake):
    """A reader that cannot read every third file, nor any of a part."""

    def examples(self, path: Path, generator: torch.Generator) -> list[torch.Tensor]:
        if int(path.name) % 3 == 0 or int(path.name) < 50:
            raise DataError("is damaged")
        return super().examples(path, generator)


def test_a_part_without_a_readable_file_leaves_no_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = Listing(Path("/none"), tuple(map(str, range(100))), (0,) * 100, ("a",))
    monkeypatch.setattr(stream, "READ_AHEAD", 20 * 192 * stream.PARTS_AHEAD)
    (batch,) = streamed(
        listing, Short(), Tally(listing.names, "/none", 0.9), [torch.arange(100)], CPU, seed=0, workers=0
    )
    assert batch.rows.tolist() == [row for row in range(50, 100) if row % 3]
    assert len(batch.images) == len(batch.labels) == len(batch.rows)
